"""The client half of /serverkeygen (RFC 7030 section 4.4): what it asks for, and which answers it believes."""

from collections.abc import Sequence

import pytest

from estcore import (
    auth_enveloped_data,
    certs_only,
    cms_signature,
    csr_builder,
    enveloped_data,
    key_package,
    multipart,
    pkcs10,
    server_key,
    transfer,
    wrapping_keys,
)
from estcore.errors import MalformedResponse, Pending, Refused
from estcore.exchange import HttpResponse
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.multipart import Part
from estcore.recipient_info import DecryptionKey, KeyEncryptionKey
from estcore.signed_data import SIGNED_DATA
from estcore.smime_capabilities import Mode
from estcore.wrapping_keys import PublicRecipient, WrappingKeys
from tests import pki
from tests.core import cms_recipients as recipients
from tests.core.cms_recipients import CONTENT_KEY, IV

CA = pki.ca("Factory CA")
KEY = pki.key(owner="made by the server")
CERTIFICATE = pki.leaf(CA, public_key=KEY.public_key())
OTHER_CERTIFICATE = pki.leaf(CA, public_key=pki.key(owner="somebody").public_key())
KEK = KeyEncryptionKey(key=bytes(range(32)), key_identifier=b"device")

PKCS8, SERVER_GENERATED_KEY = "application/pkcs8", "application/pkcs7-mime; smime-type=server-generated-key"
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"

PLAIN = Part(content_type=PKCS8, der=key_package.private_key_info(KEY))
CERTIFICATES = Part(content_type=CERTS_ONLY, der=certs_only.encode([pki.der(CERTIFICATE)]))


def encrypted(*keys: PrivateKey, ca: pki.Ca = CA, key: DecryptionKey = KEK) -> Part:
    assert isinstance(ca.key, PrivateKey)
    assert isinstance(key, KeyEncryptionKey)
    package = key_package.sign(keys or (KEY,), certificate=ca.certificate, signer=cms_signature.signer_of(ca.key))
    return Part(content_type=SERVER_GENERATED_KEY, der=enveloped_data.encrypt(package, SIGNED_DATA, [key], content_key=CONTENT_KEY, iv=IV))


def authenticated(*keys: PrivateKey) -> Part:
    """As `encrypted`, with AES-GCM."""
    assert isinstance(CA.key, PrivateKey)
    package = key_package.sign(keys or (KEY,), certificate=CA.certificate, signer=cms_signature.signer_of(CA.key))
    message = auth_enveloped_data.encrypt(package, SIGNED_DATA, [KEK], content_key=bytes(range(32)), nonce=IV[:12])
    return Part(content_type=SERVER_GENERATED_KEY, der=message)


def read(*parts: Part, key: DecryptionKey | None = None, status: int = 200) -> server_key.ServerGeneratedKey:
    content_type, body = multipart.encode(parts)
    response = HttpResponse(status=status, headers={"content-type": content_type}, body=body)
    return server_key.read_answer(response, decryption_key=key, ca_certificates=[CA.certificate], now=pki.EPOCH)


def is_right(generated: server_key.ServerGeneratedKey) -> bool:
    return generated.certificate == CERTIFICATE and key_package.private_key_info(generated.private_key) == key_package.private_key_info(KEY)


# ---- what it asks for


@pytest.mark.spec("EST-SKG-04", "EST-SKG-08")
@pytest.mark.parametrize(
    "case",
    [
        recipients.wrapped(16),
        recipients.wrapped(32),
        recipients.transported(),
        recipients.agreed(),
        recipients.agreed(KeyAlgorithm.ECDSA_P384),
        recipients.agreed(KeyAlgorithm.ECDSA_P521),
    ],
    ids=["kekri AES-128", "kekri AES-256", "ktri", "kari P-256", "kari P-384", "kari P-521"],
)
def test_its_csr_names_a_key_and_algorithms_that_our_server_takes(case: recipients.Case) -> None:
    recipient, key = case
    attributes = server_key.attributes_for(key)
    assert len(attributes) == 2
    csr_der = csr_builder.build(pki.key(), subject=pki.name(), attributes=attributes)
    csr = pkcs10.parse(csr_der)
    wanted = wrapping_keys.wanted_by(csr, required=True)
    assert wanted is not None
    if isinstance(recipient, KeyEncryptionKey):
        keys = WrappingKeys(symmetric={recipient.key_identifier: recipient})
    else:
        name = csr.asymmetric_decrypt_key_id
        assert name is not None
        keys = WrappingKeys(public={name: PublicRecipient(public_key=recipient.public_key, identifier=recipient.identifier)})
    chosen = wrapping_keys.choose(keys, wanted)
    assert chosen.cipher == (Mode.GCM, 32)
    message = auth_enveloped_data.encrypt(b"key", SIGNED_DATA, [chosen.recipient], content_key=bytes(32), nonce=bytes(12))
    assert auth_enveloped_data.decrypt(message, [key]) == (SIGNED_DATA, b"key")


@pytest.mark.spec("EST-SKG-01")
def test_it_posts_a_pkcs10_to_serverkeygen() -> None:
    request = server_key.post_csr("factory", b"\x30\x00")
    assert (request.method, request.target) == ("POST", "/.well-known/est/factory/serverkeygen")
    assert ("Content-Type", "application/pkcs10") in request.headers
    assert transfer.decode_body(request.body) == b"\x30\x00"


# ---- which answers it believes


@pytest.mark.spec("EST-SKG-09")
def test_the_parts_are_told_apart_by_their_types_and_not_their_order() -> None:
    assert is_right(read(PLAIN, CERTIFICATES))
    assert is_right(read(CERTIFICATES, PLAIN))
    assert is_right(read(CERTIFICATES, encrypted(), key=KEK))
    assert is_right(read(CERTIFICATES, authenticated(), key=KEK))


@pytest.mark.spec("EST-SKG-09", "EST-HTTP-02")
@pytest.mark.parametrize(
    ("key_type", "certificate_type"),
    [
        ("Application/PKCS8; charset=us-ascii", "application/pkcs7-mime"),
        ("application/pkcs8", "application/pkcs7-mime; smime-type=CERTS-ONLY"),
        ("application/pkcs8;", 'application/pkcs7-mime; smime-type="certs-only"; name=cert.p7c'),
    ],
)
def test_types_are_compared_as_http_has_it(key_type: str, certificate_type: str) -> None:
    assert is_right(read(Part(content_type=key_type, der=PLAIN.der), Part(content_type=certificate_type, der=CERTIFICATES.der)))


@pytest.mark.spec("EST-SKG-15")
def test_the_certificate_is_the_one_for_the_key_though_there_are_more() -> None:
    bag = Part(content_type=CERTS_ONLY, der=certs_only.encode([pki.der(each) for each in (OTHER_CERTIFICATE, CERTIFICATE, CA.certificate)]))
    assert is_right(read(PLAIN, bag))


@pytest.mark.spec("EST-SKG-05", "THREAT-18")
def test_a_plain_key_is_not_taken_by_who_asked_for_an_encrypted_one() -> None:
    with pytest.raises(MalformedResponse, match="in plain"):
        read(PLAIN, CERTIFICATES, key=KEK)


OTHERS = recipients.wrapped(32, b"another name")[1]
NOT_TAKEN: dict[str, tuple[Sequence[Part], DecryptionKey | None, str]] = {
    "an encrypted key that nobody asked for": ([encrypted(), CERTIFICATES], None, "nothing was said"),
    "a key for somebody else": ([encrypted(), CERTIFICATES], OTHERS, "not for any of the keys"),
    "a key that another CA signed": ([encrypted(ca=pki.ca("Another CA")), CERTIFICATES], KEK, "not trusted"),
    "two keys in one package": ([encrypted(KEY, pki.key(owner="second")), CERTIFICATES], KEK, "2 private keys"),
    "no key": ([CERTIFICATES], None, "not one private key and one certificate"),
    "no certificate": ([PLAIN], None, "not one private key and one certificate"),
    "two keys": ([PLAIN, PLAIN], None, "not one private key and one certificate"),
    "three parts": ([PLAIN, CERTIFICATES, Part(content_type="text/plain", der=b"hello")], None, "not one private key and one certificate"),
    "another type": ([Part(content_type="application/pkcs12", der=PLAIN.der), CERTIFICATES], None, "not one private key"),
    "another smime-type": (
        [PLAIN, Part(content_type="application/pkcs7-mime; smime-type=signed-data", der=CERTIFICATES.der)],
        None,
        "not one",
    ),
    "another key's certificate": (
        [PLAIN, Part(content_type=CERTS_ONLY, der=certs_only.encode([pki.der(OTHER_CERTIFICATE)]))],
        None,
        "no certificate for the key",
    ),
    "an encrypted PKCS#8": ([Part(content_type=PKCS8, der=b"\x30\x03\x02\x01\x00"), CERTIFICATES], None, "no key that can be used"),
    "no certs-only": ([PLAIN, Part(content_type=CERTS_ONLY, der=b"\x30\x00")], None, "no key that can be used"),
    "no EnvelopedData": ([Part(content_type=SERVER_GENERATED_KEY, der=CERTIFICATES.der), CERTIFICATES], KEK, "not EnvelopedData"),
}


@pytest.mark.spec("EST-SKG-09", "EST-SKG-11")
@pytest.mark.parametrize(("parts", "key", "why"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_anything_else_is_no_answer(parts: Sequence[Part], key: DecryptionKey | None, why: str) -> None:
    with pytest.raises(MalformedResponse, match=why):
        read(*parts, key=key)


def test_a_body_that_is_no_multipart_is_no_answer() -> None:
    for content_type in ("", CERTS_ONLY, "multipart/mixed", "multipart/mixed; boundary=other"):
        response = HttpResponse(status=200, headers={"content-type": content_type}, body=multipart.encode([PLAIN, CERTIFICATES])[1])
        with pytest.raises(MalformedResponse):
            server_key.read_answer(response, decryption_key=None, ca_certificates=[], now=pki.EPOCH)


@pytest.mark.spec("EST-SKG-17", "EST-URI-08")
def test_a_refusal_and_a_wait_are_what_http_says() -> None:
    with pytest.raises(Refused):
        read(PLAIN, CERTIFICATES, status=404)
    with pytest.raises(Pending):
        read(PLAIN, CERTIFICATES, status=202)


@pytest.mark.spec("THREAT-18")
def test_a_generated_key_shows_nothing_of_itself() -> None:
    assert "private_key" not in repr(read(PLAIN, CERTIFICATES))
