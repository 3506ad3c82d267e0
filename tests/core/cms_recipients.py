"""Recipients of enciphered messages, one of each kind, with the keys that open them."""

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estcore.issuer_spec import KeyAlgorithm
from estcore.key_encryption import KeyAgreement, KeyTransport, KeyWrap
from estcore.recipient_info import (
    DecryptionKey,
    KeyAgreementRecipient,
    KeyEncryptionKey,
    KeyTransportRecipient,
    Recipient,
    RecipientKey,
    identifiers_of,
)
from estcore.signed_data import SubjectKeyIdentifier
from tests import pki

CONTENT_KEY = bytes(range(16))
IV = bytes(range(100, 116))
CA = pki.ca("Recipients' CA")

Case = tuple[Recipient, DecryptionKey]


def wrapped(octets: int, name: bytes = b"kek-1") -> Case:
    key = KeyEncryptionKey(key=bytes(range(octets)), key_identifier=name)
    return key, key


def rsa_private(algorithm: KeyAlgorithm = KeyAlgorithm.RSA_2048, owner: str = "recipient") -> rsa.RSAPrivateKey:
    private_key = pki.key(algorithm, owner)
    assert isinstance(private_key, rsa.RSAPrivateKey)
    return private_key


def ec_private(algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, owner: str = "recipient") -> ec.EllipticCurvePrivateKey:
    private_key = pki.key(algorithm, owner)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    return private_key


def transported(algorithm: KeyTransport = KeyTransport.OAEP_SHA256, *, by_serial: bool = False, owner: str = "recipient") -> Case:
    private_key = rsa_private(owner=owner)
    names = identifiers_of(pki.leaf(CA, public_key=private_key.public_key()))
    identifier = names[1] if by_serial else names[0]
    return (
        KeyTransportRecipient(public_key=private_key.public_key(), identifier=identifier, algorithm=algorithm),
        RecipientKey(private_key=private_key, identifiers=names),
    )


def agreed(
    curve: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    algorithm: KeyAgreement = KeyAgreement.STD_DH_SHA256,
    wrap: KeyWrap = KeyWrap.AES_128,
    *,
    by_serial: bool = False,
    owner: str = "recipient",
) -> Case:
    private_key = ec_private(curve, owner)
    names = identifiers_of(pki.leaf(CA, public_key=private_key.public_key()))
    recipient = KeyAgreementRecipient(
        public_key=private_key.public_key(), identifier=names[1] if by_serial else names[0], algorithm=algorithm, wrap=wrap
    )
    return recipient, RecipientKey(private_key=private_key, identifiers=names)


def named(private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: bytes) -> RecipientKey:
    return RecipientKey(private_key=private_key, identifiers=(SubjectKeyIdentifier(name),))


CASES: dict[str, Case] = {
    "kekri, AES-128": wrapped(16),
    "kekri, AES-192": wrapped(24),
    "kekri, AES-256": wrapped(32),
    **{f"ktri, {algorithm}, by key": transported(algorithm) for algorithm in KeyTransport},
    "ktri, by serial": transported(by_serial=True),
    **{
        f"kari, {curve}, {scheme}, {wrap.name}": agreed(curve, scheme, wrap)
        for curve in (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521)
        for scheme in KeyAgreement
        for wrap in KeyWrap
    },
    "kari, by serial": agreed(by_serial=True),
}
