"""Which controls of a PKIData become instructions, and whose message it is (RFC 5272 section 6, RFC 6402 section 2.12)."""

from collections.abc import Sequence

import pytest

from estcore import cmc_control_codec, full_message, full_request, instructions, pki_data, signatory, signed_data
from estcore import cmc_controls as controls
from estcore.cmc_controls import Control
from estcore.cms_signature import Digest, signer_of
from estcore.der_reader import only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.pki_data import PkiData
from estcore.signed_data import SignedData, SubjectKeyIdentifier
from tests import pki
from tests.core.cmc_messages import CONTENT_INFO, EVERY_CONTROL

ANYBODYS = {2, 3, 4, 5, 6, 7, 10, 15, 17, 18, 21, 22, 24, 34}
REGISTRATION_AUTHORITYS = {8, 11, 28, 31, 32, 35}


def body(*values: Control, others: Sequence[pki_data.TaggedAttribute] = ()) -> PkiData:
    tagged = [cmc_control_codec.write(number, value) for number, value in enumerate(values, start=1)]
    return pki_data.parse(pki_data.encode(controls=[*tagged, *others]))


def read(*values: Control, registration_authority: bool = False, **others: object) -> instructions.Instructions:
    return instructions.read_instructions(body(*values), registration_authority=registration_authority, **others)  # type: ignore[arg-type]  # its own


@pytest.mark.parametrize("number", EVERY_CONTROL)
@pytest.mark.parametrize("registration_authority", [False, True])
@pytest.mark.spec("EST-CLI-05", "EST-CMC-12", "THREAT-09", "THREAT-17")
def test_what_is_not_expressly_allowed_to_a_sender_is_refused(number: int, registration_authority: bool) -> None:
    value = EVERY_CONTROL[number]
    message = body(others=[cmc_control_codec.write(50, value)])
    allowed = number in ANYBODYS or (registration_authority and number in REGISTRATION_AUTHORITYS)
    if allowed:
        assert instructions.read_instructions(message, registration_authority=registration_authority).values == ((50, value),)
        return
    with pytest.raises(CmcFailed) as raised:
        instructions.read_instructions(message, registration_authority=registration_authority)
    assert raised.value.body_parts == ((50,),)


def test_every_control_that_can_be_read_has_somebody_who_may_send_it_or_a_reason_why_nobody() -> None:
    kinds = {type(value) for value in EVERY_CONTROL.values()}
    assert kinds == set(instructions._RIGHTS)


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 7, 18, 22, 34])
@pytest.mark.spec("THREAT-17")
def test_a_control_that_says_one_thing_may_not_be_there_twice(number: int) -> None:
    with pytest.raises(CmcFailed) as raised:
        read(EVERY_CONTROL[number], EVERY_CONTROL[number])
    assert (raised.value.fail_info, raised.value.body_parts) == (CmcFailInfo.BAD_REQUEST, ((1,), (2,)))


UNKNOWN = pki_data.TaggedAttribute(body_part_id=9, attr_type="2.999.1", values_der=(b"\x05\x00",))


@pytest.mark.spec("EST-CMC-12", "EST-CMC-35")
def test_control_processed_counts_from_a_registration_authority_only() -> None:
    message = body(controls.ControlProcessed(((9,),)), others=[UNKNOWN])
    found = instructions.read_instructions(message, registration_authority=True)
    assert found.values == ((1, controls.ControlProcessed(((9,),))),)
    with pytest.raises(CmcFailed) as raised:
        instructions.read_instructions(message, registration_authority=False)
    assert raised.value.body_parts == ((1,),)


@pytest.mark.spec("EST-CMC-35")
def test_paths_of_a_nested_message_are_those_from_the_outermost() -> None:
    message = body(others=[UNKNOWN])
    assert instructions.read_instructions(message, registration_authority=False, path=(5,), processed=[(5, 9)]).values == ()
    with pytest.raises(CmcFailed) as raised:
        instructions.read_instructions(message, registration_authority=False, path=(5,), processed=[(6, 9), (9,)])
    assert raised.value.body_parts == ((5, 9),)


@pytest.mark.spec("EST-CMC-13")
def test_members_of_cms_sequence_that_a_control_refers_to_are_found() -> None:
    found = read(
        controls.BatchRequests((1, 2)),
        controls.ControlProcessed(((3, 9), (9,))),
        controls.RaIdentityWitness((4, 1)),
        controls.ModCertTemplate(bytes.fromhex("300c30030201053003020101") + b"\x30\x00"),
        controls.LraPopWitness(bytes.fromhex("30080201063003020101")),
        registration_authority=True,
    )
    assert found.nested == {1, 2, 3, 4, 5, 6}


# ---- who signed


def signed(*, unsigned_attribute: bool = False, count: int = 1, certificates: Sequence[bytes] = ()) -> SignedData:
    key = pki.key(owner="signer")
    der = signed_data.build_bare(
        pki_data.ID_CCT_PKI_DATA,
        pki_data.encode(),
        [(SubjectKeyIdentifier(bytes([number])), signer_of(key)) for number in range(count)],
        certificates_der=certificates,
    )
    parsed = signed_data.parse_bare(der)
    if not unsigned_attribute:
        return parsed
    attribute = pki.tlv(0xA1, pki.attribute("1.2.840.113549.1.9.16.2.34", pki.sequence()))
    reader = pki.sequence(*_members(der, attribute))
    return signed_data.parse_bare(reader)


def _members(der: bytes, attribute: bytes) -> list[bytes]:
    """The members of a SignedData with an attribute more in its only SignerInfo."""
    outer = only(der, what="")
    version, digests, content = outer.unread(), outer.unread(), outer.unread()
    certificates = outer.unread() if outer.next_is(0xA0) else b""
    signer = only(outer.inside(0x31).unread(), what="").rest()
    return [version, digests, content, certificates, pki.set_of(pki.sequence(signer, attribute))]


@pytest.mark.spec("EST-CMC-07", "EST-CMC-36", "THREAT-17")
def test_what_nobody_signed_is_no_part_of_a_message() -> None:
    with pytest.raises(CmcFailed, match=r"unsigned attribute 1\.2\.840\.113549\.1\.9\.16\.2\.34") as raised:
        signatory.signatory_of(signed(unsigned_attribute=True), {})
    assert (raised.value.fail_info, raised.value.body_parts) == (CmcFailInfo.BAD_REQUEST, ((0,),))


@pytest.mark.spec("EST-CMC-08")
def test_one_signs() -> None:
    with pytest.raises(CmcFailed, match="several signers"):
        signatory.signatory_of(signed(count=2), {})
    assert signatory.signatory_of(signed(count=0), {}).nobody


@pytest.mark.spec("EST-CMC-07")
def test_a_certificate_that_cannot_be_read_is_bad_message_check() -> None:
    with pytest.raises(CmcFailed) as raised:
        signatory.signatory_of(signed(certificates=[pki.sequence()]), {})
    assert raised.value.fail_info is CmcFailInfo.BAD_MESSAGE_CHECK


# ---- layers


def nothing(der: bytes) -> tuple[str, bytes]:
    raise AssertionError(der)


@pytest.mark.parametrize(
    "message",
    [
        signed_data.build(signed_data.SIGNED_DATA, b"\x30\x00", []),
        signed_data.build(signed_data.DATA, pki_data.encode(), []),
        signed_data.build("1.3.6.1.5.5.7.12.3", b"\x30\x00", []),
        CONTENT_INFO,
    ],
    ids=["SignedData in SignedData", "data", "a response", "data alone"],
)
@pytest.mark.spec("EST-CMC-02", "EST-CMC-06")
def test_other_layers_are_no_full_pki_request(message: bytes) -> None:
    with pytest.raises(MalformedBody):
        full_message.open_message(message, decrypt=nothing)


@pytest.mark.spec("EST-CMC-06")
def test_envelopes_do_not_nest() -> None:
    inner = signed_data.content_info(signed_data.ENVELOPED_DATA, b"\x30\x00")
    with pytest.raises(MalformedBody, match="no Full PKI Request"):
        full_message.open_message(inner, decrypt=lambda _: (signed_data.ENVELOPED_DATA, b"\x30\x00"))


def test_what_a_client_builds_is_opened_again() -> None:
    der = full_request.sign_by_key(full_request.body([], [controls.TransactionId(1)]), b"k", signer_of(pki.key(owner="signer")))
    message = full_message.open_message(der, decrypt=nothing)
    assert [cmc_control_codec.read(control) for control in message.body.controls] == [controls.TransactionId(1)]
    assert message.signed is not None
    assert message.signed.signers[0].digest is Digest.SHA256
