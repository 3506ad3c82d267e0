"""Controls of CMC between their DER and their values (`estcore.cmc_controls`).

RFC 6402 Appendix A.1 (IMPLICIT TAGS). Each control has exactly one value. One table for reading and one for writing: a control that is in
neither cannot be sent and is unknown when it comes.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from estcore import cmc_controls as controls
from estcore import cmc_status
from estcore.cmc_controls import Control, UnknownControl
from estcore.cmc_status import BodyPartPath, read_number, read_numbers, read_references, write_numbers, write_reference
from estcore.der import BIT_STRING, SEQUENCE, UTF8_STRING, integer, tlv
from estcore.der_reader import ENUMERATED, GENERALIZED_TIME, OCTET_STRING, Reader
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.pki_data import TaggedAttribute

ID_CMC: Final = "1.3.6.1.5.5.7.7."
MAX_OCTETS: Final = 8 * 1024
"""Octets that are given back or kept by agreement (dataReturn, regInfo, responseInfo), a nonce, a token."""
MAX_TEXT: Final = 255
MAX_ANCHORS: Final = 64


def read(control: TaggedAttribute) -> Control:
    """The value of a control. Raises CmcFailed (badRequest) that names the control where its value is not what its type says."""
    reading = _READING.get(control.attr_type)
    if reading is None:
        return UnknownControl(control.attr_type)
    try:
        if len(control.values_der) != 1:
            raise MalformedBody(f"a control of type {control.attr_type} has {len(control.values_der)} values; one belongs there")
        reader = Reader(control.values_der[0], what=f"the control {control.attr_type}")
        value = reading(reader)
        reader.close()
    except MalformedBody as error:
        raise CmcFailed(
            error.message, fail_info=CmcFailInfo.BAD_REQUEST, body_parts=((control.body_part_id,),), reason="BadControl"
        ) from error
    return value


def write(body_part_id: int, value: Control) -> TaggedAttribute:
    """A control with this value. Raises ValueError for an `UnknownControl`."""
    number, writing = _WRITING.get(type(value), (0, None))
    if writing is None:
        raise ValueError(f"{type(value).__name__} cannot be sent")
    return TaggedAttribute(body_part_id=body_part_id, attr_type=f"{ID_CMC}{number}", values_der=(writing(value),))


# ---- reading


def _octets(reader: Reader) -> bytes:
    octets = reader.octets()
    if len(octets) > MAX_OCTETS:
        raise MalformedBody(f"a control holds {len(octets)} octets, more than {MAX_OCTETS}")
    return octets


def _text(reader: Reader) -> str:
    text = reader.utf8()
    if not 0 < len(text) <= MAX_TEXT:
        raise MalformedBody(f"a control holds a text of {len(text)} characters; 1 to {MAX_TEXT} are accepted")
    return text


def _numbers(reader: Reader) -> tuple[int, ...]:
    """A SEQUENCE SIZE (1..MAX) OF BodyPartID."""
    numbers = tuple(read_numbers(reader.inside(SEQUENCE)))
    if not numbers:
        raise MalformedBody("a list of body parts is empty")
    return numbers


def _status_v1(reader: Reader) -> Control:
    return controls.Status(cmc_status.read_v1(reader.inside(SEQUENCE)))


def _status_v2(reader: Reader) -> Control:
    return controls.Status(cmc_status.read_v2(reader.inside(SEQUENCE)))


def _get_cert(reader: Reader) -> Control:
    inner = reader.inside(SEQUENCE)
    value = controls.GetCert(inner.opaque(), inner.integer())
    inner.close()
    return value


def _get_crl(reader: Reader) -> Control:
    inner = reader.inside(SEQUENCE)
    issuer = inner.whole(SEQUENCE)
    crl_name = None
    if not inner.at_end and not inner.next_is(GENERALIZED_TIME) and not inner.next_is(BIT_STRING):
        crl_name = inner.opaque()
    moment = inner.generalized_time() if inner.next_is(GENERALIZED_TIME) else None
    reasons = inner.opaque() if inner.next_is(BIT_STRING) else None
    inner.close()
    return controls.GetCrl(issuer, crl_name, moment, reasons)


def _revoke_request(reader: Reader) -> Control:
    inner = reader.inside(SEQUENCE)
    issuer, serial, reason = inner.whole(SEQUENCE), inner.integer(), inner.enumerated()
    moment = inner.generalized_time() if inner.next_is(GENERALIZED_TIME) else None
    passphrase = _octets(inner) if inner.next_is(OCTET_STRING) else None
    comment = _text(inner) if inner.next_is(UTF8_STRING) else None
    inner.close()
    return controls.RevokeRequest(issuer, serial, reason, moment, passphrase, comment)


def _confirm(reader: Reader) -> Control:
    inner = reader.inside(SEQUENCE)
    value = controls.ConfirmCertAcceptance(inner.whole(SEQUENCE), inner.integer())
    inner.close()
    return value


def _trust_anchors(reader: Reader) -> Control:
    inner = reader.inside(SEQUENCE)
    number, algorithm = inner.integer(), inner.whole(SEQUENCE)
    anchors, hashes = inner.inside(SEQUENCE), []
    while not anchors.at_end:
        hashes.append(anchors.octets())
    inner.close()
    if len(hashes) > MAX_ANCHORS:
        raise MalformedBody(f"more than {MAX_ANCHORS} trust anchors are published")
    return controls.PublishTrustAnchors(number, algorithm, tuple(hashes))


_READING: Final[dict[str, Callable[[Reader], Control]]] = {
    f"{ID_CMC}{number}": reading
    for number, reading in {
        1: _status_v1,
        2: lambda reader: controls.Identification(_text(reader)),
        3: lambda reader: controls.IdentityProof(reader.whole(OCTET_STRING)),
        4: lambda reader: controls.DataReturn(_octets(reader)),
        5: lambda reader: controls.TransactionId(reader.integer()),
        6: lambda reader: controls.SenderNonce(_octets(reader)),
        7: lambda reader: controls.RecipientNonce(_octets(reader)),
        8: lambda reader: controls.AddExtensions(reader.whole(SEQUENCE)),
        9: lambda reader: controls.EncryptedPop(reader.whole(SEQUENCE)),
        10: lambda reader: controls.DecryptedPop(reader.whole(SEQUENCE)),
        11: lambda reader: controls.LraPopWitness(reader.whole(SEQUENCE)),
        15: _get_cert,
        16: _get_crl,
        17: _revoke_request,
        18: lambda reader: controls.RegInfo(_octets(reader)),
        19: lambda reader: controls.ResponseInfo(_octets(reader)),
        21: lambda reader: controls.QueryPending(_octets(reader)),
        22: lambda reader: controls.PopLinkRandom(_octets(reader)),
        24: _confirm,
        25: _status_v2,
        26: _trust_anchors,
        27: lambda reader: controls.AuthData(read_number(reader)),
        28: lambda reader: controls.BatchRequests(_numbers(reader)),
        29: lambda reader: controls.BatchResponses(_numbers(reader)),
        30: lambda reader: controls.PublishCert(reader.whole(SEQUENCE)),
        31: lambda reader: controls.ModCertTemplate(reader.whole(SEQUENCE)),
        32: lambda reader: controls.ControlProcessed(tuple(read_references(_controls_processed(reader)))),
        34: lambda reader: controls.IdentityProofV2(reader.whole(SEQUENCE)),
        35: lambda reader: controls.RaIdentityWitness(_numbers(reader)),
        37: lambda reader: controls.ResponseBody(_numbers(reader)),
    }.items()
}
"""Not here: 23 and 33 (popLinkWitness) and 36 (changeSubjectName), which stand in a certification request and never beside it."""


def _controls_processed(reader: Reader) -> Reader:
    """ControlsProcessed has one member, its bodyList."""
    inner = reader.inside(SEQUENCE)
    body_list = inner.inside(SEQUENCE)
    inner.close()
    return body_list


# ---- writing


def _octet_string(octets: bytes) -> bytes:
    return tlv(OCTET_STRING, octets)


def _value_der(value: Any) -> bytes:
    return bytes(value.value_der)


def _path(path: BodyPartPath) -> bytes:
    return write_numbers(path)


def _time(moment: datetime | None) -> bytes:
    return b"" if moment is None else tlv(GENERALIZED_TIME, moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


def _sequence(*members: bytes) -> bytes:
    return tlv(SEQUENCE, b"".join(members))


def _write_revoke_request(value: controls.RevokeRequest) -> bytes:
    return _sequence(
        value.issuer_name_der,
        integer(value.serial_number),
        tlv(ENUMERATED, integer(value.reason)[2:]),
        _time(value.invalidity_date),
        b"" if value.passphrase is None else _octet_string(value.passphrase),
        b"" if value.comment is None else tlv(UTF8_STRING, value.comment.encode()),
    )


def _write_get_crl(value: controls.GetCrl) -> bytes:
    return _sequence(value.issuer_name_der, value.crl_name_der or b"", _time(value.time), value.reasons_der or b"")


def _write_trust_anchors(value: controls.PublishTrustAnchors) -> bytes:
    return _sequence(integer(value.sequence_number), value.hash_algorithm_der, _sequence(*map(_octet_string, value.anchor_hashes)))


_WRITING: Final[dict[type, tuple[int, Callable[..., bytes]]]] = {
    controls.Status: (25, lambda value: cmc_status.write_v2(value.info)),
    controls.Identification: (2, lambda value: tlv(UTF8_STRING, value.text.encode())),
    controls.IdentityProof: (3, _value_der),
    controls.DataReturn: (4, lambda value: _octet_string(value.octets)),
    controls.TransactionId: (5, lambda value: integer(value.number)),
    controls.SenderNonce: (6, lambda value: _octet_string(value.octets)),
    controls.RecipientNonce: (7, lambda value: _octet_string(value.octets)),
    controls.AddExtensions: (8, _value_der),
    controls.EncryptedPop: (9, _value_der),
    controls.DecryptedPop: (10, _value_der),
    controls.LraPopWitness: (11, _value_der),
    controls.GetCert: (15, lambda value: _sequence(value.issuer_name_der, integer(value.serial_number))),
    controls.GetCrl: (16, _write_get_crl),
    controls.RevokeRequest: (17, _write_revoke_request),
    controls.RegInfo: (18, lambda value: _octet_string(value.octets)),
    controls.ResponseInfo: (19, lambda value: _octet_string(value.octets)),
    controls.QueryPending: (21, lambda value: _octet_string(value.token)),
    controls.PopLinkRandom: (22, lambda value: _octet_string(value.octets)),
    controls.ConfirmCertAcceptance: (24, lambda value: _sequence(value.issuer_der, integer(value.serial_number))),
    controls.PublishTrustAnchors: (26, _write_trust_anchors),
    controls.AuthData: (27, lambda value: integer(value.body_part_id)),
    controls.BatchRequests: (28, lambda value: write_numbers(value.body_part_ids)),
    controls.BatchResponses: (29, lambda value: write_numbers(value.body_part_ids)),
    controls.PublishCert: (30, lambda value: value.value_der),
    controls.ModCertTemplate: (31, _value_der),
    controls.ControlProcessed: (32, lambda value: _sequence(_sequence(*map(write_reference, value.references)))),
    controls.IdentityProofV2: (34, _value_der),
    controls.RaIdentityWitness: (35, lambda value: _path(value.path)),
    controls.ResponseBody: (37, lambda value: _path(value.path)),
}
