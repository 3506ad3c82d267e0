"""The controls of one PKIData as instructions, once it is clear that the sender may give them.

RFC 5272 section 6 says what each means, RFC 6402 section 2.12 that what a registration authority asserts or changes counts only where
it is one. Deny by default: what is not in the table below, what belongs into a response, and what this server does not do refuse the
whole message before anything is signed (threats row 9: step-ca CVE-2025-44005).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from estcore import cmc_control_codec, ra_witness, template_modification
from estcore import cmc_controls as controls
from estcore.cmc_controls import Control
from estcore.cmc_status import BodyPartPath, CmcNotSupported, CmcStatus
from estcore.errors import CmcFailed, CmcFailInfo
from estcore.pki_data import PkiData

_C = TypeVar("_C", bound=Control)


class _Whose(Enum):
    ANYBODY = "anybody"
    REGISTRATION_AUTHORITY = "a registration authority"
    RESPONDER = "a response"
    NOBODY = "nobody: not supported"


_RIGHTS: Final[dict[type[Control], _Whose]] = {
    **dict.fromkeys(
        (
            controls.Status,
            controls.Identification,
            controls.IdentityProof,
            controls.IdentityProofV2,
            controls.DataReturn,
            controls.TransactionId,
            controls.SenderNonce,
            controls.RecipientNonce,
            controls.DecryptedPop,
            controls.PopLinkRandom,
            controls.GetCert,
            controls.RevokeRequest,
            controls.RegInfo,
            controls.QueryPending,
            controls.ConfirmCertAcceptance,
        ),
        _Whose.ANYBODY,
    ),
    **dict.fromkeys(
        (
            controls.AddExtensions,
            controls.ModCertTemplate,
            controls.LraPopWitness,
            controls.BatchRequests,
            controls.ControlProcessed,
            controls.RaIdentityWitness,
        ),
        _Whose.REGISTRATION_AUTHORITY,
    ),
    **dict.fromkeys(
        (
            controls.EncryptedPop,
            controls.ResponseInfo,
            controls.BatchResponses,
            controls.PublishTrustAnchors,
            controls.ResponseBody,
        ),
        _Whose.RESPONDER,
    ),
    **dict.fromkeys((controls.GetCrl, controls.AuthData, controls.PublishCert), _Whose.NOBODY),
}

_CONTROL_PROCESSED: Final = f"{cmc_control_codec.ID_CMC}32"
_ONCE: Final = (
    controls.Identification,
    controls.IdentityProof,
    controls.IdentityProofV2,
    controls.DataReturn,
    controls.TransactionId,
    controls.SenderNonce,
    controls.RecipientNonce,
    controls.PopLinkRandom,
    controls.RegInfo,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """The controls of a PKIData that are to be acted on, with their numbers, in the order in which they came, which means nothing."""

    values: tuple[tuple[int, Control], ...]

    def each(self, kind: type[_C]) -> Iterator[tuple[int, _C]]:
        """Every control of this kind with its number."""
        for number, value in self.values:
            if isinstance(value, kind):
                yield number, value

    def one(self, kind: type[_C]) -> _C | None:
        """The only control of this kind; None where there is none."""
        return next((value for _, value in self.each(kind)), None)

    @property
    def nested(self) -> frozenset[int]:
        """The numbers of the members of cmsSequence that a control refers to; all others are ignored (RFC 5272 section 3.2.1)."""
        return frozenset(number for _, value in self.values for number in _nested(value))


def _nested(value: Control) -> Iterator[int]:
    """The first step of each path that leads into another message."""
    match value:
        case controls.BatchRequests():
            yield from value.body_part_ids
        case controls.ModCertTemplate():
            yield from template_modification.parse_mod_cert_template(value.value_der).pki_data[:1]
        case controls.AddExtensions():
            yield from template_modification.parse_add_extensions(value.value_der).pki_data[:1]
        case controls.LraPopWitness():
            pki_data_body_id, _ = ra_witness.parse_pop_witness(value.value_der)
            yield from (pki_data_body_id,) if pki_data_body_id else ()
        case controls.ControlProcessed():
            yield from (path[0] for path in value.references if len(path) > 1)
        case controls.RaIdentityWitness():
            yield from value.path[:1] if len(value.path) > 1 else ()
        case _:
            pass


def read_instructions(
    body: PkiData, *, registration_authority: bool, path: BodyPartPath = (), processed: Collection[BodyPartPath] = ()
) -> Instructions:
    """Read the controls of a PKIData that stands at `path`, whose signer is a registration authority of this CA, or is not.

    `processed` are the paths of controls that a registration authority around this message has dealt with: they are passed over, and so
    are those that this PKIData itself names in controlProcessed. Raises CmcFailed with the paths of the controls: badRequest for one that
    is unknown, given twice or not the sender's to give, popFailed for an lraPOPWitness that is not; CmcNotSupported.
    """
    done = set(processed)
    if registration_authority:
        for control in body.controls:
            value = cmc_control_codec.read(control) if control.attr_type == _CONTROL_PROCESSED else None
            if isinstance(value, controls.ControlProcessed):
                done.update((*path, *reference) for reference in value.references)
    values: list[tuple[int, Control]] = []
    for control in body.controls:
        here = (*path, control.body_part_id)
        if here in done:
            continue
        try:
            value = cmc_control_codec.read(control)
        except CmcFailed as failed:
            raise CmcFailed(failed.message, fail_info=failed.fail_info, body_parts=(here,), reason=failed.reason) from failed
        _check(value, control.attr_type, here, registration_authority=registration_authority)
        values.append((control.body_part_id, value))
    _check_together(values, path)
    return Instructions(values=tuple(values))


def _check(value: Control, attr_type: str, here: BodyPartPath, *, registration_authority: bool) -> None:
    match _RIGHTS.get(type(value)):
        case _Whose.ANYBODY:
            return
        case _Whose.REGISTRATION_AUTHORITY:
            if registration_authority:
                return
            fail_info = CmcFailInfo.POP_FAILED if isinstance(value, controls.LraPopWitness) else CmcFailInfo.BAD_REQUEST
            raise CmcFailed(
                f"the control {attr_type} is for a registration authority of this CA (a certificate of it with id-kp-cmcRA), and the signer"
                " is none (RFC 6402 section 2.12)",
                fail_info=fail_info,
                body_parts=(here,),
                reason="NotRegistrationAuthority",
            )
        case _Whose.RESPONDER:
            text, reason = f"the control {attr_type} belongs into a response", "BadControl"
        case _Whose.NOBODY:
            raise CmcNotSupported(f"the control {attr_type} ({type(value).__name__}) is not supported here", body_parts=(here,))
        case None:
            text, reason = f"the control {attr_type} is not known here (RFC 5272 section 3.2.1.1)", "UnknownControl"
    raise CmcFailed(text, fail_info=CmcFailInfo.BAD_REQUEST, body_parts=(here,), reason=reason)


def _check_together(values: Collection[tuple[int, Control]], path: BodyPartPath) -> None:
    kinds = [type(value) for _, value in values]
    if len(set(kinds)) < len(kinds):
        _check_once(values, path)
    if controls.Status not in kinds:
        return
    confirms = controls.ConfirmCertAcceptance in kinds
    for number, value in values:
        # A client's status goes with the certificate that it accepts (RFC 5272 section 6.14); nothing else waits for one here.
        if isinstance(value, controls.Status) and not (confirms and value.info.status is CmcStatus.SUCCESS):
            raise CmcFailed(
                "a status in a request accepts a certificate by confirmCertAcceptance; to give one back send a revokeRequest",
                fail_info=CmcFailInfo.BAD_REQUEST,
                body_parts=((*path, number),),
                reason="BadControl",
            )


def _check_once(values: Collection[tuple[int, Control]], path: BodyPartPath) -> None:
    for kind in _ONCE:
        numbers = [number for number, value in values if isinstance(value, kind)]
        if len(numbers) > 1:
            raise CmcFailed(
                f"the control {kind.__name__} is there {len(numbers)} times",
                fail_info=CmcFailInfo.BAD_REQUEST,
                body_parts=tuple((*path, number) for number in numbers),
                reason="BadControl",
            )
