"""Proof-of-possession: the key of a CSR, and that it signed the CSR.

RFC 2986 section 3 and RFC 7030 section 3.4. An allow-list of encodings of keys and of signature algorithms, both by their octets.
"""

from hashlib import sha1, sha256
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from estcore.der import CONTEXT_0, CONTEXT_1, CONTEXT_2, SEQUENCE, algorithm_identifier, integer, tlv
from estcore.errors import BadCsr
from estcore.foreign import foreign
from estcore.keys import PublicKey, check_public_key


def load_public_key(spki: bytes) -> PublicKey:
    """Load a DER SubjectPublicKeyInfo of a listed algorithm in its one encoding; weaknesses of RSA keys are not looked for.

    Raises BadCsr.
    """
    key = foreign(
        lambda: serialization.load_der_public_key(spki),
        lambda: BadCsr("the public key cannot be read: a kind, a curve or parameters that are not accepted", reason="KeyNotAllowed"),
    )
    if not spki.startswith(_SPKI_BEGINNINGS.get(len(spki), _NEVER)):
        check_public_key(key)
        raise BadCsr(
            "the public key is not in the usual encoding (named curve, uncompressed point; rsaEncryption with NULL)", reason="KeyNotAllowed"
        )
    return cast("PublicKey", key)


_SPKI_BEGINNINGS = {
    91: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    120: bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
    158: bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"),
    44: bytes.fromhex("302a300506032b6570032100"),
    294: bytes.fromhex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100"),
    422: bytes.fromhex("308201a2300d06092a864886f70d01010105000382018f003082018a0282018100"),
    550: bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100"),
}
"""How the SubjectPublicKeyInfo of each listed key begins, by its octets: P-256, -384 and -521, Ed25519, RSA-2048, -3072, -4096, e = 65537.

One key, one encoding: no compressed point, no key restricted to RSASSA-PSS, nothing that our certificate would write otherwise.
"""
_NEVER = b"\xff"

_NULL = b"\x05\x00"


def _pss_identifiers() -> dict[bytes, hashes.HashAlgorithm]:
    """RSASSA-PSS with the one sane set of parameters per hash (RFC 4055 section 3.1): MGF1 of the same hash, salt as long as the hash."""
    identifiers: dict[bytes, hashes.HashAlgorithm] = {}
    for oid, digest in _DIGESTS.items():
        for hash_parameters in (_NULL, b""):
            hash_identifier = algorithm_identifier(oid, hash_parameters)
            parameters = (
                tlv(CONTEXT_0, hash_identifier)
                + tlv(CONTEXT_1, algorithm_identifier("1.2.840.113549.1.1.8", hash_identifier))
                + tlv(CONTEXT_2, integer(digest.digest_size))
            )
            identifiers[algorithm_identifier("1.2.840.113549.1.1.10", tlv(SEQUENCE, parameters))] = digest
    return identifiers


_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_ECDSA: dict[bytes, ec.EllipticCurveSignatureAlgorithm] = {
    algorithm_identifier("1.2.840.10045.4.3.2"): ec.ECDSA(hashes.SHA256()),
    algorithm_identifier("1.2.840.10045.4.3.3"): ec.ECDSA(hashes.SHA384()),
    algorithm_identifier("1.2.840.10045.4.3.4"): ec.ECDSA(hashes.SHA512()),
}
_RSA: dict[bytes, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]] = {
    **{
        # RFC 4055 section 5: parameters are NULL, and absent ones are accepted.
        algorithm_identifier(oid, parameters): (padding.PKCS1v15(), digest)
        for oid, digest in zip(("1.2.840.113549.1.1.11", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.13"), _DIGESTS.values(), strict=True)
        for parameters in (_NULL, b"")
    },
    **{
        identifier: (padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size), digest)
        for identifier, digest in _pss_identifiers().items()
    },
}
_ED25519 = algorithm_identifier("1.3.101.112")
"""Signature algorithms by the DER of their AlgorithmIdentifier, parameters included: what is not here is refused.

Missing on purpose: SHA-1 and MD5 (collisions), SHA-224 (weaker than any key we accept), SHA-3 and Ed448 (nothing sends them), and
RSASSA-PSS with its SHA-1 defaults or with a salt of another length than the hash.
"""


def verify(public_key: PublicKey, *, signed: bytes, algorithm: bytes, signature: bytes) -> None:
    """Verify the signature of a CSR by its own key; `algorithm` is the DER AlgorithmIdentifier. Raises BadCsr."""
    try:
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(signature, signed, _ECDSA[algorithm])
        elif isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, signed, *_RSA[algorithm])
        elif algorithm == _ED25519:
            public_key.verify(signature, signed)
        else:
            raise KeyError(algorithm)
    except KeyError as error:
        raise BadCsr(
            "the CSR's signature algorithm is not accepted for its key; use ECDSA or RSA with SHA-256, SHA-384 or SHA-512, or Ed25519"
            " (RSASSA-PSS with a salt as long as the hash)",
            reason="SignatureAlgorithm",
        ) from error
    except InvalidSignature as error:
        raise BadCsr("the CSR's signature is not valid for its own public key", reason="BadSignature") from error


_NO_SIGNATURE = frozenset(algorithm_identifier("1.3.6.1.5.5.7.6.2", parameters) for parameters in (_NULL, b""))
"""id-alg-noSignature (RFC 5272 Appendix C.1): parameters are NULL, and absent ones are accepted."""


def is_no_signature(algorithm: bytes) -> bool:
    """Whether the DER AlgorithmIdentifier is id-alg-noSignature, which proves nothing."""
    return algorithm in _NO_SIGNATURE


def check_no_signature(*, signed: bytes, signature: bytes) -> None:
    """Check that the value of an id-alg-noSignature is the hash of what it stands under: SHA-256, or SHA-1 as old clients have it.

    It guards against damage only. Raises BadCsr.
    """
    if signature not in (sha256(signed).digest(), sha1(signed, usedforsecurity=False).digest()):
        raise BadCsr("the CSR's noSignature value is not the hash of the CSR (RFC 5272 Appendix C.1)", reason="BadSignature")
