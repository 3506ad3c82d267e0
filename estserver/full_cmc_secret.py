"""Who a shared secret belongs to, and a Full PKI Request that is authenticated under one (RFC 5272 sections 3.2 and 6.2).

A name that is not known is tried with a secret that nobody has, so that it costs what a known one costs and is answered alike.
"""

import asyncio
import secrets
from functools import partial
from typing import Final

from estcore import authenticated_data, cmc_control_codec
from estcore import cmc_controls as controls
from estcore.cmc_status import WHOLE_MESSAGE
from estcore.errors import Busy, CmcFailed, CmcFailInfo
from estcore.full_message import FullMessage
from estcore.identity_proof import wrong_identity
from estcore.pki_data import PkiData
from estcore.requester import AuthenticatedBy, Requester
from estserver.issuers import Issuer

MAX_DERIVATIONS: Final = 2
"""PBKDF2 of AuthenticatedData, at a time in this process: each may take a core for a tenth of a second."""
_derivations = asyncio.Semaphore(MAX_DERIVATIONS)


def owner(name: str) -> Requester:
    """Who proved to know the secret of this name."""
    return Requester(authenticated_by=AuthenticatedBy.CMC_SHARED_SECRET, identity=name, user=name)


async def by_authenticated_data(message: FullMessage, issuer: Issuer, *, accept_sha1: bool) -> tuple[Requester, str]:
    """Whose secret a message is authenticated under, and the secret (RFC 5272 section 3.2).

    The identification in it, which is not believed before the MAC holds, says whose to try. Raises CmcFailed (badMessageCheck, badIdentity,
    badRequest, badAlg), Busy where too many are being checked.
    """
    assert message.authenticated is not None  # noqa: S101 - asked for by the caller
    if message.authenticated.unauthenticated_attributes_der:
        raise CmcFailed(
            "the message has unauthenticated attributes, which no MAC covers; leave them out",
            fail_info=CmcFailInfo.BAD_REQUEST,
            body_parts=(WHOLE_MESSAGE,),
        )
    name = identification_of(message.body)
    if name is None or issuer.shared_secrets is None:
        raise wrong_identity().about(WHOLE_MESSAGE)
    known = secret_of(issuer, name)
    password = authenticated_data.key_derivation_input(name, known if known is not None else decoy())
    if _derivations.locked():
        raise Busy("too many messages under shared secrets are being checked; try again")
    async with _derivations:
        await asyncio.to_thread(partial(authenticated_data.verify, message.authenticated, password, accept_sha1=accept_sha1))
    if known is None:  # nobody finds a random secret
        raise wrong_identity().about(WHOLE_MESSAGE)
    return owner(name), known


def secret_of(issuer: Issuer, name: str) -> str | None:
    """The shared secret of this name, text as RFC 5272 section 6.2 has it; None where there is none."""
    octets = issuer.shared_secrets.get(name) if issuer.shared_secrets is not None else None
    try:
        return octets.decode() if octets is not None else None
    except UnicodeDecodeError:
        return None


def decoy() -> str:
    """What stands for the secret of a name that there is not, so that the check takes as long."""
    return secrets.token_hex(16)


def identification_of(body: PkiData) -> str | None:
    """The text of the first control identification of a message that nothing is believed of yet; None where there is none."""
    for control in body.controls:
        if control.attr_type == f"{cmc_control_codec.ID_CMC}2":
            value = cmc_control_codec.read(control)
            return value.text if isinstance(value, controls.Identification) else None
    return None
