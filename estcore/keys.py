"""Which keys may have a certificate, and how they are made.

An allow-list of algorithms and sizes, and the known ways in which an RSA key of the right size is weak. Off-curve points, the point at
infinity and explicit curve parameters do not get as far as a key object: `cryptography` refuses to load them.
"""

import functools
import math
import re
from collections.abc import Collection
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from estcore.errors import BadCsr
from estcore.spec_part import KeyAlgorithm

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
SignatureHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_EXPONENT: Final = 65537
"""The one public exponent: smaller ones are unsafe with bad padding, larger ones only slow everybody down (FIPS 186-5 section 5.1)."""
SMALL_FACTOR_BOUND: Final = 1 << 16
"""A modulus with a prime factor under this came from a broken generator (as badkeys does, https://badkeys.info/docs/smallfactors.html)."""
FERMAT_ROUNDS: Final = 100
"""Primes that are too close fall within a handful of rounds (CVE-2022-26320); Boulder and badkeys try about this many."""
PATTERN_OCTETS: Final = 16
"""So many equal octets in a row appear in no random modulus (as badkeys does)."""

_RSA_SIZES = {2048: KeyAlgorithm.RSA_2048, 3072: KeyAlgorithm.RSA_3072, 4096: KeyAlgorithm.RSA_4096}
_CURVES = {"secp256r1": KeyAlgorithm.ECDSA_P256, "secp384r1": KeyAlgorithm.ECDSA_P384, "secp521r1": KeyAlgorithm.ECDSA_P521}
_LISTED = "use ECDSA P-256, P-384 or P-521, RSA with 2048, 3072 or 4096 bits, or Ed25519"
_SHA256 = hashes.SHA256()
_CURVE_HASHES: dict[str, SignatureHash] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
_PATTERN = re.compile(rb"(.)\1{%d}" % (PATTERN_OCTETS - 1), re.DOTALL)
_ED25519_FIELD = (1 << 255) - 19
_ED25519_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_ED25519_SMALL_ORDERS = frozenset({0, 1, _ED25519_FIELD - 1, _ED25519_ORDER_8, _ED25519_FIELD - _ED25519_ORDER_8})
"""The y-coordinates of the eight points whose order divides the cofactor (RFC 7748 section 7, RFC 8032 section 5.1)."""
_ROCA_PRIMES_BELOW = 702
"""M of the weak library holds the first 126 primes for keys of 2,048 bits, more for longer ones."""


def key_algorithm(public_key: object) -> KeyAlgorithm:
    """Return the listed algorithm of a public key of the `cryptography` library; raises BadCsr for any other kind, curve or size."""
    match public_key:
        case ec.EllipticCurvePublicKey():
            algorithm = _CURVES.get(public_key.curve.name)
            name = f"EC on {public_key.curve.name}"
        case rsa.RSAPublicKey():
            algorithm = _RSA_SIZES.get(public_key.key_size)
            name = f"RSA with {public_key.key_size} bits"
        case ed25519.Ed25519PublicKey():
            algorithm, name = KeyAlgorithm.ED25519, "Ed25519"
        case _:
            algorithm, name = None, type(public_key).__name__.removesuffix("PublicKey")
    if algorithm is None:
        raise BadCsr(f"the key is {name}, which is not accepted; {_LISTED}", reason="KeyNotAllowed")
    return algorithm


def check_public_key(public_key: object, *, refused_spki: Collection[bytes] = ()) -> KeyAlgorithm:
    """Check that a key is of a listed algorithm and not known to be weak, and return the algorithm.

    `refused_spki` are DER SubjectPublicKeyInfo that nobody may have a certificate for, such as the CA's own. An RSA key takes about a
    millisecond. Raises BadCsr.
    """
    algorithm = key_algorithm(public_key)
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        _check_rsa(numbers.n, numbers.e)
    elif isinstance(public_key, ed25519.Ed25519PublicKey):
        _check_ed25519(public_key.public_bytes_raw())
    if refused_spki and spki_der(public_key) in refused_spki:
        raise BadCsr("this key belongs to a CA or is blocked; make a new key", reason="KeyRefused")
    return algorithm


def spki_der(public_key: object) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a key of a listed algorithm; an EC point is uncompressed (RFC 5480 section 2.2)."""
    if not isinstance(public_key, PublicKey):
        raise TypeError(f"not a public key that can have a certificate: {type(public_key).__name__}")
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def generate_private_key(algorithm: KeyAlgorithm) -> PrivateKey:
    """Make a key; the randomness is OpenSSL's."""
    match algorithm:
        case KeyAlgorithm.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.ECDSA_P521:
            return ec.generate_private_key(ec.SECP521R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            return rsa.generate_private_key(public_exponent=RSA_EXPONENT, key_size=int(algorithm.removeprefix("RSA-")))


def signature_hash(key: PrivateKey | PublicKey) -> SignatureHash | None:
    """Return the hash that a key signs with: SHA-256 for RSA, that of the curve for ECDSA (RFC 5480 section 4), none for Ed25519."""
    match key:
        case ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey():
            return None
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            return _CURVE_HASHES.get(key.curve.name, _SHA256)
        case _:
            return _SHA256


def _check_rsa(n: int, e: int) -> None:
    if e != RSA_EXPONENT:
        raise BadCsr(f"the RSA public exponent is not {RSA_EXPONENT}; make a new key", reason="WeakKey")
    weakness = None
    if math.gcd(n, _small_primes_product()) != 1:
        weakness = "has a small prime factor"
    elif _PATTERN.search(n.to_bytes((n.bit_length() + 7) // 8)):
        weakness = "holds a repeated pattern"
    elif all(n % prime in powers for prime, powers in _roca_subgroups()):
        weakness = "was made by a chip with the ROCA weakness (CVE-2017-15361)"
    elif _fermat_factors(n):
        weakness = "has two prime factors that are too close (CVE-2022-26320)"
    if weakness:
        raise BadCsr(f"the RSA key is weak: its modulus {weakness}; make a new key", reason="WeakKey")


def _check_ed25519(encoded: bytes) -> None:
    """No point of small order: there is no private key to it, and anybody can make signatures that it verifies."""
    y = int.from_bytes(encoded, "little") & ~(1 << 255)
    if y >= _ED25519_FIELD or y in _ED25519_SMALL_ORDERS:
        raise BadCsr("the Ed25519 key is a point of small order, or not in its one encoding; make a new key", reason="WeakKey")


def _fermat_factors(n: int) -> bool:
    """Whether Fermat's method finds n = (a - b)(a + b) within FERMAT_ROUNDS steps of a; a square counts."""
    a = math.isqrt(n)
    if a * a < n:
        a += 1
    rest = a * a - n
    for _ in range(FERMAT_ROUNDS):
        # A square is 0, 1, 4 or 9 modulo 16: three of four candidates need no root.
        if rest & 15 in (0, 1, 4, 9) and math.isqrt(rest) ** 2 == rest:
            return True
        rest += 2 * a + 1
        a += 1
    return False


def _primes(bound: int) -> list[int]:
    composite = bytearray(bound)
    primes = []
    for number in range(2, bound):
        if not composite[number]:
            primes.append(number)
            composite[number * number :: number] = b"\x01" * len(range(number * number, bound, number))
    return primes


@functools.cache
def _small_primes_product() -> int:
    return math.prod(_primes(SMALL_FACTOR_BOUND))


@functools.cache
def _roca_subgroups() -> tuple[tuple[int, frozenset[int]], ...]:
    """Each small prime with the powers of 65537 modulo it, where those are not everything.

    The weak library makes primes k·M + (65537^a mod M), M the product of the first primes: so modulo each of them the modulus is a
    power of 65537 (Nemec et al., "The Return of Coppersmith's Attack", 2017, section 3). A random modulus looks so with less than 2^-100.
    """
    subgroups = []
    for prime in _primes(_ROCA_PRIMES_BELOW):
        powers = frozenset(pow(RSA_EXPONENT, exponent, prime) for exponent in range(prime))
        if len(powers) < prime - 1:
            subgroups.append((prime, powers))
    return tuple(subgroups)
