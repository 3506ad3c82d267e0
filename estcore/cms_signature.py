"""Signature algorithms of CMS: an allow-list, with what each asks of its digest and its parameters.

RFC 5754 (SHA-2 with RSA and ECDSA), RFC 3370 section 3.2 (rsaEncryption as signature algorithm), RFC 8419 (Ed25519), RFC 5272
Appendix C.1 (id-alg-noSignature). Missing on purpose: SHA-1 and MD5 (collisions), SHA-224 and SHA-3 (nothing sends them), RSASSA-PSS
(no CMC client known to us sends it), Ed448.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from estcore.der import algorithm_identifier
from estcore.errors import RequestError
from estcore.keys import PrivateKey, PublicKey, signature_hash

_NULL = b"\x05\x00"


class BadSignature(RequestError):
    """A signature in a CMS message is not valid, or of an algorithm that is not accepted. The sender must sign anew."""

    reason = "BadSignature"


class Digest(StrEnum):
    """A digest algorithm; the value is hashlib's name."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def identifier(self) -> bytes:
        """DER AlgorithmIdentifier, parameters absent (RFC 5754 section 2)."""
        return _DIGEST_IDENTIFIERS[self]

    def of(self, octets: bytes) -> bytes:
        """The digest."""
        return hashlib.new(self.value, octets).digest()


_DIGEST_OIDS = {
    Digest.SHA256: "2.16.840.1.101.3.4.2.1",
    Digest.SHA384: "2.16.840.1.101.3.4.2.2",
    Digest.SHA512: "2.16.840.1.101.3.4.2.3",
}
_DIGEST_IDENTIFIERS = {digest: algorithm_identifier(oid) for digest, oid in _DIGEST_OIDS.items()}
_DIGESTS = {algorithm_identifier(oid, parameters): digest for digest, oid in _DIGEST_OIDS.items() for parameters in (b"", _NULL)}
"""Parameters are absent when sent, and NULL is accepted (RFC 5754 section 2)."""
_HASHES: dict[Digest, hashes.HashAlgorithm] = {
    Digest.SHA256: hashes.SHA256(),
    Digest.SHA384: hashes.SHA384(),
    Digest.SHA512: hashes.SHA512(),
}
_HASH_NAMES = {"sha256": Digest.SHA256, "sha384": Digest.SHA384, "sha512": Digest.SHA512}


class _Kind(Enum):
    ECDSA = "ECDSA"
    RSA = "RSA PKCS #1 v1.5"
    ED25519 = "Ed25519"
    NONE = "no signature"


def _algorithms() -> dict[bytes, tuple[_Kind, Digest | None]]:
    """By DER AlgorithmIdentifier: the kind, and the digest where the algorithm names one itself."""
    algorithms: dict[bytes, tuple[_Kind, Digest | None]] = {
        algorithm_identifier("1.2.840.113549.1.1.1", _NULL): (_Kind.RSA, None),
        algorithm_identifier("1.3.101.112"): (_Kind.ED25519, Digest.SHA512),  # RFC 8419 section 3.1
        algorithm_identifier("1.3.6.1.5.5.7.6.2", _NULL): (_Kind.NONE, None),
    }
    for digest, rsa_number, ecdsa_number in ((Digest.SHA256, 11, 2), (Digest.SHA384, 12, 3), (Digest.SHA512, 13, 4)):
        algorithms[algorithm_identifier(f"1.2.840.10045.4.3.{ecdsa_number}")] = (_Kind.ECDSA, digest)
        for parameters in (_NULL, b""):  # RFC 5754 section 3.2: NULL when sent, absent is accepted
            algorithms[algorithm_identifier(f"1.2.840.113549.1.1.{rsa_number}", parameters)] = (_Kind.RSA, digest)
    return algorithms


_ALGORITHMS = _algorithms()
NO_SIGNATURE = algorithm_identifier("1.3.6.1.5.5.7.6.2", _NULL)
"""id-alg-noSignature: the "signature" is the digest of what would be signed, and proves nothing (RFC 5272 Appendix C.1)."""


def digest_of(identifier_der: bytes) -> Digest:
    """The digest of a DER AlgorithmIdentifier. Raises BadSignature."""
    digest = _DIGESTS.get(identifier_der)
    if digest is None:
        raise BadSignature("a digest algorithm of the message is not accepted; use SHA-256, SHA-384 or SHA-512", reason="DigestAlgorithm")
    return digest


def verify(
    public_key: PublicKey | None, *, signed: bytes, algorithm: bytes, digest: Digest, signature: bytes, allow_no_signature: bool = False
) -> None:
    """Verify a signature of CMS; `algorithm` is the DER AlgorithmIdentifier of the signature, `digest` that of its digestAlgorithm.

    id-alg-noSignature holds only where the caller says so, and then `public_key` is not looked at. Raises BadSignature.
    """
    kind, own_digest = _ALGORITHMS.get(algorithm, (None, None))
    if own_digest is not None and own_digest is not digest:
        raise BadSignature("the message's digest algorithm is not that of its signature algorithm", reason="SignatureAlgorithm")
    if kind is _Kind.NONE and allow_no_signature:
        if not hmac.compare_digest(signature, digest.of(signed)):
            raise BadSignature("the digest that stands for a signature is not that of the message")
        return
    try:
        match kind, public_key:
            case _Kind.ECDSA, ec.EllipticCurvePublicKey():
                public_key.verify(signature, signed, ec.ECDSA(_HASHES[digest]))
            case _Kind.RSA, rsa.RSAPublicKey():
                public_key.verify(signature, signed, padding.PKCS1v15(), _HASHES[digest])
            case _Kind.ED25519, ed25519.Ed25519PublicKey():
                public_key.verify(signature, signed)
            case _:
                raise BadSignature(
                    "the message's signature algorithm is not accepted for its signer's key; use ECDSA or RSA (PKCS #1 v1.5) with SHA-256,"
                    " SHA-384 or SHA-512, or Ed25519",
                    reason="SignatureAlgorithm",
                )
    except InvalidSignature as error:
        raise BadSignature("a signature of the message is not valid") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSigner:
    """A key that signs CMS messages, wherever it is kept: its digest, the DER AlgorithmIdentifier, and the function that signs octets."""

    digest: Digest
    algorithm: bytes
    sign: Callable[[bytes], bytes]


def message_signer(algorithm: bytes, sign: Callable[[bytes], bytes]) -> MessageSigner:
    """A signer by the DER AlgorithmIdentifier of its signatures, which must name its digest itself; raises ValueError for others."""
    _, digest = _ALGORITHMS.get(algorithm, (None, None))
    if digest is None:
        raise ValueError("a signature algorithm of CMS that names its digest is needed")
    return MessageSigner(digest=digest, algorithm=algorithm, sign=sign)


def signer_of(private_key: PrivateKey) -> MessageSigner:
    """A signer for a key in memory, by `keys.signature_hash`: ECDSA with the hash of the curve, RSA with SHA-256, Ed25519."""
    match private_key:
        case ec.EllipticCurvePrivateKey():
            digest = _HASH_NAMES[(signature_hash(private_key) or hashes.SHA256()).name]
            ecdsa = ec.ECDSA(_HASHES[digest])
            return MessageSigner(
                digest=digest, algorithm=_identifier(_Kind.ECDSA, digest), sign=lambda octets: private_key.sign(octets, ecdsa)
            )
        case rsa.RSAPrivateKey():
            pkcs1, sha256 = padding.PKCS1v15(), hashes.SHA256()
            return MessageSigner(
                digest=Digest.SHA256,
                algorithm=_identifier(_Kind.RSA, Digest.SHA256),
                sign=lambda octets: private_key.sign(octets, pkcs1, sha256),
            )
        case ed25519.Ed25519PrivateKey():
            return MessageSigner(digest=Digest.SHA512, algorithm=_identifier(_Kind.ED25519, Digest.SHA512), sign=private_key.sign)


def _identifier(kind: _Kind, digest: Digest) -> bytes:
    return next(identifier for identifier, algorithm in _ALGORITHMS.items() if algorithm == (kind, digest))
