"""RFC 5083 and RFC 5084: AuthEnvelopedData both ways, and that nothing altered or for somebody else is decrypted."""

from contextlib import suppress

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from estcore import auth_enveloped_data, enveloped_data
from estcore.auth_enveloped_data import AES_GCM_OIDS
from estcore.errors import EstError, MalformedBody
from estcore.key_encryption import KeyWrap
from estcore.recipient_info import MAX_RECIPIENTS, KeyEncryptionKey, Recipient
from estcore.signed_data import DATA, SIGNED_DATA
from tests.core import cms_recipients as recipients
from tests.core.cms_recipients import CASES, CONTENT_KEY, IV, Case
from tests.pki import oid, sequence, tlv

CONTENT = b"SignedData" * 30
NONCE = bytes(range(50, 62))
KEK = KeyEncryptionKey(key=bytes(range(16)), key_identifier=b"kek-1")


def encrypt(*to: Recipient, content_key: bytes = CONTENT_KEY) -> bytes:
    return auth_enveloped_data.encrypt(CONTENT, SIGNED_DATA, to, content_key=content_key, nonce=NONCE)


def content_type_attribute(dotted: str = SIGNED_DATA) -> bytes:
    """RFC 5652 section 11.1."""
    return sequence(oid("1.2.840.113549.1.9.3"), tlv(0x31, oid(dotted)))


def by_hand(
    *,
    version: int = 0,
    content_type: str = SIGNED_DATA,
    attributes: tuple[bytes, ...] | None = (content_type_attribute(),),
    cipher: str = AES_GCM_OIDS[16],
    nonce: bytes = NONCE,
    tag_octets: int = 16,
    parameters: bytes | None = None,
    mac: bytes | None = None,
    wrapped: bytes = CONTENT_KEY,
    trailing: bytes = b"",
) -> bytes:
    """A message for KEK, put together as RFC 5083 section 2.1 and RFC 5084 section 3.2 lay it out, by another AES-GCM than ours."""
    authenticated = tlv(0x31, *attributes) if attributes is not None else b""
    sealed = AESGCM(CONTENT_KEY).encrypt(nonce, CONTENT, authenticated)
    if parameters is None:
        parameters = sequence(tlv(0x04, nonce), *([tlv(0x02, bytes((tag_octets,)))] if tag_octets != 12 else []))
    kek = sequence(tlv(0x04, b"kek-1")), sequence(oid("2.16.840.1.101.3.4.1.5"))
    recipient = tlv(0xA2, b"\x02\x01\x04", *kek, tlv(0x04, KeyWrap.AES_128.wrap(wrapped, key_encryption_key=KEK.key)))
    message = sequence(
        tlv(0x02, bytes((version,))),
        tlv(0x31, recipient),
        sequence(oid(content_type), sequence(oid(cipher), parameters), tlv(0x80, sealed[:-16])),
        tlv(0xA1, *attributes) if attributes is not None else b"",
        tlv(0x04, sealed[-16:][:tag_octets] if mac is None else mac),
        trailing,
    )
    return sequence(oid("1.2.840.113549.1.9.16.1.23"), tlv(0xA0, message))


@pytest.mark.spec("EST-SKG-11", "EST-SKG-12", "EST-SKG-13", "EST-SKG-14")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("octets", AES_GCM_OIDS)
def test_what_is_encrypted_for_a_recipient_its_key_decrypts(case: Case, octets: int) -> None:
    recipient, key = case
    message = encrypt(recipient, content_key=bytes(range(octets)))
    assert auth_enveloped_data.is_one(message)
    assert auth_enveloped_data.decrypt(message, [key]) == (SIGNED_DATA, CONTENT)


def test_the_message_is_that_of_the_rfc_and_opens_by_another_reader() -> None:
    der = encrypt(KEK)
    assert der == by_hand()
    content_info = cms.ContentInfo.load(der, strict=True)
    message = content_info["content"]
    assert (content_info["content_type"].native, message["version"].native) == ("authenticated_enveloped_data", "v0")
    algorithm = message["auth_encrypted_content_info"]["content_encryption_algorithm"]
    assert algorithm["algorithm"].dotted == "2.16.840.1.101.3.4.1.6"
    assert algorithm["parameters"].dump() == sequence(tlv(0x04, NONCE), b"\x02\x01\x10"), "a tag of 16, which is not the DEFAULT"
    attributes = message["auth_attrs"].untag().dump()
    assert attributes == tlv(0x31, content_type_attribute())
    sealed = message["auth_encrypted_content_info"]["encrypted_content"].native + message["mac"].native
    assert AESGCM(CONTENT_KEY).decrypt(NONCE, sealed, attributes) == CONTENT


def test_each_of_several_recipients_decrypts_it_and_nobody_else() -> None:
    some = [CASES["kekri, AES-128"], CASES["ktri, by serial"], recipients.agreed()]
    message = encrypt(*(recipient for recipient, _ in some))
    for _, key in some:
        assert auth_enveloped_data.decrypt(message, [key]) == (SIGNED_DATA, CONTENT)
    stranger = KeyEncryptionKey(key=bytes(16), key_identifier=b"kek-2")
    with pytest.raises(MalformedBody):
        auth_enveloped_data.decrypt(message, [stranger])


@pytest.mark.parametrize("tag_octets", range(12, 17))
def test_shorter_tags_that_the_rfc_has_are_read(tag_octets: int) -> None:
    assert auth_enveloped_data.decrypt(by_hand(tag_octets=tag_octets), [KEK]) == (SIGNED_DATA, CONTENT)


def test_id_data_needs_no_attributes_and_unauthenticated_ones_are_passed_over() -> None:
    assert auth_enveloped_data.decrypt(by_hand(content_type=DATA, attributes=None), [KEK]) == (DATA, CONTENT)
    unauthenticated = tlv(0xA2, sequence(oid("1.2.3"), tlv(0x31)))
    assert auth_enveloped_data.decrypt(by_hand(trailing=unauthenticated), [KEK]) == (SIGNED_DATA, CONTENT)


FAULTS = {
    "version 2": (by_hand(version=2), "version 2"),
    "no authAttrs": (by_hand(attributes=None), "no authAttrs"),
    "empty authAttrs": (by_hand(attributes=()), "contentType is not there"),
    "another content type authenticated": (by_hand(attributes=(content_type_attribute(DATA),)), "names another type"),
    "an attribute twice": (by_hand(attributes=(content_type_attribute(), content_type_attribute())), "twice"),
    "AES-CBC": (by_hand(cipher="2.16.840.1.101.3.4.1.2"), "not encrypted with AES-GCM"),
    "a nonce of 16": (by_hand(nonce=bytes(16)), "nonce of 12"),
    "a tag of 4 by the algorithm": (by_hand(parameters=sequence(tlv(0x04, NONCE), b"\x02\x01\x04"), mac=bytes(4)), "tag of 12 to 16"),
    "a tag of 17": (by_hand(parameters=sequence(tlv(0x04, NONCE), b"\x02\x01\x11"), mac=bytes(17)), "tag of 12 to 16"),
    "a tag that was cut off": (by_hand(mac=bytes(12)), "the mac has 12 octets where the algorithm says 16"),
    "something behind": (by_hand(trailing=b"\x05\x00"), "AuthEnvelopedData"),
    "a wrong tag": (by_hand(mac=bytes(16)), "cannot be decrypted"),
    "a content key of another length": (by_hand(wrapped=bytes(32)), "cannot be decrypted"),
    "another content key": (by_hand(wrapped=bytes(16)), "cannot be decrypted"),
    "EnvelopedData": (enveloped_data.encrypt(CONTENT, DATA, [KEK], content_key=CONTENT_KEY, iv=IV), "not AuthEnvelopedData"),
}


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("case", FAULTS)
def test_what_is_not_as_the_rfcs_say_is_refused(case: str) -> None:
    message, says = FAULTS[case]
    with pytest.raises(MalformedBody, match=says):
        auth_enveloped_data.decrypt(message, [KEK])


@given(st.data())
def test_whatever_is_altered_is_not_decrypted(data: st.DataObject) -> None:
    """Every octet but those of the unauthenticated frame; an altered message gives the content or nothing."""
    message = bytearray(by_hand())
    position = data.draw(st.integers(0, len(message) - 1))
    message[position] ^= data.draw(st.integers(1, 255))
    with suppress(EstError):
        assert auth_enveloped_data.decrypt(bytes(message), [KEK]) == (SIGNED_DATA, CONTENT)


@given(st.binary(max_size=200))
def test_octets_of_any_kind_are_a_message_or_an_error(octets: bytes) -> None:
    with suppress(EstError):
        auth_enveloped_data.is_one(octets)
    with suppress(EstError):
        auth_enveloped_data.decrypt(octets, [KEK])


def test_a_wrong_use_is_a_fault_of_ours() -> None:
    for content_key, nonce, count in (
        (bytes(15), NONCE, 1),
        (CONTENT_KEY, bytes(16), 1),
        (CONTENT_KEY, NONCE, 0),
        (CONTENT_KEY, NONCE, 17),
    ):
        with pytest.raises(ValueError, match=r"AES-GCM takes|1 to 16 recipients"):
            auth_enveloped_data.encrypt(CONTENT, DATA, [KEK] * count, content_key=content_key, nonce=nonce)
    assert MAX_RECIPIENTS == 16
