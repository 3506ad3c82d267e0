"""How a content-encryption key is enciphered for one recipient: wrapped, transported or agreed on.

RFC 3565 (AES key wrap), RFC 3560 and 4055 (RSAES-OAEP), RFC 8017 section 7.2 (RSAES-PKCS1-v1_5), RFC 5753 (ECDH). An allow-list: what
is not here is neither emitted nor read. Missing on purpose: 3DES and RC2 wrap, OAEP and ECDH with SHA-1.
"""

from enum import Enum, StrEnum
from itertools import product
from typing import Final

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from estcore.der import CONTEXT_0, CONTEXT_1, CONTEXT_2, SEQUENCE, algorithm_identifier, tlv
from estcore.der_reader import OCTET_STRING

_NULL = b"\x05\x00"


class KeyWrap(Enum):
    """AES key wrap (RFC 3394); the value is the length of the key-encryption key in octets."""

    AES_128 = 16
    AES_192 = 24
    AES_256 = 32

    @property
    def oid(self) -> str:
        """Dotted; RFC 3565 section 2.3.2."""
        return _KEY_WRAP_OIDS[self]

    @property
    def identifier_der(self) -> bytes:
        """The AlgorithmIdentifier: parameters are absent (RFC 3565 section 2.3.2)."""
        return algorithm_identifier(self.oid)

    def wrap(self, content_key: bytes, *, key_encryption_key: bytes) -> bytes:
        """RFC 3394 section 2.2.1."""
        self._check(key_encryption_key)
        return keywrap.aes_key_wrap(key_encryption_key, content_key)

    def unwrap(self, encrypted_key: bytes, *, key_encryption_key: bytes) -> bytes:
        """RFC 3394 section 2.2.2. Raises what the library raises where the key is another one or the octets were altered."""
        self._check(key_encryption_key)
        return keywrap.aes_key_unwrap(key_encryption_key, encrypted_key)

    def _check(self, key_encryption_key: bytes) -> None:
        if len(key_encryption_key) != self.value:
            raise ValueError(f"{self.name} wraps with {self.value} octets")


_KEY_WRAP_OIDS = {
    KeyWrap.AES_128: "2.16.840.1.101.3.4.1.5",
    KeyWrap.AES_192: "2.16.840.1.101.3.4.1.25",
    KeyWrap.AES_256: "2.16.840.1.101.3.4.1.45",
}
KEY_WRAPS: Final = {
    # RFC 3565 has the parameters absent; RFC 5753 section 7.2 knows senders that put a NULL.
    algorithm_identifier(wrap.oid, parameters): wrap
    for wrap in KeyWrap
    for parameters in (b"", _NULL)
}
"""By the DER of the AlgorithmIdentifier."""


class KeyTransport(StrEnum):
    """RSA encryption of the content key."""

    OAEP_SHA256 = "RSAES-OAEP with SHA-256"
    OAEP_SHA384 = "RSAES-OAEP with SHA-384"
    OAEP_SHA512 = "RSAES-OAEP with SHA-512"
    PKCS1_V15 = "rsaEncryption"

    @property
    def identifier_der(self) -> bytes:
        """The AlgorithmIdentifier with its parameters (RFC 4055 section 4.1, RFC 3370 section 4.2.1)."""
        return _KEY_TRANSPORT_IDENTIFIERS[self]

    def encrypt(self, content_key: bytes, public_key: rsa.RSAPublicKey) -> bytes:
        """As long as the modulus."""
        return public_key.encrypt(content_key, _PADDINGS[self])

    def decrypt(self, encrypted_key: bytes, private_key: rsa.RSAPrivateKey) -> bytes:
        """The content key. With PKCS1_V15 altered octets may give a random one (the library's implicit rejection), else it raises."""
        return private_key.decrypt(encrypted_key, _PADDINGS[self])


RSAES_OAEP_OID: Final = "1.2.840.113549.1.1.7"
RSA_ENCRYPTION_OID: Final = "1.2.840.113549.1.1.1"
_MGF1_OID = "1.2.840.113549.1.1.8"
_OAEP: dict[KeyTransport, tuple[str, hashes.HashAlgorithm]] = {
    KeyTransport.OAEP_SHA256: ("2.16.840.1.101.3.4.2.1", hashes.SHA256()),
    KeyTransport.OAEP_SHA384: ("2.16.840.1.101.3.4.2.2", hashes.SHA384()),
    KeyTransport.OAEP_SHA512: ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
}
_PADDINGS: dict[KeyTransport, padding.AsymmetricPadding] = {
    KeyTransport.PKCS1_V15: padding.PKCS1v15(),
    **{name: padding.OAEP(mgf=padding.MGF1(digest), algorithm=digest, label=None) for name, (_, digest) in _OAEP.items()},
}


def _oaep_identifier(digest_oid: str, *, digest_parameters: bytes = _NULL, mask_parameters: bytes = _NULL) -> bytes:
    """RFC 4055 section 4.1: MGF1 with the same hash, no label. NULL after a hash is what RFC 4055 section 2.1 says to write."""
    mask = algorithm_identifier(_MGF1_OID, algorithm_identifier(digest_oid, mask_parameters))
    digest = algorithm_identifier(digest_oid, digest_parameters)
    return algorithm_identifier(RSAES_OAEP_OID, tlv(SEQUENCE, tlv(CONTEXT_0, digest) + tlv(CONTEXT_1, mask)))


_KEY_TRANSPORT_IDENTIFIERS = {
    KeyTransport.PKCS1_V15: algorithm_identifier(RSA_ENCRYPTION_OID, _NULL),
    **{name: _oaep_identifier(oid) for name, (oid, _) in _OAEP.items()},
}
KEY_TRANSPORTS: Final = {
    algorithm_identifier(RSA_ENCRYPTION_OID, _NULL): KeyTransport.PKCS1_V15,
    algorithm_identifier(RSA_ENCRYPTION_OID): KeyTransport.PKCS1_V15,
    **{
        _oaep_identifier(oid, digest_parameters=digest_parameters, mask_parameters=mask_parameters): name
        for name, (oid, _) in _OAEP.items()
        for digest_parameters, mask_parameters in product((_NULL, b""), repeat=2)
    },
}
"""By the DER of the AlgorithmIdentifier, with what senders write after a hash: NULL or nothing."""


class KeyAgreement(StrEnum):
    """Ephemeral-static ECDH with the X9.63 KDF (RFC 5753 section 3.1)."""

    STD_DH_SHA256 = "dhSinglePass-stdDH-sha256kdf-scheme"
    STD_DH_SHA384 = "dhSinglePass-stdDH-sha384kdf-scheme"

    @property
    def oid(self) -> str:
        """Dotted; RFC 5753 section 7.1.4."""
        return KEY_AGREEMENT_OIDS[self]

    def identifier_der(self, wrap: KeyWrap) -> bytes:
        """The AlgorithmIdentifier, whose parameter is that of the key wrap."""
        return algorithm_identifier(self.oid, wrap.identifier_der)

    def agree(
        self,
        private_key: ec.EllipticCurvePrivateKey,
        public_key: ec.EllipticCurvePublicKey,
        *,
        wrap: KeyWrap,
        wrap_identifier_der: bytes,
        user_keying_material: bytes | None = None,
    ) -> bytes:
        """The key-encryption key that both sides come to; `wrap_identifier_der` is the AlgorithmIdentifier as it stands in the message.

        RFC 5753 section 7.2: ECC-CMS-SharedInfo holds the wrap, the ukm if there is one and the length of the key in bits.
        """
        ukm = b"" if user_keying_material is None else tlv(CONTEXT_0, tlv(OCTET_STRING, user_keying_material))
        bits = tlv(CONTEXT_2, tlv(OCTET_STRING, (8 * wrap.value).to_bytes(4)))
        shared_info = tlv(SEQUENCE, wrap_identifier_der + ukm + bits)
        secret = private_key.exchange(ec.ECDH(), public_key)
        return X963KDF(algorithm=_KDF_HASHES[self], length=wrap.value, sharedinfo=shared_info).derive(secret)


KEY_AGREEMENT_OIDS: Final = {
    KeyAgreement.STD_DH_SHA256: "1.3.132.1.11.1",
    KeyAgreement.STD_DH_SHA384: "1.3.132.1.11.2",
}
_KDF_HASHES: dict[KeyAgreement, hashes.HashAlgorithm] = {
    KeyAgreement.STD_DH_SHA256: hashes.SHA256(),
    KeyAgreement.STD_DH_SHA384: hashes.SHA384(),
}
KEY_AGREEMENTS: Final = {
    algorithm_identifier(scheme.oid, wrap_identifier): (scheme, wrap, wrap_identifier)
    for scheme in KeyAgreement
    for wrap_identifier, wrap in KEY_WRAPS.items()
}
"""By the DER of the AlgorithmIdentifier: the scheme, the wrap, and the wrap's own AlgorithmIdentifier as it stands in it."""


def uncompressed_point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """RFC 5480 section 2.2."""
    return public_key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
