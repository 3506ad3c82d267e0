"""RFC 5272 section 3.2.1: the parts of a PKIData, their numbers and their octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estcore import cmc_control_codec, pki_data, pki_response
from estcore.cmc_controls import Control, DataReturn, RecipientNonce, SenderNonce, Status, TransactionId
from estcore.cmc_status import CmcStatus, StatusInfo
from estcore.errors import CmcFailed, CmcFailInfo, EstError, MalformedBody
from estcore.pki_data import CrmfRequest, OtherRequest, Pkcs10Request, TaggedContentInfo
from tests import pki
from tests.core.cmc_messages import CONTENT_INFO, EVERY_CONTROL

CSR = pki.csr()
CERT_REQ_MSG = pki.sequence(pki.sequence(pki.tlv(2, b"\x07"), pki.sequence()))


def number(value: int) -> bytes:
    return pki.tlv(2, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def control(body_part_id: int, attr_type: str = "2.999.1", *values: bytes) -> bytes:
    return pki.sequence(number(body_part_id), pki.oid(attr_type), pki.set_of(*values))


def orm(body_part_id: int) -> bytes:
    return pki.tlv(0xA2, number(body_part_id), pki.oid("2.999.2"), pki.tlv(4, b"what"))


def content(body_part_id: int) -> bytes:
    return pki.sequence(number(body_part_id), CONTENT_INFO)


def other(body_part_id: int) -> bytes:
    return pki.sequence(number(body_part_id), pki.oid("2.999.3"), pki.tlv(5))


def data(controls: bytes = b"", requests: bytes = b"", contents: bytes = b"", others: bytes = b"") -> bytes:
    return pki.sequence(*map(pki.sequence, (controls, requests, contents, others)))


@pytest.mark.spec("EST-CMC-13", "EST-CMC-14", "EST-CMC-20")
def test_all_parts_are_read_and_the_octets_of_requests_are_kept() -> None:
    tcr = pki_data.tagged_pkcs10(1, CSR)
    crm = pki_data.tagged_crmf(CERT_REQ_MSG)
    parsed = pki_data.parse(data(control(10, "2.999.1", b"\x05\x00"), tcr + crm + orm(3), content(4), other(5)))
    assert parsed.requests == (
        Pkcs10Request(body_part_id=1, tagged_der=tcr, csr_der=CSR),
        CrmfRequest(body_part_id=7, tagged_der=crm, cert_req_msg_der=CERT_REQ_MSG),
        OtherRequest(body_part_id=3, tagged_der=orm(3), request_type="2.999.2"),
    )
    assert parsed.req_sequence_der == pki.sequence(tcr, crm, orm(3)) == pki_data.req_sequence([tcr, crm, orm(3)])
    [only] = parsed.controls
    assert (only.body_part_id, only.attr_type, only.values_der) == (10, "2.999.1", (b"\x05\x00",))
    assert parsed.contents == (TaggedContentInfo(body_part_id=4, content_info_der=CONTENT_INFO),)
    assert (parsed.others[0].body_part_id, parsed.others[0].message_type) == (5, "2.999.3")


@pytest.mark.spec("EST-CMC-20")
def test_req_sequence_is_kept_as_sent_even_where_it_is_not_der() -> None:
    """Trap T-27: an identity proof is over the octets that were sent, so what would be encoded otherwise must not be."""
    unsorted = pki.tlv(0xA0, number(1), pki.sequence(pki.set_of(b"\x04\x01b", b"\x04\x01a")))
    assert pki_data.parse(data(requests=unsorted)).req_sequence_der == pki.sequence(unsorted)


def test_tagged_requests_are_implicitly_tagged() -> None:
    """tcr [0], crm [1]: RFC 6402 Appendix A.1 has IMPLICIT TAGS."""
    assert pki_data.tagged_pkcs10(1, b"\x30\x00") == bytes.fromhex("a0050201013000")
    assert pki_data.tagged_crmf(bytes.fromhex("30073005020107") + b"\x30\x00") == bytes.fromhex("a10730050201073000")


def test_what_is_encoded_is_read_back() -> None:
    controls = tuple(cmc_control_codec.write(100 + number, value) for number, value in EVERY_CONTROL.items())
    contents = (TaggedContentInfo(body_part_id=5, content_info_der=CONTENT_INFO),)
    der = pki_data.encode(controls=controls, requests_der=[pki_data.tagged_pkcs10(1, CSR)], contents=contents)
    parsed = pki_data.parse(der)
    assert (parsed.controls, parsed.contents) == (controls, contents)
    assert data() == pki_data.encode() == bytes.fromhex("30083000300030003000")


@pytest.mark.parametrize(
    ("der", "named"),
    [
        (data(control(0)), 0),
        (data(requests=pki_data.tagged_pkcs10(0, CSR)), 0),
        (data(requests=pki_data.tagged_crmf(pki.sequence(pki.sequence(number(0), pki.sequence())))), 0),
        (data(requests=orm(0)), 0),
        (data(contents=content(0)), 0),
        (data(others=other(0)), 0),
        (data(control(-1)), 0),
        (data(control(2**32)), 0),
        (data(control(3) + control(3)), 3),
        (data(control(3), orm(3)), 3),
        (data(control(7), pki_data.tagged_crmf(CERT_REQ_MSG)), 7),
        (data(contents=content(3), others=other(3)), 3),
    ],
)
@pytest.mark.spec("EST-CMC-11")
def test_numbers_of_body_parts_are_in_range_never_0_and_never_twice(der: bytes, named: int) -> None:
    with pytest.raises(CmcFailed) as raised:
        pki_data.parse(der)
    assert (raised.value.fail_info, raised.value.body_parts) == (CmcFailInfo.BAD_REQUEST, ((named,),))


@pytest.mark.spec("EST-CMC-11")
def test_the_largest_number_is_accepted() -> None:
    assert pki_data.parse(data(control(2**32 - 1))).controls[0].body_part_id == 4294967295


@pytest.mark.parametrize(
    ("der", "says"),
    [
        (pki.sequence(pki.sequence(), pki.sequence(), pki.sequence()), "cut off"),
        (pki.sequence(*[pki.sequence()] * 5), "more than it should"),
        (CSR, "tag"),
        (data() + b"\x00", "octets more"),
        (data(b"".join(map(control, range(1, 66)))), "more than 64"),
        (data(requests=b"".join(map(orm, range(1, 18)))), "more than 16"),
        (data(contents=b"".join(map(content, range(1, 18)))), "more than 16"),
        (data(others=b"".join(map(other, range(1, 18)))), "more than 16"),
        (data(control(1, "2.999.1", *[b"\x05\x00"] * 9)), "more than 8"),
        (data(requests=pki.tlv(0xA3, number(1))), "tag"),
        (data(requests=pki.tlv(0xA0, number(1), CSR, b"\x05\x00")), "more than it should"),
        (data(control(1, "2.999.1", b"\x30\x03\x02\x01")), "cut off"),
    ],
)
@pytest.mark.spec("EST-CMC-02", "THREAT-17")
def test_what_is_no_pki_data_is_malformed(der: bytes, says: str) -> None:
    with pytest.raises(MalformedBody, match=says):
        pki_data.parse(der)


WHOLE = data(control(10, "2.999.1", b"\x05\x00"), pki_data.tagged_pkcs10(1, CSR) + orm(3), content(4), other(5))


@given(st.data())
def test_mutants_are_read_or_refused_with_a_sentence(drawn: st.DataObject) -> None:
    der = bytearray(WHOLE)
    for position in drawn.draw(st.lists(st.integers(0, len(der) - 1), min_size=1, max_size=4)):
        der[position] = drawn.draw(st.integers(0, 255))
    try:
        pki_data.parse(bytes(der))
    except EstError as error:
        if not error.message or "\n" in error.message:
            pytest.fail(f"no sentence: {error.message!r}")


# ---- responses

FAILED = Status(StatusInfo(status=CmcStatus.FAILED, body_parts=((1,),), text="no", fail_info=CmcFailInfo.BAD_REQUEST))


@pytest.mark.spec("EST-CMC-05", "EST-CMC-16")
def test_a_response_is_read_back_as_it_was_built() -> None:
    der = pki_response.build(pki_response.encode([FAILED, TransactionId(5)]), [])
    message, response = pki_response.parse_message(der)
    assert message.content_type == "1.3.6.1.5.5.7.12.3"
    assert response.controls == ((1, FAILED), (2, TransactionId(5)))
    assert response.statuses == (FAILED.info,)


def test_a_response_has_three_sequences_and_no_requests() -> None:
    assert pki_response.encode([]) == bytes.fromhex("3006300030003000")


@pytest.mark.spec("EST-CMC-17", "EST-CMC-18", "EST-CMC-19")
def test_a_response_repeats_transaction_nonce_and_returned_data() -> None:
    request: list[Control] = [TransactionId(5), SenderNonce(b"theirs"), DataReturn(b"\x00\xff"), FAILED]
    assert pki_response.echoes(request, sender_nonce=b"ours") == [
        TransactionId(5),
        RecipientNonce(b"theirs"),
        SenderNonce(b"ours"),
        DataReturn(b"\x00\xff"),
    ]


@pytest.mark.spec("EST-CMC-18")
def test_a_first_message_without_nonce_gets_none() -> None:
    assert pki_response.echoes([TransactionId(5)], sender_nonce=b"ours") == [TransactionId(5)]


@pytest.mark.parametrize("der", [pki_response.build(data(), []), CSR, b"", b"\x30\x00"])
def test_what_is_no_response_is_malformed(der: bytes) -> None:
    with pytest.raises(MalformedBody):
        pki_response.parse_message(der)


@pytest.mark.spec("EST-CMC-16")
def test_several_statuses_may_be_about_the_same_part() -> None:
    again = Status(StatusInfo(status=CmcStatus.PENDING, body_parts=((1,),)))
    assert pki_response.parse(pki_response.encode([FAILED, again])).statuses == (FAILED.info, again.info)
