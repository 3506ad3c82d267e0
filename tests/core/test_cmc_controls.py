"""RFC 5272 section 6: the controls and the statuses, octet for octet where the RFC leaves no choice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import cmc_control_codec, cmc_controls, cmc_status
from estcore.cmc_controls import Control, UnknownControl
from estcore.cmc_status import CmcStatus, PendInfo, StatusInfo
from estcore.der_reader import only
from estcore.errors import (
    BadCsr,
    BindingMismatch,
    CmcFailed,
    CmcFailInfo,
    EstError,
    Forbidden,
    LedgerUnavailable,
    MalformedBody,
    SignerError,
    Unauthenticated,
)
from estcore.pki_data import TaggedAttribute
from tests import pki
from tests.core.cmc_messages import EVERY_CONTROL, MOMENT, NAME, PENDING


def control(number: int, *values_der: bytes) -> TaggedAttribute:
    return TaggedAttribute(body_part_id=9, attr_type=f"1.3.6.1.5.5.7.7.{number}", values_der=values_der)


@pytest.mark.parametrize("number", EVERY_CONTROL)
@pytest.mark.spec("EST-CMC-16", "EST-CMC-19", "EST-CMC-35")
def test_every_control_is_written_under_its_number_and_read_back(number: int) -> None:
    value = EVERY_CONTROL[number]
    written = cmc_control_codec.write(5, value)
    assert (written.body_part_id, written.attr_type, len(written.values_der)) == (5, f"1.3.6.1.5.5.7.7.{number}", 1)
    assert cmc_control_codec.read(written) == value


@pytest.mark.parametrize(
    ("value", "der"),
    [
        (cmc_controls.TransactionId(128), "02020080"),
        (cmc_controls.TransactionId(-1), "0201ff"),
        (cmc_controls.Identification("a"), "0c0161"),
        (cmc_controls.DataReturn(b"\x01"), "040101"),
        (cmc_controls.AuthData(4294967295), "020500ffffffff"),
        (cmc_controls.BatchRequests((1, 2)), "3006020101020102"),
        (cmc_controls.ControlProcessed(((1,), (2, 3))), "300d300b0201013006020102020103"),
        (cmc_controls.ConfirmCertAcceptance(b"\x30\x00", 5), "30053000020105"),
        (cmc_controls.RevokeRequest(b"\x30\x00", 5, 1), "300830000201050a0101"),
        (cmc_controls.GetCert(b"\xa4\x02\x30\x00", 5), "3007a4023000020105"),
        (
            cmc_controls.Status(StatusInfo(status=CmcStatus.FAILED, body_parts=((0,),), fail_info=CmcFailInfo.BAD_REQUEST)),
            "300b 020102 3003020100 020102",
        ),
        (
            cmc_controls.Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=((1,), (2, 3)), text="a")),
            "3013 020100 300b0201013006020102020103 0c0161",
        ),
        (
            cmc_controls.Status(PENDING),
            "3022 020103 3003020101 3018 0405746f6b656e 180f32303236303230333034303530365a",
        ),
    ],
)
@pytest.mark.spec("EST-CMC-11", "EST-CMC-16", "EST-CMC-30")
def test_controls_have_the_der_of_rfc_5272(value: Control, der: str) -> None:
    assert cmc_control_codec.write(1, value).values_der == (bytes.fromhex(der),)


@pytest.mark.parametrize("number", [12, 20, 23, 33, 36, 38, 99])
@pytest.mark.spec("EST-CMC-12")
def test_a_control_of_no_meaning_here_is_kept_as_unknown(number: int) -> None:
    """popLinkWitness (23, 33) and changeSubjectName (36) belong into a certification request, never into a controlSequence."""
    assert cmc_control_codec.read(control(number, b"\x05\x00")) == UnknownControl(f"1.3.6.1.5.5.7.7.{number}")
    with pytest.raises(ValueError, match="cannot be sent"):
        cmc_control_codec.write(1, UnknownControl("1.2.3"))


@pytest.mark.parametrize("number", EVERY_CONTROL)
@pytest.mark.parametrize("values", [(), (b"\x05\x00",), (b"\x31\x00",), (b"\x04\x00", b"\x04\x00"), (b"\x02\x00",)])
@pytest.mark.spec("EST-CMC-12")
def test_a_control_without_its_one_value_is_a_bad_request_that_names_it(number: int, values: tuple[bytes, ...]) -> None:
    with pytest.raises(CmcFailed) as raised:
        cmc_control_codec.read(control(number, *values))
    assert (raised.value.fail_info, raised.value.body_parts) == (CmcFailInfo.BAD_REQUEST, ((9,),))


@pytest.mark.parametrize("number", EVERY_CONTROL)
@settings(max_examples=30)
@given(changes=st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_changed_control_is_read_or_refused_with_a_sentence(number: int, changes: list[tuple[int, int]]) -> None:
    der = bytearray(cmc_control_codec.write(1, EVERY_CONTROL[number]).values_der[0])
    for position, octet in changes:
        der[position % len(der)] = octet
    try:
        cmc_control_codec.read(control(number, bytes(der)))
    except CmcFailed as failed:
        if failed.body_parts != ((9,),) or "\n" in failed.message:
            pytest.fail(f"{failed.body_parts} {failed.message!r}")


@pytest.mark.parametrize(
    "value",
    [
        pki.tlv(4, bytes(8193)),  # dataReturn
        pki.tlv(0x24, pki.tlv(4, b"a")),  # in parts
    ],
)
def test_octets_by_agreement_are_bounded(value: bytes) -> None:
    with pytest.raises(CmcFailed):
        cmc_control_codec.read(control(4, value))


# ---- statuses


def parse_v2(der: bytes) -> StatusInfo:
    return cmc_status.read_v2(only(der, what="the status"))


TOKEN = pki.sequence(pki.tlv(4, b"token"), pki.tlv(0x18, b"20260203040506Z"))
EXTENDED = (pki.oid("1.3.6.1.4.1.99999.1"), pki.tlv(4, b"x"))


@pytest.mark.parametrize(
    ("other", "pend_info", "extended"),
    [
        (TOKEN, PendInfo(token=b"token", time=MOMENT), False),
        (pki.sequence(*EXTENDED), None, True),
        (pki.tlv(0xA1, *EXTENDED), None, True),
        (b"", None, False),
    ],
    ids=["pendInfo", "extendedFailInfo of the 1988 module", "extendedFailInfo of the 2008 module", "nothing"],
)
@pytest.mark.spec("EST-CMC-16", "EST-CMC-30")
def test_pend_info_and_both_forms_of_extended_fail_info_are_told_apart(other: bytes, pend_info: PendInfo | None, extended: bool) -> None:
    """Trap T-24: without its tag, extendedFailInfo begins with an OBJECT IDENTIFIER and pendInfo with an OCTET STRING."""
    info = parse_v2(pki.sequence(pki.tlv(2, b"\x03"), pki.sequence(pki.tlv(2, b"\x01")), other))
    assert (info.pend_info, info.extended, info.fail_info) == (pend_info, extended, None)


@pytest.mark.spec("EST-CMC-16")
def test_the_old_status_is_read_too_and_a_private_fail_info_is_kept_as_a_number() -> None:
    value = pki.sequence(pki.tlv(2, b"\x02"), pki.sequence(pki.tlv(2, b"\x01")), pki.tlv(0x0C, b"no"), pki.tlv(2, b"\x03\xe8"))
    assert cmc_control_codec.read(control(1, value)) == cmc_controls.Status(
        StatusInfo(status=CmcStatus.FAILED, body_parts=((1,),), text="no", fail_info=1000)
    )


@pytest.mark.parametrize(
    "info",
    [
        StatusInfo(status=CmcStatus.PENDING, body_parts=((1,),), fail_info=CmcFailInfo.BAD_REQUEST),
        StatusInfo(status=CmcStatus.FAILED, body_parts=((1,),), pend_info=PENDING.pend_info),
        StatusInfo(status=CmcStatus.SUCCESS, body_parts=()),
    ],
)
@pytest.mark.spec("EST-CMC-16")
def test_fail_info_goes_with_failed_and_pend_info_with_pending_or_partial_only(info: StatusInfo) -> None:
    with pytest.raises(ValueError, match=r"goes with|one body part"):
        cmc_status.write_v2(info)


@pytest.mark.parametrize("status", [1, 8, -1])
def test_a_reserved_status_is_refused(status: int) -> None:
    with pytest.raises(MalformedBody, match="no CMCStatus"):
        parse_v2(pki.sequence(pki.tlv(2, status.to_bytes(1, signed=True)), pki.sequence(pki.tlv(2, b"\x01"))))


@pytest.mark.parametrize(
    ("error", "fail_info"),
    [
        (BindingMismatch("linking"), CmcFailInfo.POP_FAILED),  # RFC 7030 section 3.5
        (Unauthenticated("who"), CmcFailInfo.BAD_IDENTITY),
        (Forbidden("no"), CmcFailInfo.BAD_REQUEST),
        (BadCsr("bad"), CmcFailInfo.BAD_REQUEST),
        (BadCsr("the CSR's signature", reason="BadSignature"), CmcFailInfo.POP_FAILED),  # RFC 5272 section 6.1.4
        (BadCsr("CA", reason="CaRequested"), CmcFailInfo.UNSUPPORTED_EXT),
        (BadCsr("SHA-1", reason="SignatureAlgorithm"), CmcFailInfo.BAD_ALG),
        (MalformedBody("DER"), CmcFailInfo.BAD_REQUEST),
        (LedgerUnavailable("later"), CmcFailInfo.TRY_LATER),
        (SignerError("ours"), CmcFailInfo.INTERNAL_CA_ERROR),
        (CmcFailed("wrong id", fail_info=CmcFailInfo.BAD_CERT_ID), CmcFailInfo.BAD_CERT_ID),
    ],
)
@pytest.mark.spec("EST-CMC-04", "EST-POP-15")
def test_every_error_has_its_fail_info(error: EstError, fail_info: CmcFailInfo) -> None:
    failure = cmc_status.failure_of(error)
    assert (failure.fail_info, failure.message) == (fail_info, error.message)
    info = StatusInfo.failed(failure.about((3,)))
    assert (info.status, info.body_parts, info.fail_info) == (CmcStatus.FAILED, ((3,),), fail_info)


def test_names_of_a_revocation_are_kept_as_they_came() -> None:
    value = cmc_controls.RevokeRequest(NAME, 77, 0)
    assert cmc_control_codec.read(cmc_control_codec.write(1, value)) == value
