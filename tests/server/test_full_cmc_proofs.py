"""Shared secrets, challenges, CRMF and envelopes in Full PKI Requests (RFC 5272 sections 3.2, 5, 6.2, 6.3 and 6.7)."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import (
    authenticated_data,
    cms_signature,
    enveloped_data,
    full_request,
    identity_proof,
    keys,
    pki_data,
    pop_challenge,
    pop_link,
    signed_data,
)
from estcore import cmc_controls as controls
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus
from estcore.cms_signature import Digest, MessageSigner, signer_of
from estcore.errors import CmcFailInfo
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.recipient_info import KeyEncryptionKey
from estserver.issuers import Registry
from tests import pki
from tests.server import app_fixtures
from tests.server.app_fixtures import AppConfiguration, Server, basic, make_csr, name, new_key, running
from tests.server.cmc_fixtures import (
    Reply,
    by_certificate,
    crmf_request,
    enrolled,
    make_authority,
    newcomer,
    newcomer_csr,
    send,
    ski,
    vouched,
)
from tests.server.test_full_cmc import issued, refused
from tests.server.test_full_cmc_batch import wrapped

SECRET = "sixteen characters and more"
NAME = "device-7"
RANDOM = bytes(range(64))
KEK = KeyEncryptionKey(key_identifier=b"fleet", key=bytes(32))

SPEC = {
    **app_fixtures.SPEC,
    "est": {
        **app_fixtures.SPEC["est"],
        "authentication": [*app_fixtures.SPEC["est"]["authentication"], {"cmcSharedSecret": {"secretName": "cmc-secrets"}}],
        "serverKeyGeneration": {"wrappingKeys": {"secretName": "fleet-keys"}},
    },
    "policy": {
        "rules": [
            *app_fixtures.SPEC["policy"]["rules"],
            {"from": {"authentication": "cmcSharedSecret"}, "subject": {"commonName": "{user}"}, "dnsNames": ["*.devices.example"]},
        ]
    },
}


def registry() -> Registry:
    """The factory with a shared secret and a key that envelopes may be made for."""
    secrets = (
        *app_fixtures.SECRETS,
        app_fixtures.secret("cmc-secrets", {NAME: SECRET.encode()}),
        app_fixtures.secret("fleet-keys", {"fleet.key": KEK.key.hex().encode()}),
    )
    return app_fixtures.registry_of(app_fixtures.manifest(spec=SPEC), secrets=secrets)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry()) as running_server:
        yield running_server


def linked_csr(key: PrivateKey, *, secret: str = SECRET, random: bytes = RANDOM, common_name: str = NAME) -> bytes:
    """A CSR with the subjectKeyIdentifier and the popLinkWitnessV2 of a secret."""
    witness = pki.attribute("1.3.6.1.5.5.7.7.33", pop_link.build_v2(secret=secret, random=random))
    extensions = pki.extension_request(pki.extension("2.5.29.14", pki.tlv(4, ski(key).digest)))
    info = pki.sequence(
        pki.tlv(2, b"\x00"),
        name(common_name).public_bytes(),
        keys.spki_der(key.public_key()),
        pki.tlv(0xA0, *sorted((witness, extensions))),
    )
    return pki.sequence(info, pki.ECDSA_WITH_SHA256, pki.tlv(3, b"\x00", signer_of(key).sign(info)))


def proof(requests_der: Sequence[bytes], *, secret: str = SECRET, identification: str | None = NAME) -> controls.IdentityProofV2:
    return controls.IdentityProofV2(
        identity_proof.build_v2(secret=secret, identification=identification, req_sequence_der=pki_data.req_sequence(requests_der))
    )


def proven(key: PrivateKey, csr_der: bytes, *values: Control) -> bytes:
    body = full_request.body([pki_data.tagged_pkcs10(1, csr_der)], values)
    return full_request.sign_by_key(body, ski(key).digest, signer_of(key))


@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "EST-CMC-22", "EST-CLI-01")
async def test_a_shared_secret_proves_who_a_newcomer_is(server: Server) -> None:
    key = new_key()
    csr_der = linked_csr(key)
    request = pki_data.tagged_pkcs10(1, csr_der)
    reply = await send(server, proven(key, csr_der, controls.Identification(NAME), proof([request]), controls.PopLinkRandom(RANDOM)))
    assert reply.certificate_for(key).subject == name(NAME)


async def test_who_a_shared_secret_belongs_to_is_in_the_ledger(server: Server) -> None:
    key = new_key()
    csr_der = linked_csr(key)
    request = pki_data.tagged_pkcs10(1, csr_der)
    await send(server, proven(key, csr_der, controls.Identification(NAME), proof([request]), controls.PopLinkRandom(RANDOM)))
    query = "SELECT requester FROM certificates"
    assert await server.ledger.transact(lambda connection: connection.exec_driver_sql(query).scalar_one()) == f"cmcSharedSecret:{NAME}"


@pytest.mark.parametrize("case", ["wrong secret", "unknown name", "another's name", "no identification", "of other requests"])
@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "THREAT-14")
async def test_a_proof_that_does_not_hold_is_bad_identity_and_says_the_same_for_every_reason(server: Server, case: str) -> None:
    key = new_key()
    csr_der = linked_csr(key)
    request = pki_data.tagged_pkcs10(1, csr_der)
    identity: list[Control] = [controls.Identification(NAME)]
    shown = proof([request])
    match case:
        case "wrong secret":
            shown = proof([request], secret="another secret of many characters")
        case "unknown name":
            identity, shown = [controls.Identification("device-8")], proof([request], identification="device-8")
        case "another's name":
            identity = [controls.Identification("device-8")]
        case "no identification":
            identity, shown = [], proof([request], identification=None)
        case _:
            shown = proof([pki_data.tagged_pkcs10(1, linked_csr(new_key()))])
    reply = await send(server, proven(key, csr_der, *identity, shown, controls.PopLinkRandom(RANDOM)))
    refused(reply, CmcFailInfo.BAD_IDENTITY, (2 + len(identity),))
    assert reply.statuses[0].text == identity_proof.wrong_identity().message
    assert await issued(server) == 0


@pytest.mark.parametrize(
    ("csr_secret", "random", "sent"),
    [(SECRET, bytes(64), RANDOM), ("another secret of many", RANDOM, RANDOM), (SECRET, RANDOM, None)],
    ids=["of another random", "of another secret", "no popLinkRandom"],
)
@pytest.mark.spec("EST-CMC-22")
async def test_a_request_that_is_not_linked_to_the_secret_is_pop_failed(
    server: Server, csr_secret: str, random: bytes, sent: bytes | None
) -> None:
    key = new_key()
    csr_der = linked_csr(key, secret=csr_secret, random=random)
    request = pki_data.tagged_pkcs10(1, csr_der)
    linking = [controls.PopLinkRandom(sent)] if sent is not None else []
    refused(
        await send(server, proven(key, csr_der, controls.Identification(NAME), proof([request]), *linking)), CmcFailInfo.POP_FAILED, (1,)
    )


@pytest.mark.spec("EST-CMC-22")
async def test_every_request_of_a_message_must_be_linked(server: Server) -> None:
    key = new_key()
    requests = [pki_data.tagged_pkcs10(1, linked_csr(key)), pki_data.tagged_pkcs10(2, newcomer_csr(new_key(), NAME))]
    body = full_request.body(requests, [controls.Identification(NAME), proof(requests), controls.PopLinkRandom(RANDOM)])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    refused(await send(server, message), CmcFailInfo.POP_FAILED, (2,))
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-37")
async def test_sha_1_proofs_are_accepted_by_policy_only(server: Server) -> None:
    key = new_key()
    csr_der = linked_csr(key)
    old = controls.IdentityProof(pki.tlv(4, bytes(20)))
    reply = await send(server, proven(key, csr_der, controls.Identification(NAME), old, controls.PopLinkRandom(RANDOM)))
    refused(reply, CmcFailInfo.BAD_ALG, (3,))


# ---- AuthenticatedData


def authenticated(
    key: PrivateKey, *, secret: str = SECRET, identifier: str = NAME, swapped: bool = False, control: str | None = NAME
) -> bytes:
    values: list[Control] = [controls.Identification(control)] if control is not None else []
    body = full_request.body([pki_data.tagged_pkcs10(1, linked_csr(key))], [*values, controls.PopLinkRandom(RANDOM)])
    password = authenticated_data.key_derivation_input(identifier, secret)
    if swapped:
        password = authenticated_data.key_derivation_input(secret, identifier)
    return authenticated_data.build(body, pki_data.ID_CCT_PKI_DATA, password, salt=bytes(16), mac_key=bytes(range(32)), iterations=10_000)


@pytest.mark.spec("EST-CMC-05", "EST-CMC-09")
async def test_a_message_under_a_shared_secret_is_its_owners(server: Server) -> None:
    key = new_key()
    assert (await send(server, authenticated(key))).certificate_for(key).subject == name(NAME)


@pytest.mark.parametrize("case", ["wrong secret", "unknown name", "secret first"])
@pytest.mark.spec("EST-CMC-09", "THREAT-14")
async def test_a_message_under_another_secret_is_refused_in_one_way(server: Server, case: str) -> None:
    key = new_key()
    message = {
        "wrong secret": authenticated(key, secret="another secret of many"),
        "unknown name": authenticated(key, identifier="device-8", control="device-8"),
        "secret first": authenticated(key, swapped=True),
    }[case]
    refused(await send(server, message), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))
    assert await issued(server) == 0


# ---- guesses

OTHER = "another secret of many characters"


def under_proof(key: PrivateKey, secret: str, named: str) -> bytes:
    csr_der = linked_csr(key, secret=secret)
    shown = proof([pki_data.tagged_pkcs10(1, csr_der)], secret=secret, identification=named)
    return proven(key, csr_der, controls.Identification(named), shown, controls.PopLinkRandom(RANDOM))


def under_mac(key: PrivateKey, secret: str, named: str) -> bytes:
    return authenticated(key, secret=secret, identifier=named, control=named)


Under = Callable[[PrivateKey, str, str], bytes]
ways = pytest.mark.parametrize("under", [under_proof, under_mac])


async def answered(server: Server, message: bytes, source: str = "192.0.2.7") -> int:
    return (await send(server, message, source=source)).answer.status


async def guessed(server: Server, under: Under, names: Iterable[str], *, source: str = "192.0.2.7") -> list[int]:
    """The statuses of wrong secrets under these names, one after the other."""
    key = new_key()
    messages = {named: under(key, OTHER, named) for named in dict.fromkeys(names)}
    return [await answered(server, messages[named], source) for named in names]


@ways
@pytest.mark.spec("THREAT-14")
async def test_guessing_at_one_secret_is_slowed_down_whoever_guesses(server: Server, under: Under) -> None:
    """As at a password, which the one who has it waits two seconds for."""
    wrong = under(new_key(), OTHER, NAME)
    assert [await answered(server, wrong, f"192.0.2.{number}") for number in range(30)] == [400] * 10 + [503] * 20
    right = under(new_key(), SECRET, NAME)
    assert await answered(server, right, "198.51.100.1") == 503
    server.clock.advance(seconds=2)
    assert await answered(server, right, "198.51.100.1") == 200
    assert await answered(server, wrong) == 400, "who has the secret takes the failures back"


@ways
@pytest.mark.spec("THREAT-14")
async def test_a_source_that_guesses_at_many_secrets_is_slowed_down_and_others_are_not(server: Server, under: Under) -> None:
    statuses = await guessed(server, under, [f"device-{number}" for number in range(100, 122)], source="192.0.2.99")
    assert statuses == [400] * 20 + [503] * 2
    assert await answered(server, under(new_key(), SECRET, NAME), "192.0.2.99") == 503
    assert await answered(server, under(new_key(), SECRET, NAME), "198.51.100.1") == 200


@ways
@pytest.mark.spec("THREAT-14")
async def test_where_the_service_hides_sources_a_stranger_shuts_out_nobody_but_whom_he_names(tmp_path: Path, under: Under) -> None:
    async with running(tmp_path, registry(), configuration=AppConfiguration(throttle_sources=False)) as hidden:
        assert set(await guessed(hidden, under, [f"device-{number}" for number in range(100, 122)])) == {400}
        assert await guessed(hidden, under, ["device-8"] * 11) == [400] * 10 + [503]
        assert await answered(hidden, under(new_key(), SECRET, NAME)) == 200


@ways
@pytest.mark.spec("THREAT-14")
async def test_a_right_secret_takes_back_one_failure_of_its_source(server: Server, under: Under) -> None:
    """A site behind one address, where one has an old secret, is not shut for the others."""
    for number in range(3):
        assert await guessed(server, under, [f"device-{number}"] * 8) == [400] * 8
        for _ in range(8):
            assert await answered(server, under(new_key(), SECRET, NAME)) == 200


@pytest.mark.spec("THREAT-14", "EST-CMC-35")
async def test_a_registration_authority_is_not_the_source_of_the_guesses_that_it_passes_on(server: Server) -> None:
    ra = await make_authority(server)
    for hundred in (100, 200):
        wrong = {number: under_mac(new_key(), OTHER, f"device-{hundred + number}") for number in range(1, 14)}
        reply = await send(server, ra.sign(wrapped(wrong, [controls.BatchRequests(tuple(wrong))])))
        assert reply.answer.status == 400
    key = new_key()
    assert (await send(server, authenticated(key))).certificate_for(key).subject == name(NAME)


async def test_a_message_under_a_secret_must_say_whose(server: Server) -> None:
    refused(await send(server, authenticated(new_key(), control=None)), CmcFailInfo.BAD_IDENTITY, (0,))


# ---- keys that do not sign


def encryption_only_csr(key: rsa.RSAPrivateKey, common_name: str = "device-1") -> bytes:
    """Signed by id-alg-noSignature: a digest where the signature belongs (RFC 5272 Appendix C.1)."""
    info = pki.sequence(pki.tlv(2, b"\x00"), name(common_name).public_bytes(), keys.spki_der(key.public_key()), pki.tlv(0xA0))
    return pki.sequence(info, cms_signature.NO_SIGNATURE, pki.tlv(3, b"\x00", Digest.SHA256.of(info)))


@pytest.mark.spec("EST-CMC-24", "EST-CMC-25")
async def test_a_key_that_does_not_sign_is_challenged_and_gets_its_certificate_when_it_answers(server: Server) -> None:
    device_key, certificate = await enrolled(server)
    key = pki.key(KeyAlgorithm.RSA_2048, "decrypts only")
    assert isinstance(key, rsa.RSAPrivateKey)
    csr_der = encryption_only_csr(key)
    tagged = pki_data.tagged_pkcs10(1, csr_der)
    first = await send(server, by_certificate(device_key, certificate, [csr_der]))
    refused(first, CmcFailInfo.POP_REQUIRED, (1,))
    (challenge,) = [value for value in first.values if isinstance(value, controls.EncryptedPop)]
    before = await issued(server)
    answer = answer_to(challenge, tagged, key)
    reply = await send(server, by_certificate(device_key, certificate, [csr_der], [controls.DecryptedPop(answer)]))
    assert await issued(server) == before + 1
    assert [each.public_key() for each in reply.certificates] == [key.public_key()]


def answer_to(challenge: controls.EncryptedPop, tagged: bytes, key: PrivateKey) -> bytes:
    parsed = pop_challenge.parse_encrypted_pop(challenge.value_der)
    return pop_challenge.answer_challenge(parsed, key, tagged_request_der=tagged, body_part_id=1)


@pytest.mark.spec("EST-CMC-24")
async def test_an_answer_to_another_challenge_is_pop_failed(server: Server) -> None:
    device_key, certificate = await enrolled(server)
    key = pki.key(KeyAlgorithm.RSA_2048, "decrypts only")
    assert isinstance(key, rsa.RSAPrivateKey)
    csr_der, other_csr = encryption_only_csr(key), encryption_only_csr(key, "device-2")
    first = await send(server, by_certificate(device_key, certificate, [other_csr]))
    (challenge,) = [value for value in first.values if isinstance(value, controls.EncryptedPop)]
    answer = answer_to(challenge, pki_data.tagged_pkcs10(1, other_csr), key)
    reply = await send(server, by_certificate(device_key, certificate, [csr_der], [controls.DecryptedPop(answer)]))
    refused(reply, CmcFailInfo.POP_FAILED, (2,))
    another_sender = await send(
        server,
        newcomer_message([other_csr], [controls.DecryptedPop(answer)]),
        authorization=basic(),
    )
    refused(another_sender, CmcFailInfo.POP_FAILED, (2,))


def newcomer_message(csrs: Sequence[bytes], values: Sequence[Control]) -> bytes:
    """Signed by nobody: whoever sends it is known by the connection."""
    requests = [pki_data.tagged_pkcs10(number, csr_der) for number, csr_der in enumerate(csrs, start=1)]
    return signed_data.build(pki_data.ID_CCT_PKI_DATA, full_request.body(requests, values), [])


@pytest.mark.spec("EST-CMC-26")
async def test_a_registration_authority_may_vouch_for_a_key_that_does_not_sign(server: Server) -> None:
    ra = await make_authority(server)
    key = pki.key(KeyAlgorithm.RSA_2048, "decrypts only")
    assert isinstance(key, rsa.RSAPrivateKey)
    reply = await send(server, ra.pass_on(vouched(encryption_only_csr(key))))
    assert [each.public_key() for each in reply.certificates] == [key.public_key()]
    silent = await send(server, ra.pass_on(vouched(encryption_only_csr(key), transaction_id=8, possession=False)))
    refused(silent, CmcFailInfo.POP_REQUIRED, (1,))


@pytest.mark.spec("EST-CMC-25")
async def test_no_signature_on_the_message_stands_for_a_key_that_cannot_sign(server: Server) -> None:
    """And proves nothing: the sender is known by its password, and the key is challenged."""
    key = pki.key(KeyAlgorithm.RSA_2048, "decrypts only")
    assert isinstance(key, rsa.RSAPrivateKey)
    extensions = pki.extension_request(pki.extension("2.5.29.14", pki.tlv(4, ski(key).digest)))
    info = pki.sequence(pki.tlv(2, b"\x00"), name("device-1").public_bytes(), keys.spki_der(key.public_key()), pki.tlv(0xA0, extensions))
    csr_der = pki.sequence(info, cms_signature.NO_SIGNATURE, pki.tlv(3, b"\x00", Digest.SHA256.of(info)))
    nothing = MessageSigner(digest=Digest.SHA256, algorithm=cms_signature.NO_SIGNATURE, sign=Digest.SHA256.of)
    body = full_request.body([pki_data.tagged_pkcs10(1, csr_der)], [])
    message = full_request.sign_by_key(body, ski(key).digest, nothing)
    refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)
    refused(await send(server, message, authorization=basic()), CmcFailInfo.POP_REQUIRED, (1,))


# ---- CRMF


@pytest.mark.spec("EST-CMC-14")
async def test_a_crmf_request_enrols_as_a_pkcs10_does(server: Server) -> None:
    key = new_key()
    body = full_request.body([pki_data.tagged_crmf(crmf_request(key))], [])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    assert (await send(server, message, authorization=basic())).certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-14", "EST-CLI-06")
async def test_a_crmf_request_is_judged_by_the_same_rules_and_named_by_its_cert_req_id(server: Server) -> None:
    key = new_key()
    body = full_request.body([pki_data.tagged_crmf(crmf_request(key, common_name="device-2"))], [])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    refused(await send(server, message, authorization=basic()), CmcFailInfo.BAD_REQUEST, (5,), http_status=403)


# ---- envelopes


def enveloped(content: bytes, content_type: str = signed_data.SIGNED_DATA, *, kek: KeyEncryptionKey = KEK) -> bytes:
    return enveloped_data.encrypt(content, content_type, [kek], content_key=bytes(range(32)), iv=bytes(range(16)))


def bare(content_info_der: bytes) -> bytes:
    return signed_data.parse_content_info(content_info_der)[1]


async def renewal(server: Server) -> tuple[PrivateKey, x509.Certificate, bytes]:
    key, certificate = await enrolled(server)
    return key, certificate, by_certificate(key, certificate, [make_csr("device-1", "a.devices.example")])


@pytest.mark.spec("EST-CMC-06")
async def test_an_encrypted_message_is_opened_with_or_without_a_content_info_inside(server: Server) -> None:
    _, _, message = await renewal(server)
    for inside in (bare(message), message):
        assert len((await send(server, enveloped(inside))).certificates) == 1


def around(enveloped_der: bytes, key: PrivateKey, certificate: x509.Certificate) -> bytes:
    """SignedData { EnvelopedData { SignedData } }."""
    identifier = signed_data.IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
    return signed_data.build(
        signed_data.ENVELOPED_DATA,
        bare(enveloped_der),
        [(identifier, signer_of(key))],
        certificates_der=[certificate.public_bytes(Encoding.DER)],
    )


@pytest.mark.spec("EST-CMC-06")
async def test_a_signed_envelope_is_opened_where_its_signer_is_the_inner_one_or_a_registration_authority(server: Server) -> None:
    key, certificate, message = await renewal(server)
    assert len((await send(server, around(enveloped(bare(message)), key, certificate))).certificates) == 1
    ra = await make_authority(server)
    passed_on = around(enveloped(bare(message)), ra.key, ra.certificate)
    assert len((await send(server, passed_on)).certificates) == 1


@pytest.mark.spec("EST-CMC-06", "EST-CMC-07", "THREAT-17")
async def test_a_signed_envelope_of_another_signer_is_refused(server: Server) -> None:
    _, _, message = await renewal(server)
    other_key = new_key()
    other = (await send(server, newcomer(other_key, newcomer_csr(other_key)), authorization=basic())).certificate_for(other_key)
    refused(await send(server, around(enveloped(bare(message)), other_key, other)), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))


@pytest.mark.parametrize("case", ["another recipient", "another key", "altered"])
@pytest.mark.spec("EST-CMC-06")
async def test_what_cannot_be_decrypted_is_bad_message_check_of_the_whole(server: Server, case: str) -> None:
    _, _, message = await renewal(server)
    match case:
        case "another recipient":
            der = enveloped(bare(message), kek=KeyEncryptionKey(key_identifier=b"others", key=bytes(32)))
        case "another key":
            der = enveloped(bare(message), kek=KeyEncryptionKey(key_identifier=b"fleet", key=bytes(31) + b"\x01"))
        case _:
            der = enveloped(bare(message))
            der = der[:-1] + bytes((der[-1] ^ 1,))
    refused(await send(server, der), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))


@pytest.mark.spec("EST-CMC-02")
async def test_an_envelope_around_something_else_is_refused(server: Server) -> None:
    reply: Reply = await send(server, enveloped(make_csr("device-1"), signed_data.DATA), authorization=basic())
    refused(reply, CmcFailInfo.BAD_REQUEST, (0,))
    assert reply.statuses[0].status is CmcStatus.FAILED
