"""Mutants of good CMC messages: every decoder of proofs and templates refuses them by our own errors, at once (threats row 8)."""

import random
from collections.abc import Callable
from datetime import timedelta
from time import process_time

import pytest
from cryptography import x509

from estcore import authenticated_data, cert_template, crmf, identity_proof, pop_challenge, pop_link, ra_witness, template_modification
from estcore.errors import EstError
from tests import pki

MUTANTS = 150
NOW = pki.EPOCH
SPKI = pki.spki_der(pki.key().public_key())
EXTENSIONS = [
    x509.Extension(x509.SubjectAlternativeName.oid, False, x509.SubjectAlternativeName(pki.dns("a.example"))),
    x509.Extension(x509.KeyUsage.oid, True, pki.key_usage("digital_signature")),
]
TEMPLATE = cert_template.build(subject=pki.name(), spki_der=SPKI, not_before=NOW, not_after=NOW + timedelta(days=1), extensions=EXTENSIONS)
WITHOUT_KEY = cert_template.build(subject=pki.name(), not_after=NOW + timedelta(days=1), extensions=EXTENSIONS)
LINK = {pop_link.POP_LINK_WITNESS_V2_OID: pop_link.build_v2(secret="x" * 16, random=bytes(64))}
UNSIGNED = crmf.build(None, TEMPLATE, cert_req_id=1, controls=LINK)
CHALLENGED = crmf.parse(UNSIGNED, now=NOW).request
TAGGED = b"\xa1" + UNSIGNED[1:]
CHALLENGE = pop_challenge.build_challenge(CHALLENGED, TAGGED, body_part_id=1, y=bytes(32), content_key=bytes(32), iv=bytes(16))


def open_authenticated(octets: bytes) -> None:
    authenticated_data.verify(authenticated_data.parse(octets), b"password")


def answer(octets: bytes) -> None:
    pop_challenge.answer_challenge(pop_challenge.parse_encrypted_pop(octets), pki.key(), tagged_request_der=TAGGED, body_part_id=1)


def modify(octets: bytes) -> None:
    modification = template_modification.parse_mod_cert_template(octets)
    placed = template_modification.Placed(layer=(), body_part_id=9, modification=modification)
    template_modification.apply_all({(1,): CHALLENGED}, [placed], now=NOW)


DECODERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "AuthenticatedData": (
        authenticated_data.build(pki.sequence(), "1.3.6.1.5.5.7.12.2", b"password", salt=bytes(16), mac_key=bytes(32), iterations=10),
        open_authenticated,
    ),
    "CertReqMsg": (crmf.build(pki.key(), TEMPLATE, cert_req_id=1, controls=LINK), lambda octets: crmf.parse(octets, now=NOW)),
    "CertReqMsg without signature": (UNSIGNED, lambda octets: crmf.parse(octets, now=NOW)),
    "modCertTemplate": (template_modification.build_mod_cert_template(WITHOUT_KEY, requests=[1]), modify),
    "encryptedPOP": (CHALLENGE, answer),
    "identityProofV2": (
        identity_proof.build_v2(secret="x" * 16, identification=None, req_sequence_der=pki.sequence()),
        identity_proof.parse_v2,
    ),
    "lraPOPWitness": (ra_witness.build_pop_witness(1, 2), ra_witness.parse_pop_witness),
}


def mutant(good: bytes, chance: random.Random) -> bytes:
    """One to three changes: an octet altered, some left out, repeated or put in, a length or a tag of another kind."""
    octets = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        at, length = chance.randrange(len(octets)), chance.randint(1, 8)
        match chance.randrange(5):
            case 0:
                octets[at] = chance.randrange(256)
            case 1:
                del octets[at : at + length]
            case 2:
                octets[at:at] = octets[at : at + length]
            case 3:
                octets[at:at] = chance.randbytes(length)
            case _:
                octets[at] = chance.choice((0x00, 0x02, 0x04, 0x05, 0x30, 0x31, 0x7F, 0x80, 0x81, 0x84, 0xA0, 0xFF))
        octets = octets or bytearray(b"\x00")
    return bytes(octets)


@pytest.mark.spec("THREAT-08", "THREAT-17")
@pytest.mark.parametrize("name", DECODERS)
def test_a_mutant_is_read_or_refused_by_our_own_error_and_at_once(name: str) -> None:
    good, decode = DECODERS[name]
    decode(good)
    chance = random.Random(name)  # noqa: S311 - mutants, the same in every run
    messages: list[str] = []
    for number in range(MUTANTS):
        octets = mutant(good, chance)
        start = process_time()
        try:
            decode(octets)
        except EstError as error:
            messages.append(error.message)
        assert process_time() - start < 0.05, (number, octets.hex())
    assert not any("\n" in message for message in messages)
    assert len(messages) > MUTANTS * 0.7
