"""The hashes, MACs and the password-based key derivation that CMC's proofs may name: an allow-list.

RFC 5274 section 4.1, RFC 4231 section 3.1, RFC 8018 section 5.2 and Appendix B. SHA-1 is known, and accepted only where an issuer's
policy says so. Algorithms are looked up by the octets of their AlgorithmIdentifier, with parameters of NULL or none: senders write both.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from estcore.der import INTEGER, SEQUENCE, algorithm_identifier, integer, object_identifier, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.errors import CmcFailed, CmcFailInfo

MAX_PBKDF2_ITERATIONS: Final = 100_000
"""About 30 ms of one core with SHA-256; anybody may send a message that asks for the work before it is known who sent it."""
MAX_SALT_OCTETS: Final = 1024
DEFAULT_PBKDF2_ITERATIONS: Final = 10_000
"""What we send: the secret is random and good for one enrolment, so the count protects little and costs the server on each try."""

_NULL = b"\x05\x00"
_PBKDF2_OID = "1.2.840.113549.1.5.12"


SHA256_DER: Final = algorithm_identifier("2.16.840.1.101.3.4.2.1")
"""AlgorithmIdentifier of SHA-256 without parameters (RFC 5754 section 2)."""
SHA1_DER: Final = algorithm_identifier("1.3.14.3.2.26")
HMAC_SHA256_DER: Final = algorithm_identifier("1.2.840.113549.2.9")
HMAC_SHA1_DER: Final = algorithm_identifier("1.3.6.1.5.5.8.1.2")
"""hMAC-SHA1 without parameters (RFC 3370 section 3.1)."""

_DIGEST_OIDS = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "1.3.14.3.2.26": "sha1",
}
_MAC_OIDS = {
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
    "1.2.840.113549.2.7": "sha1",
    "1.3.6.1.5.5.8.1.2": "sha1",
}
_DIGESTS = {algorithm_identifier(oid, parameters): name for oid, name in _DIGEST_OIDS.items() for parameters in (b"", _NULL)}
_MACS = {algorithm_identifier(oid, parameters): name for oid, name in _MAC_OIDS.items() for parameters in (b"", _NULL)}
"""DER AlgorithmIdentifier → name in hashlib."""


def digest(algorithm_der: bytes, content: bytes, *, accept_sha1: bool, what: str) -> bytes:
    """The hash of `content` by a DER AlgorithmIdentifier. Raises CmcFailed (badAlg), where `what` names the place."""
    return hashlib.new(_named(_DIGESTS, algorithm_der, accept_sha1=accept_sha1, what=what), content).digest()


def mac(algorithm_der: bytes, content: bytes, *, key: bytes, accept_sha1: bool, what: str) -> bytes:
    """The HMAC of `content` by a DER AlgorithmIdentifier. Raises CmcFailed (badAlg), where `what` names the place."""
    return hmac.digest(key, content, _named(_MACS, algorithm_der, accept_sha1=accept_sha1, what=what))


def _named(table: dict[bytes, str], algorithm_der: bytes, *, accept_sha1: bool, what: str) -> str:
    name = table.get(algorithm_der)
    if name is None:
        raise CmcFailed(f"{what} names an algorithm that is not accepted; use SHA-256 and HMAC-SHA256", fail_info=CmcFailInfo.BAD_ALG)
    if name == "sha1" and not accept_sha1:
        raise CmcFailed(
            f"{what} uses SHA-1, which this issuer does not accept (est.acceptSha1Proofs); use SHA-256", fail_info=CmcFailInfo.BAD_ALG
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pbkdf2:
    """The parameters of PBKDF2 as received or to be sent (RFC 8018 Appendix A.2); `key_octets` is None where they leave it out."""

    salt: bytes
    iterations: int
    digest: str
    """Of the HMAC that is the PRF, by its name in hashlib."""
    key_octets: int | None = None

    @property
    def parameters_der(self) -> bytes:
        """The SEQUENCE PBKDF2-params."""
        key_length = b"" if self.key_octets is None else integer(self.key_octets)
        # DEFAULT algid-hmacWithSHA1: DER leaves it out.
        prf = b"" if self.digest == "sha1" else algorithm_identifier(_PRF_OIDS[self.digest], _NULL)
        return tlv(SEQUENCE, tlv(OCTET_STRING, self.salt) + integer(self.iterations) + key_length + prf)

    @property
    def oid_and_parameters_der(self) -> bytes:
        """The content of the AlgorithmIdentifier, for places that tag it themselves."""
        return object_identifier(_PBKDF2_OID) + self.parameters_der

    def derive(self, password: bytes, *, key_octets: int) -> bytes:
        """The key. Raises CmcFailed (badAlg) where the parameters speak of another length."""
        if self.key_octets not in (None, key_octets):
            raise CmcFailed(
                f"PBKDF2 is to give {self.key_octets} octets where the algorithm takes {key_octets}", fail_info=CmcFailInfo.BAD_ALG
            )
        return hashlib.pbkdf2_hmac(self.digest, password, self.salt, self.iterations, key_octets)


_PRF_OIDS = {"sha256": "1.2.840.113549.2.9", "sha384": "1.2.840.113549.2.10", "sha512": "1.2.840.113549.2.11"}


def read_pbkdf2(algorithm: Reader, *, accept_sha1: bool, what: str) -> Pbkdf2:
    """Read PBKDF2 from within its AlgorithmIdentifier; no key is derived yet.

    Raises MalformedBody, or CmcFailed (badAlg) for another algorithm, a PRF that is not accepted and too many iterations.
    """
    if algorithm.oid() != _PBKDF2_OID:
        raise CmcFailed(f"{what} derives its key by other than PBKDF2 (RFC 5274 section 4.1)", fail_info=CmcFailInfo.BAD_ALG)
    parameters = algorithm.inside(SEQUENCE)
    algorithm.close()
    if not parameters.next_is(OCTET_STRING):
        raise CmcFailed(f"{what} takes the salt of PBKDF2 from elsewhere; write it into the parameters", fail_info=CmcFailInfo.BAD_ALG)
    salt = parameters.octets()
    iterations = parameters.integer()
    key_octets = parameters.integer() if parameters.next_is(INTEGER) else None
    prf_der = parameters.whole(SEQUENCE) if parameters.next_is(SEQUENCE) else HMAC_SHA1_DER
    parameters.close()
    if not 0 < iterations <= MAX_PBKDF2_ITERATIONS:
        raise CmcFailed(
            f"{what} asks for {_count(iterations)} iterations of PBKDF2; 1 to {MAX_PBKDF2_ITERATIONS} are accepted",
            fail_info=CmcFailInfo.BAD_ALG,
        )
    if not 0 < len(salt) <= MAX_SALT_OCTETS:
        raise CmcFailed(f"{what} has a salt of {len(salt)} octets; 1 to {MAX_SALT_OCTETS} are accepted", fail_info=CmcFailInfo.BAD_ALG)
    name = _named(_MACS, prf_der, accept_sha1=accept_sha1, what=f"the PBKDF2 of {what}")
    return Pbkdf2(salt=salt, iterations=iterations, digest=name, key_octets=key_octets)


def _count(number: int) -> str:
    return str(number) if abs(number) < 1 << 64 else "far too many"


def key_from_secret(algorithm_der: bytes, secret: bytes, *, accept_sha1: bool, what: str) -> bytes:
    """The MAC key of a secret: its hash, or PBKDF2 of it with a key of 32 octets unless the parameters say another length up to 64.

    RFC 5272 section 6.3.1.1 (keyGenAlgorithm), RFC 5274 section 4.1. Raises CmcFailed (badAlg), MalformedBody.
    """
    if algorithm_der in _DIGESTS:
        return digest(algorithm_der, secret, accept_sha1=accept_sha1, what=what)
    pbkdf2 = read_pbkdf2(only(algorithm_der, what=what), accept_sha1=accept_sha1, what=what)
    key_octets = _DEFAULT_KEY_OCTETS if pbkdf2.key_octets is None else pbkdf2.key_octets
    if not _MIN_KEY_OCTETS <= key_octets <= _MAX_KEY_OCTETS:
        raise CmcFailed(
            f"{what} asks for a key of {_count(key_octets)} octets; {_MIN_KEY_OCTETS} to {_MAX_KEY_OCTETS} are accepted",
            fail_info=CmcFailInfo.BAD_ALG,
        )
    return pbkdf2.derive(secret, key_octets=key_octets)


_DEFAULT_KEY_OCTETS = 32
_MIN_KEY_OCTETS = 16
_MAX_KEY_OCTETS = 64


def same(proof: bytes, expected: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(proof, expected)
