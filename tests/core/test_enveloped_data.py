"""RFC 5652 section 6: EnvelopedData both ways, its versions, and that altered or foreign messages give nothing away."""

from contextlib import suppress
from dataclasses import replace

import pytest
from asn1crypto import cms
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from estcore import encrypted_content, enveloped_data
from estcore.errors import EstError, MalformedBody
from estcore.key_encryption import KEY_WRAPS, KeyAgreement, KeyTransport, KeyWrap
from estcore.recipient_info import (
    MAX_RECIPIENTS,
    KeyEncryptionKey,
    KeyTransportRecipient,
    Recipient,
    RecipientKey,
    identifiers_of,
    key_identifier,
)
from estcore.signed_data import DATA, SIGNED_DATA, SubjectKeyIdentifier
from tests import pki
from tests.core import cms_recipients as recipients
from tests.core.cms_recipients import CASES, CONTENT_KEY, IV, Case

PKI_DATA = "1.3.6.1.5.5.7.12.2"
CONTENT = b"SignedData" * 30


def encrypt(*to: Recipient, content: bytes = CONTENT, content_key: bytes = CONTENT_KEY) -> bytes:
    return enveloped_data.encrypt(content, SIGNED_DATA, to, content_key=content_key, iv=IV)


def parsed(der: bytes) -> cms.EnvelopedData:
    content_info = cms.ContentInfo.load(der, strict=True)
    assert content_info["content_type"].native == "enveloped_data"
    return content_info["content"]


# RFC 3394 sections 4.1, 4.2, 4.3 and 4.6: key-encryption key, key, what it is wrapped to.
RFC_3394 = [
    ("000102030405060708090A0B0C0D0E0F", "00112233445566778899AABBCCDDEEFF", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"),
    (
        "000102030405060708090A0B0C0D0E0F1011121314151617",
        "00112233445566778899AABBCCDDEEFF",
        "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D",
    ),
    (
        "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
        "00112233445566778899AABBCCDDEEFF",
        "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7",
    ),
    (
        "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
        "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
        "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
    ),
]


@pytest.mark.spec("EST-SKG-12")
@pytest.mark.parametrize(("key", "data", "wrapped"), RFC_3394)
def test_a_content_key_is_wrapped_as_rfc_3394_has_it(key: str, data: str, wrapped: str) -> None:
    content_key = bytes.fromhex(data)
    recipient = KeyEncryptionKey(key=bytes.fromhex(key), key_identifier=b"k")
    message = parsed(encrypt(recipient, content_key=content_key))
    (info,) = message["recipient_infos"]
    assert info.chosen["encrypted_key"].native == bytes.fromhex(wrapped)


@pytest.mark.spec("EST-SKG-12", "EST-SKG-13", "EST-SKG-14")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("content_key", [bytes(16), bytes(24), bytes(32)], ids=["AES-128-CBC", "AES-192-CBC", "AES-256-CBC"])
def test_what_is_encrypted_decrypts_to_the_same_content_and_type(case: Case, content_key: bytes) -> None:
    recipient, key = case
    assert enveloped_data.decrypt(encrypt(recipient, content_key=content_key), [key]) == (SIGNED_DATA, CONTENT)


@pytest.mark.parametrize("octets", [0, 1, 15, 16, 17, 5000])
def test_content_of_any_length_comes_back(octets: int) -> None:
    recipient, key = recipients.wrapped(16)
    message = enveloped_data.encrypt(b"x" * octets, DATA, [recipient], content_key=CONTENT_KEY, iv=IV)
    assert enveloped_data.decrypt(message, [key]) == (DATA, b"x" * octets)


@pytest.mark.spec("EST-SKG-12")
def test_kekri_has_version_4_the_key_identifier_and_a_wrap_without_parameters() -> None:
    message = parsed(encrypt(recipients.wrapped(32, b"\x00device")[0]))
    assert message["version"].native == "v2"
    (info,) = message["recipient_infos"]
    assert info.name == "kekri"
    assert int(info.chosen["version"]) == 4
    assert info.chosen["kekid"]["key_identifier"].native == b"\x00device"
    assert info.chosen["key_encryption_algorithm"].dump() == bytes.fromhex("300b060960864801650304012d")  # aes256-wrap and nothing else


@pytest.mark.spec("EST-SKG-13")
@pytest.mark.parametrize(("by_serial", "recipient_version", "version"), [(False, 2, "v2"), (True, 0, "v0")])
def test_ktri_has_version_2_by_key_and_0_by_serial(*, by_serial: bool, recipient_version: int, version: str) -> None:
    recipient, key = recipients.transported(by_serial=by_serial)
    message = parsed(encrypt(recipient))
    assert message["version"].native == version
    (info,) = message["recipient_infos"]
    assert info.name == "ktri"
    assert int(info.chosen["version"]) == recipient_version
    assert isinstance(key, RecipientKey)
    rid = info.chosen["rid"]
    if by_serial:
        assert rid.chosen["issuer"].dump() == recipients.CA.certificate.subject.public_bytes()
    else:
        assert rid.chosen.native == key_identifier(key.private_key.public_key())


@pytest.mark.spec("EST-SKG-14")
@pytest.mark.parametrize("by_serial", [False, True])
def test_kari_has_version_3_an_originator_key_and_the_wrap_as_parameter(*, by_serial: bool) -> None:
    recipient, _ = recipients.agreed(by_serial=by_serial)
    message = parsed(encrypt(recipient))
    assert message["version"].native == "v2"
    (info,) = message["recipient_infos"]
    assert info.name == "kari"
    kari = info.chosen
    assert int(kari["version"]) == 3
    assert kari["originator"].name == "originator_key"
    algorithm = kari["key_encryption_algorithm"]
    assert algorithm["algorithm"].dotted == "1.3.132.1.11.1"
    assert algorithm["parameters"].dump() == bytes.fromhex("300b0609608648016503040105")  # aes128-wrap
    (each,) = kari["recipient_encrypted_keys"]
    assert each["rid"].name == ("issuer_and_serial_number" if by_serial else "r_key_id")


@pytest.mark.spec("EST-SKG-14")
def test_every_agreement_has_an_ephemeral_key_of_its_own() -> None:
    recipient, _ = recipients.agreed()
    messages = [parsed(encrypt(recipient)) for _ in range(3)]
    points = {message["recipient_infos"][0].chosen["originator"].chosen["public_key"].native for message in messages}
    assert len(points) == 3


def test_the_version_is_2_as_soon_as_one_recipient_is_not_by_serial() -> None:
    message = encrypt(recipients.transported(by_serial=True)[0], recipients.transported(owner="another")[0])
    assert parsed(message)["version"].native == "v2"


def test_a_message_for_several_opens_with_the_key_of_each() -> None:
    cases = [recipients.wrapped(16), recipients.transported(by_serial=True), recipients.agreed(), recipients.wrapped(32, b"kek-2")]
    message = encrypt(*(recipient for recipient, _ in cases))
    for _, key in cases:
        assert enveloped_data.decrypt(message, [key]) == (SIGNED_DATA, CONTENT)


def test_the_key_that_fits_is_found_among_several() -> None:
    recipient, key = recipients.agreed()
    keys = [recipients.wrapped(16)[1], recipients.transported()[1], key]
    assert enveloped_data.decrypt(encrypt(recipient), keys)[1] == CONTENT


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_key_that_is_not_named_opens_nothing(case: Case) -> None:
    recipient, _ = case
    others = {
        "another kek": recipients.wrapped(16, b"another")[1],
        "another RSA key": recipients.named(recipients.rsa_private(owner="another"), b"another"),
        "another EC key": recipients.named(recipients.ec_private(owner="another"), b"another"),
    }
    with pytest.raises(MalformedBody, match="not for any of the keys") as caught:
        enveloped_data.decrypt(encrypt(recipient), list(others.values()))
    assert caught.value.reason == "NotARecipient"
    with pytest.raises(MalformedBody, match="not for any of the keys"):
        enveloped_data.decrypt(encrypt(recipient), [])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_another_key_under_the_same_name_opens_nothing(case: Case) -> None:
    recipient, key = case
    wrong: KeyEncryptionKey | RecipientKey
    if isinstance(key, KeyEncryptionKey):
        wrong = replace(key, key=bytes(len(key.key)))
    elif isinstance(recipient, KeyTransportRecipient):
        wrong = replace(key, private_key=recipients.rsa_private(owner="another"))
    else:
        wrong = replace(key, private_key=recipients.ec_private(owner="another"))
    with pytest.raises(MalformedBody) as caught:
        enveloped_data.decrypt(encrypt(recipient), [wrong])
    assert caught.value.reason == "CannotDecrypt"


def test_a_key_of_another_kind_or_length_under_the_same_name_opens_nothing() -> None:
    for recipient, key in (
        (recipients.transported()[0], recipients.ec_private()),
        (recipients.agreed()[0], recipients.rsa_private()),
    ):
        wrong = RecipientKey(private_key=key, identifiers=(recipient.identifier,))  # type: ignore[union-attr]  # both have one
        with pytest.raises(MalformedBody) as caught:
            enveloped_data.decrypt(encrypt(recipient), [wrong])
        assert caught.value.reason == "CannotDecrypt"
    with pytest.raises(MalformedBody) as caught:
        enveloped_data.decrypt(encrypt(recipients.wrapped(16)[0]), [recipients.wrapped(32)[1]])
    assert caught.value.reason == "CannotDecrypt"


ALTERED = {name: CASES[name] for name in ("kekri, AES-256", f"ktri, {KeyTransport.PKCS1_V15}, by key", "kari, by serial")}


@pytest.mark.parametrize("case", ALTERED.values(), ids=ALTERED)
def test_no_altered_octet_gives_the_content(case: Case) -> None:
    recipient, key = case
    message = encrypt(recipient)
    for position in range(0, len(message), 1 if isinstance(key, KeyEncryptionKey) else 3):  # the others cost a private-key operation each
        altered = bytearray(message)
        altered[position] ^= 1 << position % 8
        try:
            content_type, content = enveloped_data.decrypt(bytes(altered), [key])
        except MalformedBody:
            continue
        # The format has no integrity: what comes out is not what went in, but for octets that say nothing about it.
        assert (content_type, content) != (SIGNED_DATA, CONTENT) or _is_label(message, position)


def _is_label(message: bytes, position: int) -> bool:
    """The version of the EnvelopedData (2 or 3 alike)."""
    return message[:position].endswith(bytes.fromhex("0201")) and position < 30


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_message_cut_off_or_lengthened_is_refused(case: Case) -> None:
    recipient, key = case
    message = encrypt(recipient)
    for length in range(len(message)):
        with pytest.raises(MalformedBody):
            enveloped_data.decrypt(message[:length], [key])
    with pytest.raises(MalformedBody, match="do not belong"):
        enveloped_data.decrypt(message + b"\x00", [key])


def test_all_failures_to_decrypt_read_alike() -> None:
    recipient, key = recipients.wrapped(16)
    assert isinstance(key, KeyEncryptionKey)
    message = encrypt(recipient)
    wrapped = KeyWrap.AES_128.wrap(CONTENT_KEY, key_encryption_key=key.key)
    failures = {
        "the padding": (message[:-1] + bytes([message[-1] ^ 0x80]), key),
        "the wrapped key": (message.replace(wrapped, bytes(24)), key),
        "the length of the content key": (message.replace(AES_CBC, AES_CBC.replace(b"\x01\x02", b"\x01\x2a")), key),
        "the key": (message, replace(key, key=bytes(16))),
    }
    texts = set()
    for altered, with_key in failures.values():
        with pytest.raises(MalformedBody) as caught:
            enveloped_data.decrypt(altered, [with_key])
        texts.add((str(caught.value), caught.value.reason))
    assert len(texts) == 1


# ---- shapes


KEK, KEK_KEY = recipients.wrapped(16, b"k")
CONTENT_INFO_OID = pki.oid("1.2.840.113549.1.7.3")
AES_CBC = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.2"), pki.tlv(0x04, IV))


def integer(value: int) -> bytes:
    return pki.tlv(0x02, bytes([value]))


def kekri(
    *,
    version: bytes = integer(4),
    key_id: bytes = b"k",
    algorithm: bytes | None = None,
    encrypted_key: bytes | None = None,
    after: bytes = b"",
) -> bytes:
    algorithm = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.5")) if algorithm is None else algorithm
    encrypted_key = KeyWrap.AES_128.wrap(CONTENT_KEY, key_encryption_key=KEK_KEY.key) if encrypted_key is None else encrypted_key  # type: ignore[union-attr]  # a kek
    return pki.tlv(0xA2, version, pki.sequence(pki.tlv(0x04, key_id)), algorithm, pki.tlv(0x04, encrypted_key), after)


def shape(
    *,
    content_type: bytes = CONTENT_INFO_OID,
    version: bytes = integer(2),
    originator_info: bytes = b"",
    infos: bytes | None = None,
    inner_type: bytes = pki.oid(DATA),
    algorithm: bytes = AES_CBC,
    encrypted: bytes | None = None,
    unprotected: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A kekri message by hand; each part replaceable."""
    infos = kekri() if infos is None else infos
    if encrypted is None:
        message = enveloped_data.encrypt(b"content", DATA, [KEK], content_key=CONTENT_KEY, iv=IV)
        encrypted = pki.tlv(0x80, parsed(message)["encrypted_content_info"]["encrypted_content"].native)
    content = pki.sequence(inner_type, algorithm, encrypted)
    enveloped = pki.sequence(version, originator_info, pki.set_of(infos), content, unprotected, after)
    return pki.sequence(content_type, pki.tlv(0xA0, enveloped))


def test_the_shape_of_rfc_5652_is_what_is_written() -> None:
    assert shape() == enveloped_data.encrypt(b"content", DATA, [KEK], content_key=CONTENT_KEY, iv=IV)


PWRI = pki.tlv(0xA3, integer(0), pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.9")), pki.tlv(0x04, bytes(32)))
ORI = pki.tlv(0xA4, pki.oid("2.999"), b"\x05\x00")


@pytest.mark.parametrize(
    "message",
    [
        shape(infos=PWRI + kekri(), version=integer(3)),
        shape(infos=ORI + kekri(), version=integer(3)),
        shape(infos=kekri(key_id=b"other", encrypted_key=bytes(24)) + kekri()),
        shape(infos=kekri() + kekri(key_id=b"other", algorithm=pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.6")))),
        shape(infos=kekri(algorithm=pki.sequence(pki.oid("2.16.840.1.101.3.4.1.5"), b"\x05\x00"))),
        shape(originator_info=pki.tlv(0xA0), version=integer(2)),
        shape(unprotected=pki.tlv(0xA1, pki.sequence(pki.oid("2.999"), pki.set_of()))),
    ],
    ids=["pwri", "ori", "another key", "another key, 3DES", "wrap with NULL", "originatorInfo", "unprotectedAttrs"],
)
def test_what_is_not_ours_is_passed_over(message: bytes) -> None:
    assert enveloped_data.decrypt(message, [KEK_KEY]) == (DATA, b"content")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (shape(content_type=pki.oid(SIGNED_DATA)), "not EnvelopedData"),
        (shape(version=integer(1)), "version 1"),
        (shape(version=integer(5)), "version 5"),
        (shape(infos=b""), "not for any"),
        (shape(infos=PWRI), "not for any"),
        (shape(infos=kekri() * (MAX_RECIPIENTS + 1)), "more than 16"),
        (shape(infos=kekri(version=integer(3))), "version 4"),
        (shape(infos=kekri(after=b"\x05\x00")), "octets more than"),
        (shape(infos=kekri(algorithm=pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.6")))), "AES key wrap"),
        (shape(infos=kekri(algorithm=pki.sequence(pki.oid("2.16.840.1.101.3.4.1.45")))), "cannot be decrypted"),
        (shape(infos=kekri(encrypted_key=b"")), "cannot be decrypted"),
        (shape(algorithm=pki.sequence(pki.oid("1.2.840.113549.3.7"), pki.tlv(0x04, bytes(8)))), "AES-CBC"),
        (shape(algorithm=pki.sequence(pki.oid("2.16.840.1.101.3.4.1.42"), pki.tlv(0x04, IV))), "cannot be decrypted"),
        (shape(algorithm=pki.sequence(pki.oid("2.16.840.1.101.3.4.1.2"), pki.tlv(0x04, bytes(12)))), "IV has 12"),
        (shape(encrypted=b""), "no encrypted content"),
        (shape(encrypted=pki.tlv(0x80)), "cannot be decrypted"),
        (shape(encrypted=pki.tlv(0x80, bytes(15))), "cannot be decrypted"),
        (shape(encrypted=pki.tlv(0x80, bytes(32))), "cannot be decrypted"),
        (shape(encrypted=pki.tlv(0xA0, pki.tlv(0x04, bytes(16)))), "tag 0xa0"),
        (shape(after=b"\x05\x00"), "octets more than"),
        (b"", "empty"),
        (b"\x05\x00", "tag"),
    ],
)
def test_another_shape_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(MalformedBody, match=why):
        enveloped_data.decrypt(message, [KEK_KEY])


def test_an_oversized_message_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedBody, match="more than 262144"):
        enveloped_data.decrypt(encrypt(KEK, content=bytes(encrypted_content.MAX_OCTETS)), [KEK_KEY])


EC = recipients.ec_private()
EC_NAME = b"an EC key"
EC_KEY = recipients.named(EC, EC_NAME)
GOOD_POINT = b"\x00\x04" + bytes.fromhex(
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"  # the generator of P-256 (SEC 2 section 2.4.2)
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


def kari(
    *, version: bytes = integer(3), originator: bytes | None = None, ukm: bytes = b"", algorithm: bytes | None = None, count: int = 1
) -> bytes:
    originator = originator_key() if originator is None else originator
    algorithm = KeyAgreement.STD_DH_SHA256.identifier_der(KeyWrap.AES_128) if algorithm is None else algorithm
    rid = pki.tlv(0xA0, pki.tlv(0x04, EC_NAME if count == 1 else b"somebody"))
    keys = pki.sequence(*(pki.sequence(rid, pki.tlv(0x04, bytes(24))) for _ in range(count)))
    return pki.tlv(0xA1, version, pki.tlv(0xA0, originator), ukm, algorithm, keys)


def originator_key(algorithm: bytes = pki.sequence(pki.oid("1.2.840.10045.2.1")), point: bytes = GOOD_POINT) -> bytes:
    return pki.tlv(0xA1, algorithm, pki.tlv(0x03, point))


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (kari(), "cannot be decrypted"),  # nobody wrapped anything in 24 zeros
        (kari(version=integer(2)), "version 3"),
        (kari(originator=pki.tlv(0x80, b"static")), "EC key as originatorKey"),
        (kari(originator=originator_key(pki.sequence(pki.oid("1.3.101.110")))), "EC key as originatorKey"),
        (kari(originator=originator_key(point=b"\x01" + GOOD_POINT[1:-1] + b"\xf4")), "whole octets"),
        (kari(originator=originator_key(point=GOOD_POINT[:-1] + b"\x00")), "cannot be decrypted"),  # not on the curve
        (kari(originator=originator_key(point=b"\x00\x00")), "cannot be decrypted"),  # the point at infinity
        (kari(algorithm=pki.sequence(pki.oid("1.3.133.16.840.63.0.2"), KeyWrap.AES_128.identifier_der)), "SHA-256 or SHA-384"),
        (kari(algorithm=pki.sequence(pki.oid("1.3.132.1.11.1"))), "SHA-256 or SHA-384"),
        (kari(count=MAX_RECIPIENTS + 1), "more than 16"),
        (kari(count=0), "not for any"),
    ],
)
def test_a_kari_of_another_shape_or_with_a_bad_point_is_refused(info: bytes, why: str) -> None:
    with pytest.raises(MalformedBody, match=why):
        enveloped_data.decrypt(shape(infos=info), [EC_KEY])


@pytest.mark.parametrize("parameters", [b"", b"\x05\x00", pki.oid("1.2.840.10045.3.1.7")], ids=["absent", "NULL", "namedCurve"])
@pytest.mark.parametrize("ukm", [None, b"a nonce of both sides"])
@pytest.mark.parametrize("wrap_identifier", [der for der, wrap in KEY_WRAPS.items() if wrap is KeyWrap.AES_128], ids=["absent", "NULL"])
def test_kari_is_read_with_ukm_and_with_what_senders_write_as_parameters(
    parameters: bytes, ukm: bytes | None, wrap_identifier: bytes
) -> None:
    ephemeral = recipients.ec_private(owner="ephemeral")
    key = KeyAgreement.STD_DH_SHA256.agree(
        ephemeral, EC.public_key(), wrap=KeyWrap.AES_128, wrap_identifier_der=wrap_identifier, user_keying_material=ukm
    )
    spki = pki.spki_der(ephemeral.public_key())
    point = spki[spki.index(b"\x03\x42\x00") + 2 :]
    info = pki.tlv(
        0xA1,
        integer(3),
        pki.tlv(0xA0, originator_key(pki.sequence(pki.oid("1.2.840.10045.2.1"), parameters), point)),
        b"" if ukm is None else pki.tlv(0xA1, pki.tlv(0x04, ukm)),
        pki.sequence(pki.oid("1.3.132.1.11.1"), wrap_identifier),
        pki.sequence(
            pki.sequence(
                pki.tlv(0xA0, pki.tlv(0x04, EC_NAME), pki.tlv(0x18, b"20260101000000Z")),
                pki.tlv(0x04, KeyWrap.AES_128.wrap(CONTENT_KEY, key_encryption_key=key)),
            )
        ),
    )
    assert enveloped_data.decrypt(shape(infos=info), [EC_KEY]) == (DATA, b"content")


def test_a_ktri_whose_version_does_not_fit_its_rid_is_refused() -> None:
    recipient, key = recipients.transported()
    message = encrypt(recipient)
    index = message.index(bytes.fromhex("020102"), 30)
    with pytest.raises(MalformedBody, match="does not fit its rid"):
        enveloped_data.decrypt(message[:index] + bytes.fromhex("020100") + message[index + 3 :], [key])


def test_rsa_oaep_with_sha_1_is_not_read() -> None:
    private_key = recipients.rsa_private()
    oaep_sha1 = pki.sequence(pki.oid("1.2.840.113549.1.1.7"), pki.sequence())
    info = pki.sequence(integer(2), pki.tlv(0x80, b"name"), oaep_sha1, pki.tlv(0x04, bytes(256)))
    with pytest.raises(MalformedBody, match="RSAES-OAEP with SHA-256"):
        enveloped_data.decrypt(shape(infos=info), [recipients.named(private_key, b"name")])


@given(st.binary(max_size=300))
def test_nothing_but_our_error_escapes_from_octets_of_any_kind(octets: bytes) -> None:
    with suppress(EstError):
        enveloped_data.decrypt(octets, [KEK_KEY, EC_KEY])


@given(st.data())
def test_nothing_but_our_error_escapes_from_messages_with_octets_replaced(data: st.DataObject) -> None:
    recipient, key = data.draw(st.sampled_from(list(ALTERED.values())))
    message = bytearray(encrypt(recipient))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EstError):
        enveloped_data.decrypt(bytes(message), [key])


def test_secrets_are_in_no_repr() -> None:
    for _, key in CASES.values():
        shown = repr(key)
        assert "key_identifier" in shown or "identifiers" in shown
        assert "private_key" not in shown
        assert "key=" not in shown


def test_a_certificate_without_a_subject_key_identifier_is_named_by_serial_only() -> None:
    certificate = pki.leaf(recipients.CA, without=[x509.SubjectKeyIdentifier])
    (only,) = identifiers_of(certificate)
    assert not isinstance(only, SubjectKeyIdentifier)
    assert only.serial_number == certificate.serial_number


def test_encrypting_asks_for_fitting_arguments() -> None:
    for content_key, iv, to in (
        (bytes(15), IV, [KEK]),
        (CONTENT_KEY, bytes(15), [KEK]),
        (CONTENT_KEY, IV, []),
        (CONTENT_KEY, IV, [KEK] * 17),
    ):
        with pytest.raises(ValueError, match=r"takes|recipients"):
            enveloped_data.encrypt(b"", DATA, to, content_key=content_key, iv=iv)


def test_any_content_type_travels() -> None:
    message = enveloped_data.encrypt(b"", PKI_DATA, [KEK], content_key=CONTENT_KEY, iv=IV)
    assert enveloped_data.decrypt(message, [KEK_KEY]) == (PKI_DATA, b"")
