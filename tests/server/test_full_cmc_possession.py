"""fullcmc and proof-of-possession: CRMF requests, keys that only decrypt in two rounds, and who may vouch for whom (RFC 5272 6.7, 6.8)."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estcore import cert_template, crmf, csr_builder, full_request, pki_data, pop_challenge, ra_witness
from estcore import cmc_controls as controls
from estcore.cmc_controls import DecryptedPop, EncryptedPop, LraPopWitness, TransactionId
from estcore.cms_signature import signer_of
from estcore.der import SEQUENCE
from estcore.der_reader import only
from estcore.errors import CmcFailInfo
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from tests import pki
from tests.server.app_fixtures import NOW, Server, basic, leaf, name, new_key, running
from tests.server.cmc_fixtures import (
    Authority,
    Reply,
    enrolled,
    extension,
    make_authority,
    newcomer_csr,
    send,
    ski,
)
from tests.server.test_full_cmc import issued, refused

RSA, EC, ED25519 = KeyAlgorithm.RSA_2048, KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ED25519
NEW_NAMES = x509.SubjectAlternativeName(pki.dns("a.devices.example"))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.fixture
async def ra(server: Server) -> Authority:
    return await make_authority(server)


@pytest.fixture
async def device(server: Server) -> tuple[PrivateKey, x509.Certificate]:
    """A device with a signature certificate, which it asks with (Appendix B.3)."""
    return await enrolled(server)


class Validity(TypedDict, total=False):
    """The ends of the life that a request asks for."""

    not_before: datetime
    not_after: datetime


def crmf_request(key: PrivateKey, *extensions: x509.ExtensionType, signed: bool = True, **fields: Unpack[Validity]) -> bytes:
    """TaggedRequest.crm with certReqId 1, of the device that `enrolled` makes."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = [extension(value) for value in (NEW_NAMES, *extensions)]
    template = cert_template.build(subject=name("device-1"), spki_der=spki, extensions=wanted, **fields)
    agreement = isinstance(key, ec.EllipticCurvePrivateKey)
    return pki_data.tagged_crmf(crmf.build(key if signed else None, template, cert_req_id=1, key_agreement=agreement))


def pkcs10_request(key: PrivateKey) -> bytes:
    """TaggedRequest.tcr with id-alg-noSignature (Appendix C.1)."""
    csr = csr_builder.build(key, subject=name("device-1"), sans=pki.dns("a.devices.example"))
    return pki_data.tagged_pkcs10(1, csr_builder.without_signature(csr))


def by(device: tuple[PrivateKey, x509.Certificate], requests: list[bytes], *values: controls.Control) -> bytes:
    key, certificate = device
    return full_request.sign_by_certificate(full_request.body(requests, values), certificate, signer_of(key))


def challenge_of(reply: Reply) -> pop_challenge.EncryptedPop:
    [challenge] = [value for value in reply.values if isinstance(value, EncryptedPop)]
    return pop_challenge.parse_encrypted_pop(challenge.value_der)


def answer_to(reply: Reply, tagged: bytes, key: PrivateKey, *, subject_key_identifier: bytes | None = None) -> DecryptedPop:
    answer = pop_challenge.answer_challenge(
        challenge_of(reply), key, tagged_request_der=tagged, body_part_id=1, subject_key_identifier=subject_key_identifier
    )
    return DecryptedPop(answer)


# ---- CRMF


@pytest.mark.spec("EST-CMC-14", "EST-CMC-23")
async def test_a_device_rekeys_by_crmf_signed_with_its_certificate(server: Server, device: tuple[PrivateKey, x509.Certificate]) -> None:
    key = new_key()
    certificate = (await send(server, by(device, [crmf_request(key)]))).certificate_for(key)
    assert certificate.subject == device[1].subject


@pytest.mark.spec("EST-CMC-14")
async def test_a_crmf_validity_is_the_life_of_the_certificate(server: Server, device: tuple[PrivateKey, x509.Certificate]) -> None:
    key = new_key()
    message = by(device, [crmf_request(key, not_before=NOW, not_after=NOW + timedelta(hours=12))])
    certificate = (await send(server, message)).certificate_for(key)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=12)


@pytest.mark.spec("EST-CMC-14", "THREAT-17")
async def test_nobody_says_of_itself_that_a_registration_authority_saw_its_key(
    server: Server, device: tuple[PrivateKey, x509.Certificate], ra: Authority
) -> None:
    before = await issued(server)
    tagged = crmf_request(new_key(), signed=False)
    cert_request = only(tagged, 0xA1, what="the CertReqMsg").whole(SEQUENCE)
    message = pki.tlv(0xA1, cert_request, b"\x80\x00")
    refused(await send(server, by(device, [message])), CmcFailInfo.POP_FAILED, (1,))
    refused(await send(server, ra.sign(full_request.body([message], []))), CmcFailInfo.POP_FAILED, (1,))
    assert await issued(server) == before


# ---- the challenge


@pytest.mark.spec("EST-CMC-24", "EST-CMC-25", "EST-ENROLL-04")
@pytest.mark.parametrize("form", [lambda key: crmf_request(key, signed=False), pkcs10_request], ids=["CRMF", "PKCS#10"])
@pytest.mark.parametrize("algorithm", [RSA, EC])
async def test_a_key_that_only_decrypts_is_certified_in_two_rounds(
    server: Server, device: tuple[PrivateKey, x509.Certificate], algorithm: KeyAlgorithm, form: Callable[[PrivateKey], bytes]
) -> None:
    key = pki.key(algorithm, "decrypts only")
    tagged = form(key)
    before = await issued(server)
    first = await send(server, by(device, [tagged], TransactionId(7)))
    refused(first, CmcFailInfo.POP_REQUIRED, (1,))
    assert challenge_of(first).tagged_request_der == tagged
    assert await issued(server) == before
    second = await send(server, by(device, [tagged], TransactionId(7), answer_to(first, tagged, key)))
    assert second.certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-24")
async def test_a_request_with_a_subject_key_identifier_is_challenged_by_it(
    server: Server, device: tuple[PrivateKey, x509.Certificate]
) -> None:
    key = pki.key(RSA, "decrypts only")
    assert isinstance(key, rsa.RSAPrivateKey)
    identifier = ski(key)
    tagged = crmf_request(key, identifier, signed=False)
    first = await send(server, by(device, [tagged]))
    answer = answer_to(first, tagged, key, subject_key_identifier=identifier.digest)
    assert (await send(server, by(device, [tagged], answer))).certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-24", "THREAT-17")
async def test_only_the_answer_to_the_challenge_for_this_request_and_this_sender_counts(
    server: Server, device: tuple[PrivateKey, x509.Certificate]
) -> None:
    key = pki.key(RSA, "decrypts only")
    tagged, other_tagged = crmf_request(key, signed=False), pkcs10_request(key)
    first, other = await send(server, by(device, [tagged])), await send(server, by(device, [other_tagged]))
    before = await issued(server)
    good = answer_to(first, tagged, key)
    refused(await send(server, by(device, [tagged], answer_to(other, other_tagged, key))), CmcFailInfo.POP_FAILED, (2,))
    refused(await send(server, by(device, [tagged], DecryptedPop(good.value_der[:-1] + b"\x00"))), CmcFailInfo.POP_FAILED, (2,))
    renumbered = good.value_der.replace(b"\x02\x01\x01", b"\x02\x01\x09", 1)
    refused(await send(server, by(device, [tagged], DecryptedPop(renumbered))), CmcFailInfo.BAD_REQUEST, (2,))
    stranger = new_key()
    by_another = by((stranger, leaf(common_name="device-1", key=stranger)), [tagged], good)
    refused(await send(server, by_another), CmcFailInfo.POP_FAILED, (2,))
    assert await issued(server) == before
    assert (await send(server, by(device, [tagged], good))).certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-24")
async def test_a_challenge_holds_across_workers(tmp_path: Path) -> None:
    """Two processes over one ledger: what the one asked, the other takes as answered."""
    key = pki.key(RSA, "decrypts only")
    tagged = crmf_request(key, signed=False)
    async with running(tmp_path) as one, running(tmp_path) as another:
        device = await enrolled(one)
        first = await send(one, by(device, [tagged]))
        second = await send(another, by(device, [tagged], answer_to(first, tagged, key)))
        assert second.certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-24")
async def test_a_key_that_only_signs_is_not_challenged(server: Server, device: tuple[PrivateKey, x509.Certificate]) -> None:
    tagged = crmf_request(pki.key(ED25519, "signs only"), signed=False)
    reply = await send(server, by(device, [tagged]))
    refused(reply, CmcFailInfo.POP_FAILED, (1,))
    assert not [value for value in reply.values if isinstance(value, EncryptedPop)]


@pytest.mark.spec("EST-CMC-25", "EST-ENROLL-04")
async def test_simpleenroll_has_no_second_round(server: Server) -> None:
    csr = csr_builder.without_signature(newcomer_csr(new_key()))
    answer = await server.enroll(csr, authorization=basic())
    assert answer.status == 400
    assert await issued(server) == 0


# ---- a registration authority that saw the key


@pytest.mark.spec("EST-CMC-26", "EST-POP-16")
async def test_a_registration_authority_vouches_for_a_key_that_does_not_sign(server: Server, ra: Authority) -> None:
    key = pki.key(RSA, "decrypts only")
    witness = LraPopWitness(ra_witness.build_pop_witness(1))
    reply = await send(server, ra.sign(full_request.body([pkcs10_request(key)], [witness])), authorization=ra.bearer)
    assert reply.certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-26", "EST-CLI-05", "THREAT-17")
async def test_anybody_else_who_vouches_is_pop_failed_and_no_challenge_is_started(
    server: Server, device: tuple[PrivateKey, x509.Certificate]
) -> None:
    before = await issued(server)
    tagged = pkcs10_request(pki.key(RSA, "decrypts only"))
    reply = await send(server, by(device, [tagged], LraPopWitness(ra_witness.build_pop_witness(1))))
    assert reply.statuses[0].fail_info is CmcFailInfo.POP_FAILED
    assert not [value for value in reply.values if isinstance(value, EncryptedPop)]
    assert await issued(server) == before


@pytest.mark.spec("EST-CMC-26", "THREAT-17")
async def test_a_registration_authority_that_does_not_vouch_gets_a_challenge_too(server: Server, ra: Authority) -> None:
    before = await issued(server)
    tagged = pkcs10_request(pki.key(RSA, "decrypts only"))
    reply = await send(server, ra.sign(full_request.body([tagged], [])), authorization=ra.bearer)
    refused(reply, CmcFailInfo.POP_REQUIRED, (1,))
    assert challenge_of(reply).tagged_request_der == tagged
    assert await issued(server) == before
