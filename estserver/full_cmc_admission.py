"""Letting a message in: it is opened, its requests are parsed, its sender is found, and its controls become instructions of that sender."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from estcore import cmc_control_codec, enveloped_data, full_message, full_processing
from estcore import cmc_controls as controls
from estcore.authority import Authority
from estcore.cmc_controls import Control
from estcore.cmc_status import BodyPartPath
from estcore.errors import CmcFailed
from estcore.full_message import FullMessage
from estcore.full_processing import Layer, Requests
from estcore.instructions import read_instructions
from estcore.pki_data import PkiData
from estcore.requester import Requester
from estserver import full_cmc_requester
from estserver.full_cmc_exchange import Exchange, Part


@dataclass(slots=True)
class Heard:
    """What is known of a request so far, for the answer to it when it fails."""

    values: Sequence[Control] = ()
    signed_by: Authority | None = None
    nobody: bool = False
    """The message was understood, and what is wrong is that nobody is known to have sent it."""


def open_message(exchange: Exchange, content_info_der: bytes) -> FullMessage:
    """Open a message with the issuer's keys for envelopes. Raises as `full_message.open_message`."""
    keys = exchange.issuer.decryption_keys
    return full_message.open_message(content_info_der, decrypt=lambda der: enveloped_data.decrypt(der, keys))


def echoable(body: PkiData) -> list[Control]:
    """The controls that an answer repeats, whatever else is wrong with the message."""
    values: list[Control] = []
    for control in body.controls:
        if control.attr_type in _ECHOED:
            with suppress(CmcFailed):
                values.append(cmc_control_codec.read(control))
    return values if len({type(value) for value in values}) == len(values) else []


_ECHOED: Final = frozenset(f"{cmc_control_codec.ID_CMC}{number}" for number in (4, 5, 6))


def read_requests(exchange: Exchange, message: FullMessage, path: BodyPartPath = ()) -> Requests:
    """The certification requests of a message that stands at `path`. Raises as `full_processing.read_requests`."""
    return full_processing.read_requests(message.body, path=path, ca_name=exchange.authority.certificate.subject, now=exchange.now)


async def admit(
    exchange: Exchange,
    message: FullMessage,
    requests: Requests,
    *,
    heard: Heard,
    connected: Requester | None,
    path: BodyPartPath = (),
    around: Part | None = None,
) -> Part:
    """Find out who sent a message, and read its controls as instructions of that sender."""
    source = None if around is not None and around.sender.registration_authority else exchange.request.source
    sender = await full_cmc_requester.of_message(
        message,
        requests,
        exchange.issuer,
        exchange.service,
        connected=connected,
        source=source,
        accept_sha1=exchange.accept_sha1,
    )
    if sender.requester is not None:
        heard.signed_by = exchange.authority
    processed = _processed(message, path, around) if around is not None else ()
    instructions = read_instructions(message.body, registration_authority=sender.registration_authority, path=path, processed=processed)
    sender = await full_cmc_requester.with_identity_proof(
        sender,
        message.body,
        instructions,
        requests,
        exchange.issuer,
        exchange.service,
        source=source,
        accept_sha1=exchange.accept_sha1,
    )
    layer = Layer(path=path, body=message.body, instructions=instructions)
    return Part(layer=layer, requests=requests, sender=sender)


def _processed(message: FullMessage, path: BodyPartPath, around: Part) -> list[BodyPartPath]:
    """The controls of a nested message that the registration authority around it says it dealt with (RFC 5272 section 6.19)."""
    outer = around.layer.instructions
    done = [reference for _, value in outer.each(controls.ControlProcessed) for reference in value.references]
    for _, witness in outer.each(controls.RaIdentityWitness):
        done += full_cmc_requester.identity_controls(message.body, path) if witness.path == path else [witness.path]
    return done
