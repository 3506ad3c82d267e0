"""RFC 5272 section 6.7: keys that do not sign show in two rounds that they decrypt, and OpenSSL reads the challenge."""

import hashlib
import hmac
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.asymmetric import rsa
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc5652, rfc6402

from estcore import cert_template, crmf, pkcs10, pop_challenge
from estcore.certification_request import CertificationRequest
from estcore.errors import CmcFailed, CmcFailInfo, EstError, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from tests import pki

ID = 201
Y = bytes(range(32))
CONTENT_KEY, IV = bytes(range(50, 82)), bytes(range(16))
RSA, EC = KeyAlgorithm.RSA_2048, KeyAlgorithm.ECDSA_P256
SKI = pki.extension("2.5.29.14", pki.tlv(0x04, b""))
NO_SIGNATURE = pki.sequence(pki.oid("1.3.6.1.5.5.7.6.2"), b"\x05\x00")


def key(algorithm: KeyAlgorithm = RSA) -> PrivateKey:
    return pki.key(algorithm, "decrypts only")


def tagged_crmf(algorithm: KeyAlgorithm = RSA) -> tuple[bytes, CertificationRequest]:
    """TaggedRequest.crm of a request that asks for a challenge, and what it was parsed to."""
    template = cert_template.build(subject=pki.name(), spki_der=pki.spki_der(key(algorithm).public_key()))
    message = crmf.build(None, template, cert_req_id=ID, key_agreement=algorithm is EC)
    return b"\xa1" + message[1:], crmf.parse(message, now=pki.EPOCH).request


def tagged_pkcs10(algorithm: KeyAlgorithm = RSA) -> tuple[bytes, CertificationRequest]:
    """TaggedRequest.tcr of a CSR with id-alg-noSignature (Appendix C.1)."""
    info = pki.sequence(b"\x02\x01\x00", pki.name().public_bytes(), pki.spki_der(key(algorithm).public_key()), pki.tlv(0xA0))
    csr = pki.sequence(info, NO_SIGNATURE, pki.tlv(0x03, b"\x00", hashlib.sha256(info).digest()))
    return pki.tlv(0xA0, b"\x02\x02\x00\xc9", csr), pkcs10.parse(csr, accept_no_signature=True)


def challenge(tagged: bytes, request: CertificationRequest, y: bytes = Y, body_part_id: int = ID) -> bytes:
    return pop_challenge.build_challenge(request, tagged, body_part_id=body_part_id, y=y, content_key=CONTENT_KEY, iv=IV)


def answer(value: bytes, tagged: bytes, private_key: PrivateKey, *, subject_key_identifier: bytes | None = None) -> bytes:
    return pop_challenge.answer_challenge(
        pop_challenge.parse_encrypted_pop(value),
        private_key,
        tagged_request_der=tagged,
        body_part_id=ID,
        subject_key_identifier=subject_key_identifier,
    )


# ---- two rounds


@pytest.mark.spec("EST-CMC-24", "EST-CMC-25", "EST-ENROLL-04")
@pytest.mark.parametrize("tagged_request", [tagged_crmf, tagged_pkcs10])
@pytest.mark.parametrize("algorithm", [RSA, EC, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521])
def test_an_encryption_only_key_proves_itself_in_two_rounds(
    tagged_request: Callable[[KeyAlgorithm], tuple[bytes, CertificationRequest]], algorithm: KeyAlgorithm
) -> None:
    tagged, request = tagged_request(algorithm)
    assert not request.proven
    value = answer(challenge(tagged, request), tagged, key(algorithm))
    decrypted = pop_challenge.parse_decrypted_pop(value)
    assert decrypted.body_part_id == ID
    assert decrypted.proof == hmac.new(Y, tagged, "sha256").digest()
    pop_challenge.verify(decrypted, tagged, y=Y)


@pytest.mark.spec("EST-CMC-24")
def test_a_request_with_a_subject_key_identifier_is_challenged_by_it() -> None:
    tagged, request = tagged_crmf()
    request = replace(request, subject_key_identifier=b"\x01" * 20)
    value = challenge(tagged, request)
    [recipient] = enveloped(value)["recipient_infos"]
    assert recipient.chosen["rid"].chosen.native == b"\x01" * 20
    pop_challenge.verify(pop_challenge.parse_decrypted_pop(answer(value, tagged, key(), subject_key_identifier=b"\x01" * 20)), tagged, y=Y)


def enveloped(value: bytes) -> cms.EnvelopedData:
    return cms.ContentInfo.load(pop_challenge.parse_encrypted_pop(value).content_info_der, strict=True)["content"]


@pytest.mark.spec("EST-CMC-24")
def test_a_request_without_one_is_challenged_by_no_issuer_and_its_body_part_id() -> None:
    [recipient] = enveloped(challenge(*tagged_crmf()))["recipient_infos"]
    rid = recipient.chosen["rid"].chosen
    assert rid["issuer"].dump() == b"\x30\x00"
    assert rid["serial_number"].native == ID


@pytest.mark.spec("EST-CMC-24", "EST-CMC-37")
def test_the_asn1_module_reads_both_controls() -> None:
    tagged, request = tagged_pkcs10()
    value = challenge(tagged, request)
    decoded, rest = decode(value, asn1Spec=rfc6402.EncryptedPOP())
    assert rest == b""
    assert encode(decoded["request"]) == tagged
    assert decoded["cms"]["contentType"] == rfc5652.id_envelopedData
    assert str(decoded["thePOPAlgID"]["algorithm"]) == "1.2.840.113549.2.9"
    assert str(decoded["witnessAlgID"]["algorithm"]) == "2.16.840.1.101.3.4.2.1"
    assert bytes(decoded["witness"]) == hashlib.sha256(Y).digest()
    assert encode(decoded) == value
    response = answer(value, tagged, key())
    decoded, rest = decode(response, asn1Spec=rfc6402.DecryptedPOP())
    assert (int(decoded["bodyPartID"]), bytes(decoded["thePOP"]), rest) == (ID, hmac.new(Y, tagged, "sha256").digest(), b"")
    assert encode(decoded) == response


@pytest.mark.spec("EST-CMC-24")
def test_openssl_decrypts_the_challenge(tmp_path: Path) -> None:
    private_key = key()
    assert isinstance(private_key, rsa.RSAPrivateKey)
    (tmp_path / "key.pem").write_bytes(pki.key_pem(private_key))
    content_info = pop_challenge.parse_encrypted_pop(challenge(*tagged_crmf())).content_info_der
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(tmp_path / "key.pem"), "-binary"]
    decrypted = subprocess.run(command, input=content_info, capture_output=True, check=True, timeout=60)
    assert decrypted.stdout == Y


@pytest.mark.spec("EST-CMC-24")
def test_of_a_proof_value_longer_than_64_octets_the_first_64_are_the_secret() -> None:
    tagged, request = tagged_crmf()
    y = bytes(range(100))
    decrypted = pop_challenge.parse_decrypted_pop(answer(challenge(tagged, request, y), tagged, key()))
    assert decrypted.proof == hmac.new(y[:64], tagged, "sha256").digest()
    pop_challenge.verify(decrypted, tagged, y=y)


# ---- the server's side


@pytest.mark.spec("EST-CMC-24", "THREAT-17")
def test_an_answer_to_anything_else_is_pop_failed() -> None:
    tagged, request = tagged_crmf()
    good = pop_challenge.parse_decrypted_pop(answer(challenge(tagged, request), tagged, key()))
    other, _ = tagged_crmf(EC)
    renumbered = tagged.replace(b"\x02\x02\x00\xc9", b"\x02\x02\x00\xca")
    assert renumbered != tagged
    cases = {
        "another y": (good, tagged, bytes(32)),
        "another request": (good, other, Y),
        "the same request under another bodyPartID": (good, renumbered, Y),
        "the request without its tag": (good, tagged[4:], Y),
        "cut off": (replace(good, proof=good.proof[:-1]), tagged, Y),
        "empty": (replace(good, proof=b""), tagged, Y),
        "y itself": (replace(good, proof=Y), tagged, Y),
        "the witness, which everybody saw": (replace(good, proof=hashlib.sha256(Y).digest()), tagged, Y),
    }
    for name, (decrypted, octets, y) in cases.items():
        with pytest.raises(CmcFailed) as raised:
            pop_challenge.verify(decrypted, octets, y=y)
        assert raised.value.fail_info is CmcFailInfo.POP_FAILED, name


@pytest.mark.spec("EST-CMC-24", "EST-CMC-37")
def test_sha1_is_accepted_only_where_the_policy_says_so() -> None:
    tagged, _ = tagged_crmf()
    hmac_sha1 = pki.sequence(pki.oid("1.3.6.1.5.5.8.1.2"))
    decrypted = pop_challenge.DecryptedPop(body_part_id=ID, algorithm_der=hmac_sha1, proof=hmac.new(Y, tagged, "sha1").digest())
    pop_challenge.verify(decrypted, tagged, y=Y, accept_sha1=True)
    with pytest.raises(CmcFailed) as raised:
        pop_challenge.verify(decrypted, tagged, y=Y)
    assert raised.value.fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("EST-CMC-24")
def test_a_key_that_only_signs_cannot_be_challenged() -> None:
    template = cert_template.build(subject=pki.name(), spki_der=pki.spki_der(pki.key(KeyAlgorithm.ED25519).public_key()))
    request = crmf.parse(crmf.build(None, template, cert_req_id=ID), now=pki.EPOCH).request
    with pytest.raises(CmcFailed, match="sign the request") as raised:
        challenge(b"\xa1\x00", request)
    assert raised.value.fail_info is CmcFailInfo.POP_FAILED


@pytest.mark.spec("EST-CMC-24")
def test_the_proof_value_is_made_again_from_the_request_and_differs_for_every_other() -> None:
    tagged, _ = tagged_crmf()
    server_key = bytes(range(32))
    y = pop_challenge.proof_value(tagged, server_key=server_key, recipient=b"device-1")
    assert y == pop_challenge.proof_value(tagged, server_key=server_key, recipient=b"device-1")
    assert len(y) >= pop_challenge.MIN_PROOF_VALUE_OCTETS
    others = {
        pop_challenge.proof_value(tagged, server_key=bytes(32), recipient=b"device-1"),
        pop_challenge.proof_value(tagged, server_key=server_key, recipient=b"device-2"),
        pop_challenge.proof_value(tagged, server_key=server_key),
        pop_challenge.proof_value(b"1" + tagged, server_key=server_key, recipient=b"device-"),
        pop_challenge.proof_value(tagged + b"\x00", server_key=server_key, recipient=b"device-1"),
    }
    assert len(others) == 5
    assert y not in others
    with pytest.raises(ValueError, match="32 octets"):
        pop_challenge.proof_value(tagged, server_key=bytes(31))


# ---- the client's side


@pytest.mark.spec("EST-CMC-24")
def test_a_client_answers_no_challenge_that_is_not_what_it_says() -> None:
    tagged, request = tagged_crmf()
    value = challenge(tagged, request)
    witness = pki.tlv(0x04, hashlib.sha256(Y).digest())
    cases = {
        "another request": (value, tagged_crmf(EC)[0], key()),
        "another key": (value, tagged, pki.key(RSA, "somebody else")),
        "a key of another kind": (value, tagged, key(EC)),
        "a key that only signs": (value, tagged, key(KeyAlgorithm.ED25519)),
        "another witness": (value.replace(witness, pki.tlv(0x04, bytes(32))), tagged, key()),
        "a short y": (challenge(tagged, request, bytes(15)), tagged, key()),
        "for another bodyPartID": (challenge(tagged, request, body_part_id=ID + 1), tagged, key()),
    }
    for name, (octets, sent, private_key) in cases.items():
        with pytest.raises(CmcFailed) as raised:
            answer(octets, sent, private_key)
        assert raised.value.fail_info is CmcFailInfo.POP_FAILED, name


@pytest.mark.spec("THREAT-08", "THREAT-17")
def test_controls_cut_off_anywhere_are_malformed() -> None:
    tagged, request = tagged_crmf(EC)
    value = challenge(tagged, request)
    response = answer(value, tagged, key(EC))
    for octets, parse in ((value, pop_challenge.parse_encrypted_pop), (response, pop_challenge.parse_decrypted_pop)):
        for bad in (*(octets[:end] for end in range(len(octets))), octets + b"\x00"):
            with pytest.raises(MalformedBody):
                parse(bad)


@pytest.mark.spec("EST-CMC-24", "THREAT-17")
def test_every_flipped_bit_of_an_answer_is_noticed() -> None:
    tagged, request = tagged_crmf(EC)
    response = answer(challenge(tagged, request), tagged, key(EC))
    for position in range(len(response)):
        changed = bytearray(response)
        changed[position] ^= 1
        try:
            decrypted = pop_challenge.parse_decrypted_pop(bytes(changed))
            pop_challenge.verify(decrypted, tagged, y=Y)
        except EstError:
            continue
        assert decrypted.body_part_id != ID, position


# ---- noSignature


@pytest.mark.spec("EST-CMC-25", "EST-ENROLL-04")
def test_a_csr_with_no_signature_is_refused_where_no_other_proof_can_follow() -> None:
    """simpleenroll has one round only (RFC 5272 section 3.1)."""
    _, request = tagged_pkcs10()
    with pytest.raises(EstError):
        pkcs10.parse(request.csr_der)
    assert isinstance(request.public_key, rsa.RSAPublicKey)
