"""RFC 5272 sections 6.2.1 to 6.2.3: who knows the secret is who it says, and nobody else; the order of concatenation is part of it."""

import hashlib
import hmac

import pytest
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc6402

from estcore import identity_proof
from estcore.errors import CmcFailed, CmcFailInfo, EstError, MalformedBody
from tests import pki

SECRET = "correct horse battery"
NAME = "gerät-17"
REQUESTS = pki.sequence(pki.tlv(0xA0, b"\x02\x01\x01" + pki.csr()))
SHA256 = pki.oid("2.16.840.1.101.3.4.2.1")
HMAC_SHA256 = pki.oid("1.2.840.113549.2.9")
SHA1 = pki.oid("1.3.14.3.2.26")
HMAC_SHA1 = pki.oid("1.3.6.1.5.5.8.1.2")
NULL = b"\x05\x00"


def value_v2(witness: bytes, hash_algorithm: bytes = SHA256, mac_algorithm: bytes = HMAC_SHA256) -> bytes:
    return pki.sequence(pki.sequence(hash_algorithm), pki.sequence(mac_algorithm), pki.tlv(0x04, witness))


def expected_witness(key_input: str, name: str = "sha256", data: bytes = REQUESTS) -> bytes:
    """Steps 1 to 3 of section 6.2.1 by Python's own hmac."""
    return hmac.new(hashlib.new(name, key_input.encode()).digest(), data, name).digest()


def check(
    value: bytes, *, secret: str = SECRET, identification: str | None = NAME, data: bytes = REQUESTS, accept_sha1: bool = False
) -> None:
    proof = identity_proof.parse_v2(value)
    identity_proof.verify(proof, secret=secret, identification=identification, req_sequence_der=data, accept_sha1=accept_sha1)


def refusal(value: bytes, **others: object) -> CmcFailed:
    with pytest.raises(CmcFailed) as raised:
        check(value, **others)  # type: ignore[arg-type]  # the table's keywords
    assert SECRET not in raised.value.message
    return raised.value


@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "EST-CMC-37")
@pytest.mark.parametrize("identification", [None, NAME])
def test_a_built_proof_is_sha256_then_hmac_sha256_over_the_req_sequence(identification: str | None) -> None:
    value = identity_proof.build_v2(secret=SECRET, identification=identification, req_sequence_der=REQUESTS)
    decoded, rest = decode(value, asn1Spec=rfc6402.IdentifyProofV2())
    assert rest == b""
    assert str(decoded[0]["algorithm"]) == "2.16.840.1.101.3.4.2.1"
    assert str(decoded[1]["algorithm"]) == "1.2.840.113549.2.9"
    assert bytes(decoded[2]) == expected_witness(SECRET + (identification or ""))
    assert encode(decoded) == value
    check(value, identification=identification)


@pytest.mark.spec("EST-CMC-20")
@pytest.mark.parametrize("secret", ["x" * 16, "ä" * 16, "x" * 200])
def test_secrets_of_sixteen_characters_and_more_are_supported(secret: str) -> None:
    check(value_v2(expected_witness(secret + NAME)), secret=secret)


@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "THREAT-17")
@pytest.mark.parametrize(
    ("key_input", "changed"),
    [
        pytest.param(SECRET + NAME, {"secret": "wrong horse battery"}, id="another secret"),
        pytest.param(SECRET + NAME, {"identification": "gerät-18"}, id="another identification"),
        pytest.param(SECRET + NAME, {"identification": None}, id="made for an identification that is not sent"),
        pytest.param(SECRET, {}, id="the identification left out of the key"),
        pytest.param(NAME + SECRET, {}, id="identity before secret, as AuthenticatedData has it"),
        pytest.param(SECRET + NAME, {"data": REQUESTS[2:]}, id="the content of reqSequence without its tag and length"),
        pytest.param(SECRET + NAME, {"data": pki.sequence()}, id="another reqSequence"),
    ],
)
def test_a_proof_of_anything_else_is_bad_identity(key_input: str, changed: dict[str, object]) -> None:
    assert refusal(value_v2(expected_witness(key_input)), **changed).fail_info is CmcFailInfo.BAD_IDENTITY


@pytest.mark.spec("EST-CMC-20")
@pytest.mark.parametrize("octets", [0, 1, 16, 31])
def test_the_start_of_a_witness_is_not_the_witness(octets: int) -> None:
    assert refusal(value_v2(expected_witness(SECRET + NAME)[:octets])).fail_info is CmcFailInfo.BAD_IDENTITY


@pytest.mark.spec("EST-CMC-20")
def test_the_mac_covers_the_octets_that_were_sent_and_no_other_encoding_of_them() -> None:
    """T-27: a sender may write lengths as BER has them; the MAC is over what it wrote."""
    content = REQUESTS[4:]
    sent = b"\x30\x84" + len(content).to_bytes(4) + content
    check(value_v2(expected_witness(SECRET + NAME, data=sent)), data=sent)
    assert refusal(value_v2(expected_witness(SECRET + NAME, data=REQUESTS)), data=sent).fail_info is CmcFailInfo.BAD_IDENTITY


@pytest.mark.spec("EST-CMC-20", "EST-CMC-37")
def test_version_1_is_sha1_and_accepted_only_where_the_policy_says_so() -> None:
    witness = expected_witness(SECRET + NAME, "sha1")
    proof = identity_proof.parse_v1(pki.tlv(0x04, witness))
    identity_proof.verify(proof, secret=SECRET, identification=NAME, req_sequence_der=REQUESTS, accept_sha1=True)
    with pytest.raises(CmcFailed, match="SHA-1") as raised:
        identity_proof.verify(proof, secret=SECRET, identification=NAME, req_sequence_der=REQUESTS)
    assert raised.value.fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("EST-CMC-37")
@pytest.mark.parametrize(
    ("hash_algorithm", "mac_algorithm", "names"),
    [
        (SHA256 + NULL, HMAC_SHA256 + NULL, ("sha256", "sha256")),
        (pki.oid("2.16.840.1.101.3.4.2.2"), pki.oid("1.2.840.113549.2.10"), ("sha384", "sha384")),
        (pki.oid("2.16.840.1.101.3.4.2.3"), pki.oid("1.2.840.113549.2.11"), ("sha512", "sha512")),
        (SHA256, pki.oid("1.2.840.113549.2.11"), ("sha256", "sha512")),
    ],
)
def test_every_sha2_is_accepted_with_null_parameters_or_none(hash_algorithm: bytes, mac_algorithm: bytes, names: tuple[str, str]) -> None:
    key = hashlib.new(names[0], (SECRET + NAME).encode()).digest()
    check(value_v2(hmac.new(key, REQUESTS, names[1]).digest(), hash_algorithm, mac_algorithm))


@pytest.mark.spec("EST-CMC-37", "THREAT-17")
@pytest.mark.parametrize("accept_sha1", [False, True])
@pytest.mark.parametrize(
    ("hash_algorithm", "mac_algorithm"),
    [
        pytest.param(pki.oid("1.2.840.113549.2.5"), HMAC_SHA256, id="MD5"),
        pytest.param(SHA256, pki.oid("1.2.840.113549.2.6"), id="HMAC-MD5"),
        pytest.param(pki.oid("2.16.840.1.101.3.4.2.4"), HMAC_SHA256, id="SHA-224"),
        pytest.param(SHA256, SHA256, id="a hash for a MAC"),
        pytest.param(HMAC_SHA256, HMAC_SHA256, id="a MAC for a hash"),
        pytest.param(SHA256 + pki.sequence(), HMAC_SHA256, id="parameters that SHA-256 has not"),
        pytest.param(pki.oid("1.3.6.1.5.5.7.6.2") + NULL, HMAC_SHA256, id="noSignature"),
    ],
)
def test_other_algorithms_are_bad_alg(hash_algorithm: bytes, mac_algorithm: bytes, accept_sha1: bool) -> None:
    failed = refusal(value_v2(b"\x00" * 32, hash_algorithm, mac_algorithm), accept_sha1=accept_sha1)
    assert failed.fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("EST-CMC-37")
@pytest.mark.parametrize(("hash_algorithm", "mac_algorithm"), [(SHA1, HMAC_SHA256), (SHA256, HMAC_SHA1), (SHA1, HMAC_SHA1)])
def test_sha1_in_either_place_of_version_2_needs_the_policy(hash_algorithm: bytes, mac_algorithm: bytes) -> None:
    names = ["sha1" if algorithm in (SHA1, HMAC_SHA1) else "sha256" for algorithm in (hash_algorithm, mac_algorithm)]
    key = hashlib.new(names[0], (SECRET + NAME).encode()).digest()
    value = value_v2(hmac.new(key, REQUESTS, names[1]).digest(), hash_algorithm, mac_algorithm)
    check(value, accept_sha1=True)
    assert refusal(value).fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("THREAT-08")
def test_a_value_cut_off_or_followed_by_something_is_malformed() -> None:
    value = identity_proof.build_v2(secret=SECRET, identification=NAME, req_sequence_der=REQUESTS)
    for end in range(len(value)):
        with pytest.raises(MalformedBody):
            identity_proof.parse_v2(value[:end])
    for trailing in (value + b"\x00", value_v2(b"\x00" * 32)[:-34] + pki.tlv(0x04, bytes(32)) + NULL):
        with pytest.raises(MalformedBody):
            identity_proof.parse_v2(trailing)
    with pytest.raises(MalformedBody):
        identity_proof.parse_v1(b"\x30\x00")


@pytest.mark.spec("EST-CMC-20")
def test_every_flipped_bit_of_a_proof_is_refused() -> None:
    value = identity_proof.build_v2(secret=SECRET, identification=NAME, req_sequence_der=REQUESTS)
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 1
        with pytest.raises(EstError):
            check(bytes(changed))
