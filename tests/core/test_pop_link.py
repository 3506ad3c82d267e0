"""RFC 5272 section 6.3.1: every certification request of a message signs the MAC of the message's random value under the secret."""

import hashlib
import hmac
from dataclasses import replace

import pytest
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc6402

from estcore import cert_template, crmf, pkcs10, pop_link
from estcore.certification_request import CertificationRequest
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from tests import pki

SECRET = "correct horse battery"
RANDOM = bytes(range(64))
SHA256 = pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1"))
SHA1 = pki.sequence(pki.oid("1.3.14.3.2.26"))
HMAC_SHA256 = pki.sequence(pki.oid("1.2.840.113549.2.9"))
HMAC_SHA1 = pki.sequence(pki.oid("1.3.6.1.5.5.8.1.2"))


def value(witness: bytes, key_algorithm: bytes = SHA256, mac_algorithm: bytes = HMAC_SHA256) -> bytes:
    return pki.sequence(key_algorithm, mac_algorithm, pki.tlv(0x04, witness))


def witness(secret: str = SECRET, random: bytes = RANDOM, name: str = "sha256") -> bytes:
    """By Python's own hmac."""
    return hmac.new(hashlib.new(name, secret.encode()).digest(), random, name).digest()


def request(v2: bytes | None = None, v1: bytes | None = None) -> CertificationRequest:
    return replace(pkcs10.parse(pki.csr()), pop_link_witness_v2_der=v2, pop_link_witness=v1)


def refusal(of: CertificationRequest, *, random: bytes | None = RANDOM, accept_sha1: bool = False) -> CmcFailed:
    with pytest.raises(CmcFailed) as raised:
        pop_link.verify(of, secret=SECRET, random=random, accept_sha1=accept_sha1)
    assert SECRET not in raised.value.message
    return raised.value


@pytest.mark.spec("EST-CMC-22", "EST-CMC-37")
def test_a_built_witness_is_the_hmac_of_r_under_the_hash_of_the_secret() -> None:
    built = pop_link.build_v2(secret=SECRET, random=RANDOM)
    decoded, rest = decode(built, asn1Spec=rfc6402.PopLinkWitnessV2())
    assert rest == b""
    assert str(decoded["keyGenAlgorithm"]["algorithm"]) == "2.16.840.1.101.3.4.2.1"
    assert str(decoded["macAlgorithm"]["algorithm"]) == "1.2.840.113549.2.9"
    assert bytes(decoded["witness"]) == witness()
    assert encode(decoded) == built
    pop_link.verify(request(built), secret=SECRET, random=RANDOM)


@pytest.mark.spec("EST-CMC-22")
def test_the_witness_is_read_from_a_pkcs10_attribute() -> None:
    csr = pkcs10.parse(pki.raw_csr(pki.attribute(pop_link.POP_LINK_WITNESS_V2_OID, value(witness()))))
    pop_link.verify(csr, secret=SECRET, random=RANDOM)


@pytest.mark.spec("EST-CMC-22")
def test_the_witness_is_read_from_a_crmf_control() -> None:
    template = cert_template.build(subject=pki.name(), spki_der=pki.spki_der(pki.key().public_key()))
    message = crmf.build(pki.key(), template, cert_req_id=1, controls={pop_link.POP_LINK_WITNESS_V2_OID: value(witness())})
    pop_link.verify(crmf.parse(message, now=pki.EPOCH).request, secret=SECRET, random=RANDOM)


@pytest.mark.spec("EST-CMC-22", "THREAT-17")
@pytest.mark.parametrize(
    "of",
    [
        pytest.param(request(), id="no witness"),
        pytest.param(request(value(witness("wrong horse battery"))), id="another secret"),
        pytest.param(request(value(witness(random=bytes(64)))), id="another R"),
        pytest.param(request(value(witness(random=RANDOM[:-1]))), id="a shorter R"),
        pytest.param(request(value(witness()[:-1])), id="a witness cut off"),
        pytest.param(request(value(b"")), id="an empty witness"),
    ],
)
def test_a_request_that_is_not_linked_is_pop_failed(of: CertificationRequest) -> None:
    assert refusal(of).fail_info is CmcFailInfo.POP_FAILED


@pytest.mark.spec("EST-CMC-22", "THREAT-17")
@pytest.mark.parametrize("random", [None, b"", bytes(15), bytes(1025)])
def test_a_message_without_a_random_value_of_good_length_links_nothing(random: bytes | None) -> None:
    assert refusal(request(value(witness(random=random or b""))), random=random).fail_info is CmcFailInfo.POP_FAILED


@pytest.mark.spec("EST-CMC-22", "THREAT-17")
def test_one_request_without_witness_fails_and_is_named() -> None:
    good, bad = request(value(witness())), request()
    pop_link.verify_all({(1,): good, (5, 2): good}, secret=SECRET, random=RANDOM)
    with pytest.raises(CmcFailed) as raised:
        pop_link.verify_all({(1,): good, (5, 2): bad, (3,): good}, secret=SECRET, random=RANDOM)
    assert raised.value.fail_info is CmcFailInfo.POP_FAILED
    assert raised.value.body_parts == ((5, 2),)


@pytest.mark.spec("EST-CMC-22", "EST-CMC-37")
def test_version_1_is_sha1_and_accepted_only_where_the_policy_says_so() -> None:
    old = request(v1=witness(name="sha1"))
    pop_link.verify(old, secret=SECRET, random=RANDOM, accept_sha1=True)
    assert refusal(old).fail_info is CmcFailInfo.BAD_ALG
    assert refusal(request(v1=witness())).fail_info is CmcFailInfo.BAD_ALG
    assert refusal(request(v1=witness(name="sha1")[:-1]), accept_sha1=True).fail_info is CmcFailInfo.POP_FAILED


@pytest.mark.spec("EST-CMC-22")
def test_a_request_with_both_witnesses_needs_both_right() -> None:
    right, wrong = value(witness()), value(witness(random=bytes(64)))
    pop_link.verify(request(right, witness(name="sha1")), secret=SECRET, random=RANDOM, accept_sha1=True)
    assert refusal(request(right, bytes(20)), accept_sha1=True).fail_info is CmcFailInfo.POP_FAILED
    assert refusal(request(wrong, witness(name="sha1")), accept_sha1=True).fail_info is CmcFailInfo.POP_FAILED


def pbkdf2(iterations: int = 1000, *, octets: int | None = None, prf: str | None = "1.2.840.113549.2.9", salt: bytes = b"salt") -> bytes:
    count = iterations.to_bytes(iterations.bit_length() // 8 + 1)
    length = b"" if octets is None else pki.tlv(0x02, octets.to_bytes(octets.bit_length() // 8 + 1))
    prf_der = b"" if prf is None else pki.sequence(pki.oid(prf), b"\x05\x00")
    return pki.sequence(pki.oid("1.2.840.113549.1.5.12"), pki.sequence(pki.tlv(0x04, salt), pki.tlv(0x02, count), length, prf_der))


@pytest.mark.spec("EST-CMC-22")
@pytest.mark.parametrize("octets", [None, 16, 64])
def test_the_key_may_be_derived_by_pbkdf2(octets: int | None) -> None:
    key = hashlib.pbkdf2_hmac("sha256", SECRET.encode(), b"salt", 1000, octets or 32)
    of = request(value(hmac.new(key, RANDOM, "sha256").digest(), pbkdf2(octets=octets)))
    pop_link.verify(of, secret=SECRET, random=RANDOM)


@pytest.mark.spec("EST-CMC-22", "EST-CMC-37", "THREAT-17")
@pytest.mark.parametrize(
    ("key_algorithm", "mac_algorithm"),
    [
        pytest.param(SHA1, HMAC_SHA256, id="SHA-1"),
        pytest.param(SHA256, HMAC_SHA1, id="HMAC-SHA1"),
        pytest.param(pbkdf2(prf=None), HMAC_SHA256, id="PBKDF2 with its default, HMAC-SHA1"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.2.5")), HMAC_SHA256, id="MD5"),
        pytest.param(SHA256, SHA256, id="a hash for the MAC"),
        pytest.param(pbkdf2(100_001), HMAC_SHA256, id="too many iterations"),
        pytest.param(pbkdf2(1 << 31), HMAC_SHA256, id="2^31 iterations"),
        pytest.param(pbkdf2(0), HMAC_SHA256, id="no iteration"),
        pytest.param(pbkdf2(octets=15), HMAC_SHA256, id="a key of 15 octets"),
        pytest.param(pbkdf2(octets=65), HMAC_SHA256, id="a key of 65 octets"),
        pytest.param(pbkdf2(octets=1 << 31), HMAC_SHA256, id="a key of 2 GiB"),
        pytest.param(pbkdf2(salt=b""), HMAC_SHA256, id="no salt"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.5.13"), pki.sequence()), HMAC_SHA256, id="PBES2"),
    ],
)
def test_other_algorithms_are_bad_alg(key_algorithm: bytes, mac_algorithm: bytes) -> None:
    assert refusal(request(value(bytes(32), key_algorithm, mac_algorithm))).fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("THREAT-08")
def test_a_witness_cut_off_or_followed_by_something_is_malformed() -> None:
    whole = value(witness())
    for bad in (*(whole[:end] for end in range(len(whole))), whole + b"\x00", pki.sequence(whole[2:], b"\x05\x00")):
        with pytest.raises(MalformedBody):
            pop_link.verify(request(bad), secret=SECRET, random=RANDOM)
