"""Wrapping keys: what the keys that this server makes for others are encrypted with, and how a request names one of them.

RFC 7030 sections 4.4.1.1 (DecryptKeyIdentifier, a symmetric key) and 4.4.1.2 (AsymmetricDecryptKeyIdentifier, a public key). An identifier
that is not known, a certificate whose key may not encipher and algorithms without a match are errors: a key that was asked for encrypted
never leaves in plain.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from estcore import smime_capabilities
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, ConfigurationError
from estcore.foreign import foreign
from estcore.key_encryption import KeyWrap
from estcore.keys import check_public_key
from estcore.recipient_info import (
    KeyAgreementRecipient,
    KeyEncryptionKey,
    KeyTransportRecipient,
    Recipient,
    RecipientIdentifier,
    identifiers_of,
    key_identifier,
)
from estcore.signed_data import SubjectKeyIdentifier
from estcore.smime_capabilities import ContentCipher, SmimeCapabilities

MAX_KEYS: Final = 10_000
MAX_ENTRY_OCTETS: Final = 16 * 1024
SYMMETRIC_SUFFIX: Final = ".key"
PUBLIC_SUFFIX: Final = ".pem"

_HEX_NAME = "0x"
_HEX = re.compile(rb"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRecipient:
    """A public key that private keys may be encrypted for; `identifier` is how its holder finds the RecipientInfo."""

    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    identifier: RecipientIdentifier
    refusal: str = ""
    """Why nothing may be encrypted with it, where its certificate says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappingKeys:
    """Everything that a wrapping-key Secret holds, by the octets that a request names it by."""

    symmetric: Mapping[bytes, KeyEncryptionKey] = field(default_factory=dict, repr=False)
    public: Mapping[bytes, PublicRecipient] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionWanted:
    """How a CSR asks for its key: encrypted for whom, and by what. Exactly one of the identifiers is set."""

    decrypt_key_id: bytes | None = None
    asymmetric_decrypt_key_id: bytes | None = None
    capabilities: SmimeCapabilities


def wanted_by(csr: CertificationRequest, *, required: bool) -> EncryptionWanted | None:
    """What a CSR says of the encryption of its key; None where it asks for none and none is `required`.

    Raises BadCsr: EncryptionRequired; EncryptionUnclear for two identifiers, or an identifier or SMIMECapabilities without the other.
    """
    identifiers = (csr.decrypt_key_id, csr.asymmetric_decrypt_key_id)
    if identifiers == (None, None):
        if csr.smime_capabilities_der is not None:
            raise _unclear("has SMIMECapabilities and names no key: add DecryptKeyIdentifier or AsymmetricDecryptKeyIdentifier")
        if required:
            raise BadCsr(
                "this issuer sends private keys encrypted only: add SMIMECapabilities and DecryptKeyIdentifier or"
                " AsymmetricDecryptKeyIdentifier to the CSR (RFC 7030 section 4.4.1)",
                reason="EncryptionRequired",
            )
        return None
    if None not in identifiers:
        raise _unclear("has DecryptKeyIdentifier and AsymmetricDecryptKeyIdentifier: leave one")
    if csr.smime_capabilities_der is None:
        raise _unclear("names a key and no algorithms: add SMIMECapabilities")
    return EncryptionWanted(
        decrypt_key_id=csr.decrypt_key_id,
        asymmetric_decrypt_key_id=csr.asymmetric_decrypt_key_id,
        capabilities=smime_capabilities.parse(csr.smime_capabilities_der),
    )


def _unclear(sentence: str) -> BadCsr:
    return BadCsr(f"the CSR {sentence} (RFC 7030 section 4.4.1)", reason="EncryptionUnclear")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """For whom a key is encrypted, and with what."""

    recipient: Recipient
    cipher: ContentCipher


def load(entries: Mapping[str, bytes], *, where: str) -> WrappingKeys:
    """Load the entries of a wrapping-key Secret.

    `<identifier>.key` is a symmetric key as 32, 48 or 64 hexadecimal digits (AES-128, -192, -256). DecryptKeyIdentifier names it by the
    octets of `<identifier>`, or, where that is 0x and hexadecimal digits, by the octets that these stand for. `<any name>.pem` is one
    certificate or one public key, RSA or EC. AsymmetricDecryptKeyIdentifier names it by the certificate's subjectKeyIdentifier, or where
    there is none by the SHA-1 of the key (RFC 5280 section 4.2.1.2 method 1). Raises ConfigurationError that begins with `where`.
    """
    if len(entries) > MAX_KEYS:
        raise _wrong(f"it holds {len(entries)} keys; at most {MAX_KEYS} are read", where=where)
    symmetric: dict[bytes, KeyEncryptionKey] = {}
    public: dict[bytes, PublicRecipient] = {}
    for name, value in sorted(entries.items()):
        if len(value) > MAX_ENTRY_OCTETS:
            raise _wrong(f"it has {len(value)} octets, more than {MAX_ENTRY_OCTETS}", where=where, entry=name)
        if name.endswith(SYMMETRIC_SUFFIX):
            identifier = _identifier(name.removesuffix(SYMMETRIC_SUFFIX), where=where, entry=name)
            if identifier in symmetric:
                raise _wrong("another entry is for the same identifier; leave one", where=where, entry=name)
            symmetric[identifier] = KeyEncryptionKey(key=_symmetric(value, where=where, entry=name), key_identifier=identifier)
        elif name.endswith(PUBLIC_SUFFIX):
            identifier, recipient = _public(value, where=where, entry=name)
            if identifier in public:
                raise _wrong("another entry is for the same key; leave one", where=where, entry=name)
            public[identifier] = recipient
        else:
            raise _wrong(
                "name it <identifier>.key for a symmetric key, <name>.pem for a certificate or public key", where=where, entry=name
            )
    if not symmetric and not public:
        raise _wrong("it holds no key: add <identifier>.key (openssl rand -hex 32) or <name>.pem", where=where)
    return WrappingKeys(symmetric=symmetric, public=public)


def choose(keys: WrappingKeys, wanted: EncryptionWanted) -> Encryption:
    """The recipient that a CSR names, by an algorithm that it lists.

    Raises BadCsr: UnknownDecryptKey, DecryptKeyRefused for a certificate whose keyUsage has no encipherment, NoCommonAlgorithm.
    """
    if wanted.decrypt_key_id is not None:
        key = keys.symmetric.get(wanted.decrypt_key_id)
        if key is None:
            raise _unknown("DecryptKeyIdentifier")
        wrap = wanted.capabilities.key_wrap(len(key.key))
        return Encryption(recipient=key, cipher=wanted.capabilities.content_cipher(wrap.value))
    public = keys.public.get(wanted.asymmetric_decrypt_key_id or b"")
    if public is None:
        raise _unknown("AsymmetricDecryptKeyIdentifier")
    if public.refusal:
        raise BadCsr(
            f"nothing is encrypted for the key that AsymmetricDecryptKeyIdentifier names: {public.refusal}", reason="DecryptKeyRefused"
        )
    if isinstance(public.public_key, rsa.RSAPublicKey):
        transport = wanted.capabilities.key_transport()
        cipher = wanted.capabilities.content_cipher(smime_capabilities.fitting_content_key_octets(public.public_key))
        return Encryption(
            recipient=KeyTransportRecipient(public_key=public.public_key, identifier=public.identifier, algorithm=transport),
            cipher=cipher,
        )
    agreement, wrap = wanted.capabilities.key_agreement()
    return Encryption(
        recipient=KeyAgreementRecipient(public_key=public.public_key, identifier=public.identifier, algorithm=agreement, wrap=wrap),
        cipher=wanted.capabilities.content_cipher(wrap.value),
    )


def _unknown(attribute: str) -> BadCsr:
    return BadCsr(
        f"this issuer has no key by the identifier of the CSR's {attribute} (RFC 7030 section 4.4.1); ask its administrator to add it",
        reason="UnknownDecryptKey",
    )


def _wrong(message: str, *, where: str, entry: str = "") -> ConfigurationError:
    return ConfigurationError(message, where=where, field=entry, reason="SecretInvalidData")


def _identifier(name: str, *, where: str, entry: str) -> bytes:
    if not name:
        raise _wrong("there is no identifier before .key", where=where, entry=entry)
    if not name.startswith(_HEX_NAME):
        return name.encode()
    try:
        identifier = bytes.fromhex(name.removeprefix(_HEX_NAME))
    except ValueError as error:
        raise _wrong("after 0x come hexadecimal digits, two for each octet of the identifier", where=where, entry=entry) from error
    if not identifier:
        raise _wrong("after 0x come hexadecimal digits, two for each octet of the identifier", where=where, entry=entry)
    return identifier


def _symmetric(value: bytes, *, where: str, entry: str) -> bytes:
    digits = value.strip()
    if not _HEX.fullmatch(digits) or len(digits) not in {2 * wrap.value for wrap in KeyWrap}:
        raise _wrong("it is not 32, 48 or 64 hexadecimal digits; make one by: openssl rand -hex 32", where=where, entry=entry)
    return bytes.fromhex(digits.decode("ascii"))


def _public(value: bytes, *, where: str, entry: str) -> tuple[bytes, PublicRecipient]:
    """The octets that name it, and the recipient."""
    if b"PRIVATE KEY" in value:
        raise _wrong("it holds a private key; this server needs the certificate or the public key only", where=where, entry=entry)
    if value.count(b"-----BEGIN ") != 1:
        raise _wrong("it is not one certificate or one public key in PEM", where=where, entry=entry)

    def unreadable() -> ConfigurationError:
        return _wrong("its certificate or public key cannot be read", where=where, entry=entry)

    if b"-----BEGIN CERTIFICATE-----" not in value:
        loaded = _checked(foreign(lambda: load_pem_public_key(value), unreadable), where=where, entry=entry)
        octets = key_identifier(loaded)
        return octets, PublicRecipient(public_key=loaded, identifier=SubjectKeyIdentifier(octets))
    certificate = foreign(lambda: x509.load_pem_x509_certificate(value), unreadable)
    public_key = _checked(foreign(certificate.public_key, unreadable), where=where, entry=entry)
    # A holder finds its RecipientInfo by what stands in its certificate, so one without subjectKeyIdentifier goes by issuer and serial.
    identifier = foreign(lambda: identifiers_of(certificate), unreadable)[0]
    refusal = foreign(lambda: _usage_refusal(certificate, public_key), unreadable)
    octets = identifier.octets if isinstance(identifier, SubjectKeyIdentifier) else key_identifier(public_key)
    return octets, PublicRecipient(public_key=public_key, identifier=identifier, refusal=refusal)


def _checked(public_key: object, *, where: str, entry: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        check_public_key(public_key)
    except BadCsr as error:
        raise _wrong(error.message, where=where, entry=entry) from error
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise _wrong("nothing can be encrypted with an Ed25519 key; give an RSA or EC key", where=where, entry=entry)
    return public_key


def _usage_refusal(certificate: x509.Certificate, public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    """RFC 7030 section 4.4.1.2: the keyUsage allows key transport or key agreement, or is absent."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    if isinstance(public_key, rsa.RSAPublicKey):
        return "" if usage.key_encipherment else "its certificate's keyUsage has no keyEncipherment"
    return "" if usage.key_agreement else "its certificate's keyUsage has no keyAgreement"
