"""The client half of /serverkeygen without IO: what a CSR says of the key's encryption, and the key out of the answer.

RFC 7030 section 4.4. Whoever asked for an encrypted key takes no plain one: the answer is then an error and its key unused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from estcore import auth_enveloped_data, certs_only, enveloped_data, exchange, key_package, multipart, transfer
from estcore.auth_enveloped_data import AES_GCM_OIDS
from estcore.csr_vocabulary import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES
from estcore.der import SEQUENCE, algorithm_identifier, tlv
from estcore.der_reader import OCTET_STRING
from estcore.enveloped_data import AES_CBC_OIDS
from estcore.errors import EstError, MalformedResponse
from estcore.exchange import HttpRequest, HttpResponse
from estcore.key_encryption import KeyAgreement, KeyTransport, KeyWrap
from estcore.keys import PrivateKey
from estcore.multipart import MEDIA_MULTIPART, Part
from estcore.recipient_info import DecryptionKey, KeyEncryptionKey, key_identifier
from estcore.signed_data import SubjectKeyIdentifier


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGeneratedKey:
    """What the server made: a private key and the certificate for it."""

    private_key: PrivateKey = field(repr=False)
    certificate: x509.Certificate


def attributes_for(key: DecryptionKey) -> Mapping[str, bytes]:
    """The attributes that ask for a key that `key` can decrypt: dotted OID → DER of the value (RFC 7030 section 4.4.1).

    A public key is named by the subjectKeyIdentifier among its names, else by the SHA-1 of its bits.
    """
    capabilities = tlv(SEQUENCE, b"".join((*_key_algorithms(key), *_CONTENT_CIPHERS)))
    if isinstance(key, KeyEncryptionKey):
        return {SMIME_CAPABILITIES: capabilities, DECRYPT_KEY_ID: tlv(OCTET_STRING, key.key_identifier)}
    names = (name.octets for name in key.identifiers if isinstance(name, SubjectKeyIdentifier))
    name = next(names, None) or key_identifier(key.private_key.public_key())
    return {SMIME_CAPABILITIES: capabilities, ASYMMETRIC_DECRYPT_KEY_ID: tlv(OCTET_STRING, name)}


_CONTENT_CIPHERS = tuple(algorithm_identifier(oid) for oid in (AES_GCM_OIDS[32], AES_CBC_OIDS[32], AES_CBC_OIDS[16]))


def _key_algorithms(key: DecryptionKey) -> tuple[bytes, ...]:
    """What may encipher for it, preferred first: each DER, which is both an AlgorithmIdentifier and an SMIMECapability."""
    if isinstance(key, KeyEncryptionKey):
        return (KeyWrap(len(key.key)).identifier_der,)
    if isinstance(key.private_key, rsa.RSAPrivateKey):
        return tuple(transport.identifier_der for transport in KeyTransport)
    schemes = ((KeyAgreement.STD_DH_SHA256, KeyWrap.AES_128), (KeyAgreement.STD_DH_SHA384, KeyWrap.AES_256))
    if key.private_key.curve.name in {"secp384r1", "secp521r1"}:
        schemes = schemes[::-1]
    return tuple(scheme.identifier_der(wrap) for scheme, wrap in schemes)


def post_csr(label: str | None, csr_der: bytes) -> HttpRequest:
    """Ask for a key and a certificate for the names of the CSR (RFC 7030 section 4.4.1)."""
    return HttpRequest(
        method="POST",
        target=exchange.target(label, "serverkeygen"),
        headers=(("Content-Type", "application/pkcs10"), ("Content-Transfer-Encoding", "base64"), ("Accept", MEDIA_MULTIPART)),
        body=transfer.encode_body(csr_der, wrap=True),
    )


def read_answer(
    response: HttpResponse, *, decryption_key: DecryptionKey | None, ca_certificates: Sequence[x509.Certificate], now: datetime
) -> ServerGeneratedKey:
    """The key and its certificate, whichever part comes first (RFC 7030 section 4.4.2).

    With a `decryption_key` the key must be encrypted for it and signed by one of `ca_certificates`, which are trusted, or by whom they
    let make keys; without one it must be plain. Raises MalformedResponse, else an error of the ClientError branch.
    """
    exchange.check_status(response, now=now)
    try:
        parts = multipart.decode(response.headers.get("content-type", ""), response.body)
        key_part, certificate_part = _told_apart(parts)
        private_key = _read_key(key_part, decryption_key, ca_certificates, now=now)
        certificates = certs_only.decode(certificate_part.der)
    except MalformedResponse:
        raise
    except EstError as error:
        raise MalformedResponse(f"the server's answer holds no key that can be used: {error.message}") from error
    for certificate in certificates:
        if exchange.has_key(certificate, private_key.public_key()):
            return ServerGeneratedKey(private_key=private_key, certificate=certificate)
    raise MalformedResponse("the server's answer holds no certificate for the key in it")


def _told_apart(parts: Sequence[Part]) -> tuple[Part, Part]:
    """The key part and the certificate part, by their types and not by their order."""
    keys, certificates = [], []
    for part in parts:
        kind, parameters = multipart.parse_content_type(part.content_type)
        smime_type = parameters.get("smime-type", "").lower()
        if kind == "application/pkcs8" or (kind == "application/pkcs7-mime" and smime_type == "server-generated-key"):
            keys.append(part)
        elif kind == "application/pkcs7-mime" and smime_type in ("", "certs-only"):
            certificates.append(part)
    if len(parts) != 2 or len(keys) != 1 or len(certificates) != 1:
        raise MalformedResponse("the server's answer is not one private key and one certificate (RFC 7030 section 4.4.2)")
    return keys[0], certificates[0]


def _read_key(
    part: Part, decryption_key: DecryptionKey | None, ca_certificates: Sequence[x509.Certificate], *, now: datetime
) -> PrivateKey:
    plain = multipart.parse_content_type(part.content_type)[0] == "application/pkcs8"
    if plain and decryption_key is not None:
        raise MalformedResponse("the server sent the private key in plain, though it was asked for encrypted: do not use it")
    if plain:
        return key_package.load_private_key(part.der)
    if decryption_key is None:
        raise MalformedResponse("the server sent the private key encrypted, though nothing was said of who can decrypt it")
    decrypt = auth_enveloped_data.decrypt if auth_enveloped_data.is_one(part.der) else enveloped_data.decrypt
    content_type, content = decrypt(part.der, [decryption_key])
    keys = key_package.open_signed(content_type, content, ca_certificates=ca_certificates, now=now)
    if len(keys) != 1:
        raise MalformedResponse(f"the server sent {len(keys)} private keys where one was asked for")
    return keys[0]
