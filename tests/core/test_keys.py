"""Which keys may have a certificate: an allow-list, and the known weaknesses of RSA (threats row 6)."""

import math
from functools import cache
from time import process_time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519

from estcore import keys
from estcore.errors import BadCsr
from estcore.issuer_spec import KeyAlgorithm
from tests import pki

TWO_TO_1023 = 1 << 1023
DSA_PARAMETERS = dsa.DSAParameterNumbers(p=(1 << 1023) + 1155, q=(1 << 159) + 27, g=2)  # of the right sizes, and never used


def is_prime(number: int) -> bool:
    """Miller and Rabin with the first primes as bases; enough for numbers that nobody chose to deceive it."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13):
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


SMALL_PRIMES_PRODUCT = math.prod(number for number in range(3, 1 << 16, 2) if all(number % d for d in range(3, math.isqrt(number) + 1, 2)))


def rough_after(number: int) -> int:
    """The first odd number from `number` on without a prime factor of 16 bits: as good as a prime for every check but primality."""
    number |= 1
    while math.gcd(number, SMALL_PRIMES_PRODUCT) != 1:
        number += 2
    return number


def first_primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


@cache
def roca_prime(start: int) -> int:
    """A prime as the weak library makes it: k·M + (65537^a mod M), M of the first 126 primes (Nemec et al. 2017, section 3)."""
    modulus = math.prod(first_primes(126))
    k = 3 * TWO_TO_1023 // 2 // modulus + start
    residue = pow(65537, 1000 + start, modulus)
    while not is_prime(k * modulus + residue):
        k += 1
    return k * modulus + residue


@cache
def honest_prime(number: int) -> int:
    """A prime of 1,024 bits with its two highest bits set."""
    numbers = pki.rsa_key(2048).private_numbers()
    return numbers.p if number == 0 else numbers.q


def modulus_of(*factors: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, math.prod(factors)).public_key()


@pytest.mark.spec("THREAT-06")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_key_of_each_listed_algorithm_is_made_known_and_accepted(algorithm: KeyAlgorithm) -> None:
    private_key = keys.generate_private_key(algorithm) if not algorithm.startswith("RSA") else pki.key(algorithm)
    public_key = private_key.public_key()
    assert keys.key_algorithm(public_key) == algorithm
    assert keys.check_public_key(public_key) == algorithm
    assert keys.spki_der(public_key) == pki.spki_der(public_key)


def test_an_rsa_key_is_made_of_the_size_asked_for() -> None:
    made = keys.generate_private_key(KeyAlgorithm.RSA_2048)
    assert isinstance(made, rsa.RSAPrivateKey)
    assert (made.key_size, made.public_key().public_numbers().e) == (2048, 65537)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (KeyAlgorithm.ECDSA_P256, hashes.SHA256),
        (KeyAlgorithm.ECDSA_P384, hashes.SHA384),
        (KeyAlgorithm.ECDSA_P521, hashes.SHA512),
        (KeyAlgorithm.RSA_2048, hashes.SHA256),
        (KeyAlgorithm.RSA_4096, hashes.SHA256),
        (KeyAlgorithm.ED25519, type(None)),
    ],
)
def test_a_key_signs_with_the_hash_of_its_strength(algorithm: KeyAlgorithm, expected: type) -> None:
    assert type(keys.signature_hash(pki.key(algorithm))) is expected
    assert type(keys.signature_hash(pki.key(algorithm).public_key())) is expected


@pytest.mark.spec("THREAT-06")
@pytest.mark.parametrize(
    ("public_key", "name"),
    [
        pytest.param(pki.rsa_key(1024).public_key(), "RSA with 1024 bits", id="RSA 1024"),
        pytest.param(modulus_of((1 << 2046) + 1), "RSA with 2047 bits", id="RSA 2047"),
        pytest.param(modulus_of((1 << 2048) + 1), "RSA with 2049 bits", id="RSA 2049"),
        pytest.param(modulus_of((1 << 2559) + 1), "RSA with 2560 bits", id="RSA 2560"),
        pytest.param(modulus_of((1 << 8191) + 1), "RSA with 8192 bits", id="RSA 8192"),
        pytest.param(pki.curve_key(ec.SECP192R1).public_key(), "EC on secp192r1", id="P-192"),
        pytest.param(pki.curve_key(ec.SECP224R1).public_key(), "EC on secp224r1", id="P-224"),
        pytest.param(pki.curve_key(ec.SECP256K1).public_key(), "EC on secp256k1", id="secp256k1"),
        pytest.param(pki.curve_key(ec.BrainpoolP384R1).public_key(), "EC on brainpoolP384r1", id="brainpoolP384r1"),
        pytest.param(ed448.Ed448PrivateKey.generate().public_key(), "Ed448", id="Ed448"),
        pytest.param(x25519.X25519PrivateKey.generate().public_key(), "X25519", id="X25519"),
        pytest.param(x448.X448PrivateKey.generate().public_key(), "X448", id="X448"),
        pytest.param(dsa.DSAPublicNumbers(4, DSA_PARAMETERS).public_key(), "DSA", id="DSA"),
    ],
)
def test_keys_that_are_not_listed_are_refused_by_name(public_key: object, name: str) -> None:
    with pytest.raises(BadCsr, match=f"the key is {name}, which is not accepted; use ECDSA P-256") as refused:
        keys.check_public_key(public_key)
    assert refused.value.reason == "KeyNotAllowed"


def weak() -> dict[str, tuple[rsa.RSAPublicKey, str]]:
    p, q = honest_prime(0), honest_prime(1)
    sparse = TWO_TO_1023 | (TWO_TO_1023 >> 1)
    return {
        "e = 3": (modulus_of(p, q, exponent=3), "exponent is not 65537"),
        "e = 65539": (modulus_of(p, q, exponent=65539), "exponent is not 65537"),
        "a factor of 3": (modulus_of(3, (1 << 2046) // 3 * 2 | 1), "small prime factor"),
        "a factor of 65521, the largest prime of 16 bits": (modulus_of(65521, rough_after((1 << 2047) // 65521 + 1)), "small prime factor"),
        "an even modulus": (modulus_of(2, p, q >> 1), "small prime factor"),
        "a square": (modulus_of(p, p), "too close"),
        "the next prime": (modulus_of(p, rough_after(p + 2)), "too close"),
        "primes 2^500 apart": (modulus_of(p, rough_after(p + (1 << 500))), "too close"),
        "ROCA": (modulus_of(roca_prime(0), roca_prime(50)), "ROCA"),
        "a pattern in the modulus": (modulus_of(p, rough_after(pattern_over(p))), "repeated pattern"),
        "primes of few bits": (modulus_of(rough_after(sparse), rough_after(sparse | (1 << 700))), "repeated pattern"),
        "one octet over and over": (modulus_of(rough_after(int.from_bytes(b"\xab" * 256))), "repeated pattern"),
    }


def pattern_over(p: int) -> int:
    """What p is multiplied with for a modulus that holds 17 equal octets in its upper half."""
    upper = b"\xc3" + bytes(range(1, 60)) + b"\x77" * 17 + bytes(range(60, 111))
    return (int.from_bytes(upper) << 1024) // p


WEAK = weak()


@pytest.mark.spec("THREAT-06", "EST-ENROLL-10")
@pytest.mark.parametrize("name", WEAK)
def test_rsa_keys_that_are_known_to_be_weak_are_refused(name: str) -> None:
    public_key, reason = WEAK[name]
    with pytest.raises(BadCsr, match=reason) as refused:
        keys.check_public_key(public_key)
    assert refused.value.reason == "WeakKey"


@pytest.mark.spec("THREAT-06")
def test_the_key_of_a_ca_is_refused_to_everybody() -> None:
    public_key = pki.key().public_key()
    keys.check_public_key(public_key, refused_spki={pki.spki_der(pki.key(owner="CA").public_key())})
    with pytest.raises(BadCsr, match="belongs to a CA or is blocked"):
        keys.check_public_key(public_key, refused_spki={pki.spki_der(public_key)})


def test_what_is_no_public_key_has_no_spki() -> None:
    with pytest.raises(TypeError):
        keys.spki_der(x25519.X25519PrivateKey.generate().public_key())


@pytest.mark.spec("THREAT-06")
def test_checking_the_largest_key_takes_a_few_milliseconds() -> None:
    public_key = pki.key(KeyAlgorithm.RSA_4096).public_key()
    keys.check_public_key(public_key)
    start = process_time()
    keys.check_public_key(public_key)
    assert process_time() - start < 0.01


def test_an_ed25519_key_is_one() -> None:
    assert isinstance(keys.generate_private_key(KeyAlgorithm.ED25519), ed25519.Ed25519PrivateKey)


# ---- Ed25519: points without a private key

P25519, ORDER_25519 = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D25519 = -121665 * pow(121666, -1, P25519) % P25519
Point = tuple[int, int]


def added(a: Point, b: Point) -> Point:
    """The addition law of RFC 8032 section 5.1.4, in affine coordinates."""
    product = D25519 * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P25519)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P25519)
    return x % P25519, y % P25519


def times(number: int, point: Point) -> Point:
    result = (0, 1)
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    return result


def points_from(y: int) -> list[Point]:
    """The points with this y, if there are any (RFC 8032 section 5.1.3)."""
    square = (y * y - 1) * pow(D25519 * y * y + 1, -1, P25519) % P25519
    x = pow(square, (P25519 + 3) // 8, P25519)
    if x * x % P25519 != square:
        x = x * pow(2, (P25519 - 1) // 4, P25519) % P25519
    return [(x, y), (-x % P25519, y)] if x * x % P25519 == square else []


@cache
def small_orders() -> frozenset[Point]:
    """Any point times the order of the large subgroup lies among the eight, a cyclic group: the first of order 8 gives all."""
    multiples = (times(ORDER_25519, point) for y in range(2, 40) for point in points_from(y))
    groups = (frozenset(times(number, point) for number in range(8)) for point in multiples)
    return next(group for group in groups if len(group) == 8)


def ed25519_key(y: int, sign: int = 0) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes((y | sign << 255).to_bytes(32, "little"))


def test_anybody_can_sign_for_the_neutral_point_of_ed25519() -> None:
    """Why such keys must be refused: s = 0 and R = the neutral point is a signature of everything."""
    ed25519_key(1).verify((1).to_bytes(32, "little") + bytes(32), b"whatever")


@pytest.mark.spec("THREAT-06", "THREAT-07")
@pytest.mark.parametrize("sign", [0, 1])
def test_ed25519_points_of_small_order_are_refused(sign: int) -> None:
    points = small_orders()
    assert len(points) == 8
    assert all(times(8, point) == (0, 1) for point in points)
    for _, y in points:
        with pytest.raises(BadCsr, match="small order") as refused:
            keys.check_public_key(ed25519_key(y, sign))
        assert refused.value.reason == "WeakKey"


@pytest.mark.spec("THREAT-06")
@pytest.mark.parametrize("y", [P25519, P25519 + 1, P25519 + 3, 2**255 - 1])
def test_an_ed25519_key_beyond_the_field_is_refused(y: int) -> None:
    with pytest.raises(BadCsr, match="not in its one encoding"):
        keys.check_public_key(ed25519_key(y))


def test_ordinary_ed25519_keys_are_accepted() -> None:
    for _ in range(50):
        assert keys.check_public_key(ed25519.Ed25519PrivateKey.generate().public_key()) is KeyAlgorithm.ED25519
