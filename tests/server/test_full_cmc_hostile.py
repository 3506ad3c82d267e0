"""Full PKI Requests that nobody may get anything for: each is refused with a CMC body, at once, and nothing is issued (threats row 17)."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import Unpack

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import (
    cert_template,
    cms_signature,
    csr_builder,
    full_request,
    pki_data,
    ra_witness,
    secret_request,
    signed_data,
    template_modification,
)
from estcore import cmc_controls as controls
from estcore.cmc_status import CmcStatus
from estcore.cms_signature import MessageSigner, signer_of
from estcore.der import integer
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.pki_data import ID_CCT_PKI_DATA, TaggedAttribute, TaggedContentInfo
from estcore.secret_request import Newcomer
from estcore.signed_data import IssuerAndSerialNumber, SignerIdentifier, SubjectKeyIdentifier
from tests import pki
from tests.core.template_fields import TemplateFields
from tests.server.app_fixtures import NOW, OTHER_CA, Server, basic, leaf, make_csr, name, new_key, running
from tests.server.cmc_fixtures import (
    CMC_RA,
    Authority,
    enrolled,
    extension,
    make_authority,
    newcomer_csr,
    send,
    ski,
)
from tests.server.test_full_cmc import issued

MAX_CPU_SECONDS = 0.05
CMC = "1.3.6.1.5.5.7.7."


@dataclass(frozen=True)
class World:
    """Who may try: a device with a certificate, a registration authority, and a stranger's key."""

    device_key: PrivateKey = field(repr=False)
    device: x509.Certificate
    ra: Authority
    key: PrivateKey = field(repr=False)

    @property
    def csr(self) -> bytes:
        """What the device may have."""
        return make_csr("device-1", "a.devices.example", key=self.key)

    def by_device(self, body_der: bytes) -> bytes:
        return full_request.sign_by_certificate(body_der, self.device, signer_of(self.device_key))

    def asks(self, *values: controls.Control) -> bytes:
        """The device asks for what it may have, with these controls."""
        return self.by_device(full_request.body([pki_data.tagged_pkcs10(1, self.csr)], values))

    def says(self, *tagged: TaggedAttribute, requests: Sequence[bytes] | None = None, contents: Sequence[TaggedContentInfo] = ()) -> bytes:
        """The same with controls as they are."""
        requests = [pki_data.tagged_pkcs10(1, self.csr)] if requests is None else requests
        return self.by_device(pki_data.encode(controls=tagged, requests_der=requests, contents=contents))

    def passed_on(self, *values: controls.Control, csr_der: bytes | None = None) -> bytes:
        """The registration authority sends a CSR on."""
        return self.ra.sign(full_request.body([pki_data.tagged_pkcs10(1, csr_der or self.csr)], values))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.fixture
async def world(server: Server) -> World:
    key, certificate = await enrolled(server)
    return World(key, certificate, await make_authority(server), new_key())


def control(number: int | str, *values_der: bytes, body_part_id: int = 9) -> TaggedAttribute:
    attr_type = f"{CMC}{number}" if isinstance(number, int) else number
    return TaggedAttribute(body_part_id=body_part_id, attr_type=attr_type, values_der=values_der)


def modify(*extensions: x509.ExtensionType, requests: Sequence[int] = (1,), **fields: Unpack[TemplateFields]) -> controls.ModCertTemplate:
    template = cert_template.build(extensions=[extension(value) for value in extensions], **fields)
    return controls.ModCertTemplate(template_modification.build_mod_cert_template(template, requests=requests))


def raw_modify(template_content: bytes) -> controls.ModCertTemplate:
    return controls.ModCertTemplate(
        pki.sequence(pki.sequence(b"\x02\x01\x00"), pki.sequence(b"\x02\x01\x01"), pki.sequence(template_content))
    )


WITNESS = controls.LraPopWitness(ra_witness.build_pop_witness(1))
SUBJECT = name("somebody else")


# ---- signatures and envelopes


def by_issuer_and_serial(certificate: x509.Certificate) -> IssuerAndSerialNumber:
    return IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)


def signed_within_signed(world: World) -> bytes:
    inner = signed_data.parse_content_info(world.asks())[1]
    return signed_data.build(
        signed_data.SIGNED_DATA,
        inner,
        [(by_issuer_and_serial(world.device), signer_of(world.device_key))],
        certificates_der=[world.device.public_bytes(Encoding.DER)],
    )


def of_another_content_type(world: World) -> bytes:
    body = full_request.body([pki_data.tagged_pkcs10(1, world.csr)], [])
    return signed_data.build(
        "1.3.6.1.5.5.7.12.3",
        body,
        [(by_issuer_and_serial(world.device), signer_of(world.device_key))],
        certificates_der=[world.device.public_bytes(Encoding.DER)],
    )


def with_an_unsigned_attribute(world: World) -> bytes:
    """id-aa-cmc-unsignedData, put in by somebody on the way."""
    message = world.asks()
    parsed = signed_data.parse(message)
    signature = pki.tlv(0x04, parsed.signers[0].signature)
    value = pki.sequence(pki.sequence(b"\x02\x01\x01"), pki.oid("1.2.3"), b"\x05\x00")
    changed = rebuilt(message, signature, signature + pki.tlv(0xA1, pki.attribute("1.2.840.113549.1.9.16.2.34", value)))
    assert signed_data.parse(changed).signers[0].unsigned_attributes
    return changed


def rebuilt(value: bytes, old: bytes, new: bytes) -> bytes:
    """DER with one value at its end exchanged, and all lengths around it made right again."""
    if value == old:
        return new
    if old not in value or not value[0] & 0x20:
        return value
    parts, position = [], 2 + (value[1] & 0x7F if value[1] & 0x80 else 0)
    while position < len(value):
        length, header = value[position + 1], 2
        if length & 0x80:
            header += length & 0x7F
            length = int.from_bytes(value[position + 2 : position + header])
        parts.append(rebuilt(value[position : position + header + length], old, new))
        position += header + length
    return pki.tlv(value[0], *parts)


def by_two_signers(world: World) -> bytes:
    own = SubjectKeyIdentifier(ski(world.key).digest)
    body = full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(world.key))], [])
    signers: list[tuple[SignerIdentifier, MessageSigner]] = [
        (own, signer_of(world.key)),
        (by_issuer_and_serial(world.device), signer_of(world.device_key)),
    ]
    return signed_data.build(ID_CCT_PKI_DATA, body, signers, certificates_der=[world.device.public_bytes(Encoding.DER)])


def by_a_forged_certificate(world: World) -> bytes:
    key = new_key()
    forged = leaf(common_name="device-1", key=key, signed_by=OTHER_CA)
    return full_request.sign_by_certificate(full_request.body([pki_data.tagged_pkcs10(1, world.csr)], []), forged, signer_of(key))


def by_a_certificate_that_expired(world: World) -> bytes:
    key = new_key()
    old = leaf(common_name="device-1", key=key, not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))
    return full_request.sign_by_certificate(full_request.body([pki_data.tagged_pkcs10(1, world.csr)], []), old, signer_of(key))


def by_a_servers_certificate(world: World) -> bytes:
    key = new_key()
    server_only = leaf(common_name="device-1", key=key, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    return full_request.sign_by_certificate(full_request.body([pki_data.tagged_pkcs10(1, world.csr)], []), server_only, signer_of(key))


def by_another_key_than_the_certificates(world: World) -> bytes:
    return full_request.sign_by_certificate(
        full_request.body([pki_data.tagged_pkcs10(1, world.csr)], []), world.device, signer_of(new_key())
    )


def by_a_key_that_is_not_asked_for(world: World) -> bytes:
    body = full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(world.key))], [])
    stranger = new_key()
    return full_request.sign_by_key(body, ski(stranger).digest, signer_of(stranger))


def by_a_stranger_under_the_name_of_the_key(world: World) -> bytes:
    body = full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(world.key))], [])
    return full_request.sign_by_key(body, ski(world.key).digest, signer_of(new_key()))


def by_no_signature(world: World) -> bytes:
    body = full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(world.key))], [])
    digest = cms_signature.Digest.SHA256
    nothing = cms_signature.MessageSigner(digest=digest, algorithm=cms_signature.NO_SIGNATURE, sign=digest.of)
    return full_request.sign_by_key(body, ski(world.key).digest, nothing)


def without_signer(world: World) -> bytes:
    return signed_data.build(ID_CCT_PKI_DATA, full_request.body([pki_data.tagged_pkcs10(1, world.csr)], []), [])


def by_a_self_made_registration_authority(world: World) -> bytes:
    """A certificate of nobody with id-kp-cmcRA."""
    root = pki.ca("Factory CA")
    key = new_key()
    certificate = pki.leaf(root, subject=name("operator"), public_key=key.public_key(), ekus=(pki.CLIENT_AUTH, CMC_RA))
    body = full_request.body([pki_data.tagged_pkcs10(1, world.csr)], [WITNESS, modify(subject=SUBJECT)])
    return full_request.sign_by_certificate(body, certificate, signer_of(key))


def under_no_secret(world: World) -> bytes:
    """AuthenticatedData where the issuer has no shared secrets."""
    newcomer = Newcomer(identification="device-1", secret="x" * 16, random=bytes(64))
    body = secret_request.body(newcomer, [secret_request.tagged_request(world.key, newcomer, subject=name("device-1"))], proof=False)
    return secret_request.authenticate(body, newcomer, salt=bytes(16), mac_key=bytes(32))


# ---- requests and references


def one_of_two_is_not_permitted(world: World) -> bytes:
    other = make_csr("device-2", "b.elsewhere.example", key=new_key())
    return world.says(requests=[pki_data.tagged_pkcs10(1, world.csr), pki_data.tagged_pkcs10(2, other)])


def one_of_two_is_beyond_the_profile(world: World) -> bytes:
    """The names of both are permitted; that the second cannot be signed is known before the first one is."""
    requests = [pki_data.tagged_pkcs10(1, world.csr), pki_data.tagged_pkcs10(2, make_csr("device-1", "b.devices.example", key=new_key()))]
    too_long = modify(not_before=NOW, not_after=NOW + timedelta(days=4000), requests=[2])
    return world.ra.sign(full_request.body(requests, [too_long]))


def one_of_two_is_not_proven(world: World) -> bytes:
    unproven = csr_builder.without_signature(make_csr("device-1", "a.devices.example", key=pki.key(KeyAlgorithm.ED25519, "signs only")))
    return world.says(requests=[pki_data.tagged_pkcs10(1, world.csr), pki_data.tagged_pkcs10(2, unproven)])


def a_flipped_bit_in_the_csr(world: World) -> bytes:
    csr = bytearray(world.csr)
    csr[-1] ^= 1
    return world.says(requests=[pki_data.tagged_pkcs10(1, bytes(csr))])


def seventeen_requests(world: World) -> bytes:
    return world.says(requests=[pki_data.tagged_pkcs10(number, world.csr) for number in range(1, 18)])


def a_nested_message_of_a_nobody(world: World) -> bytes:
    """A registration authority's batch, with a message in it that a stranger signed: nobody's identity, but the authority vouches."""
    inner = by_another_key_than_the_certificates(world)
    body = pki_data.encode(
        controls=[control(28, pki.sequence(b"\x02\x01\x05"))], contents=[TaggedContentInfo(body_part_id=5, content_info_der=inner)]
    )
    return world.ra.sign(body)


def a_batch_that_names_itself(world: World) -> bytes:
    return world.ra.sign(pki_data.encode(controls=[control(28, pki.sequence(b"\x02\x01\x09"))]))


def deep(levels: int) -> bytes:
    value = b"\x05\x00"
    for _ in range(levels):
        value = pki.sequence(value)
    return value


MESSAGES: dict[str, Callable[[World], bytes]] = {
    # what is around
    "a SignedData in a SignedData": signed_within_signed,
    "a PKIResponse for a PKIData": of_another_content_type,
    "an unsigned attribute": with_an_unsigned_attribute,
    "two signers": by_two_signers,
    "a forged certificate": by_a_forged_certificate,
    "an expired certificate": by_a_certificate_that_expired,
    "a certificate for servers": by_a_servers_certificate,
    "a certificate and another key": by_another_key_than_the_certificates,
    "a key that is not asked for": by_a_key_that_is_not_asked_for,
    "a stranger under the name of the key": by_a_stranger_under_the_name_of_the_key,
    "noSignature for a key that signs": by_no_signature,
    "no signer": without_signer,
    "a registration authority of its own making": by_a_self_made_registration_authority,
    "AuthenticatedData where there is no secret": under_no_secret,
    # what only a registration authority may say
    "modCertTemplate from a device": lambda world: world.asks(modify(subject=SUBJECT)),
    "addExtensions from a device": lambda world: world.asks(
        controls.AddExtensions(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x02\x01\x01"), pki.sequence()))
    ),
    "lraPOPWitness from a device": lambda world: world.asks(WITNESS),
    "controlProcessed from a device, for an unknown control": lambda world: world.says(
        control(32, pki.sequence(pki.sequence(b"\x02\x01\x0a"))), control("1.2.3.4", b"\x05\x00", body_part_id=10)
    ),
    "raIdentityWitness from a device": lambda world: world.says(control(35, pki.sequence(b"\x02\x01\x01"))),
    "batchRequests from a device": lambda world: world.says(
        control(28, pki.sequence(b"\x02\x01\x05")), contents=[TaggedContentInfo(body_part_id=5, content_info_der=world.asks())]
    ),
    # what not even a registration authority may
    "CA:TRUE where the policy has none": lambda world: world.passed_on(modify(x509.BasicConstraints(ca=True, path_length=None))),
    "cmcRA for somebody": lambda world: world.passed_on(modify(x509.ExtendedKeyUsage([CMC_RA]))),
    "nameConstraints": lambda world: world.passed_on(
        modify(x509.NameConstraints(permitted_subtrees=[x509.DNSName("a.example")], excluded_subtrees=None))
    ),
    "a serial number": lambda world: world.passed_on(raw_modify(b"\x81\x01\x05")),
    "another public key": lambda world: world.passed_on(raw_modify(b"\xa6" + pki.spki_der(new_key().public_key())[1:])),
    "another issuer": lambda world: world.passed_on(raw_modify(pki.tlv(0xA3, name("Other CA").public_bytes()))),
    "a life beyond the policy's": lambda world: world.passed_on(modify(not_before=NOW, not_after=NOW + timedelta(days=4000))),
    "a beginning in the past": lambda world: world.passed_on(
        modify(not_before=NOW - timedelta(days=30), not_after=NOW + timedelta(days=1))
    ),
    "a name that may not be": lambda world: world.passed_on(modify(x509.SubjectAlternativeName(pki.dns("*.com")))),
    "two templates for one field": lambda world: world.passed_on(modify(subject=SUBJECT), modify(subject=name("another"))),
    "a template for a request that is not there": lambda world: world.passed_on(modify(subject=SUBJECT, requests=[2])),
    "a witness for a request that is not there": lambda world: world.passed_on(controls.LraPopWitness(ra_witness.build_pop_witness(2))),
    "a batch that names no message": a_batch_that_names_itself,
    "a batch with a message of a nobody": a_nested_message_of_a_nobody,
    # requests
    "one of two requests that is not permitted": one_of_two_is_not_permitted,
    "one of two requests that is beyond the profile": one_of_two_is_beyond_the_profile,
    "one of two requests that is not proven": one_of_two_is_not_proven,
    "a damaged CSR": a_flipped_bit_in_the_csr,
    "seventeen requests": seventeen_requests,
    "two requests of one number": lambda world: world.says(requests=[pki_data.tagged_pkcs10(1, world.csr)] * 2),
    "a control with the number of a request": lambda world: world.says(control(5, integer(7), body_part_id=1)),
    "a request with the number 0": lambda world: world.says(requests=[pki_data.tagged_pkcs10(0, world.csr)]),
    "a request with the number 2^32": lambda world: world.says(requests=[pki_data.tagged_pkcs10(1 << 32, world.csr)]),
    "a form of request that nobody knows": lambda world: world.says(
        requests=[pki_data.tagged_pkcs10(1, world.csr), pki.tlv(0xA2, b"\x02\x01\x02", pki.oid("1.2.3"), b"\x05\x00")]
    ),
    # controls
    "an unknown control": lambda world: world.says(control("1.2.3.4", b"\x05\x00")),
    "a private control of Microsoft": lambda world: world.says(control("1.3.6.1.4.1.311.10.10.1", pki.sequence())),
    "popLinkWitness beside a request": lambda world: world.says(control(33, pki.sequence())),
    "a control without value": lambda world: world.says(control(5)),
    "a control with two values": lambda world: world.says(control(5, integer(1), integer(2))),
    "a control of the wrong type": lambda world: world.says(control(5, pki.tlv(0x04, b"7"))),
    "two transactions": lambda world: world.says(control(5, integer(1)), control(5, integer(2), body_part_id=10)),
    "two nonces": lambda world: world.says(control(6, pki.tlv(0x04, b"a")), control(6, pki.tlv(0x04, b"b"), body_part_id=10)),
    "a transaction of 65 octets": lambda world: world.says(control(5, pki.tlv(0x02, b"\x01" * 65))),
    "an encryptedPOP, which is an answer": lambda world: world.says(control(9, pki.sequence())),
    "trust anchors": lambda world: world.says(
        control(26, pki.sequence(b"\x02\x01\x01", pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1")), pki.sequence()))
    ),
    "an answer to no challenge": lambda world: world.asks(
        controls.DecryptedPop(pki.sequence(b"\x02\x01\x01", pki.sequence(pki.oid("1.2.840.113549.2.9")), pki.tlv(0x04, bytes(32))))
    ),
    "a random value without a secret": lambda world: world.asks(controls.PopLinkRandom(bytes(64))),
    "65 controls": lambda world: world.says(*(control(4, pki.tlv(0x04, b"x"), body_part_id=100 + each) for each in range(65))),
    "a value nested 200 deep": lambda world: world.says(control("1.2.3.4", deep(200))),
    # octets
    "an indefinite length": lambda world: b"\x30\x80" + world.asks()[4:] + b"\x00\x00",
    "octets behind": lambda world: world.asks() + b"\x00",
    "the half of it": lambda world: world.asks()[: len(world.asks()) // 2],
    "a PKCS#10 CSR": lambda world: world.csr,
    "nothing": lambda world: b"",
}


def test_there_are_more_than_thirty_messages() -> None:
    assert len(MESSAGES) >= 60


@pytest.mark.spec("THREAT-17", "THREAT-09", "EST-CMC-02", "EST-CMC-04", "EST-CMC-12", "EST-CLI-05")
async def test_every_hostile_message_is_refused_at_once_and_nothing_is_issued(server: Server, world: World) -> None:
    """One server for all, so that the table costs a second and not twenty."""
    before, faults = await issued(server), {}
    for message, make in MESSAGES.items():
        octets = make(world)
        start = process_time()
        reply = await send(server, octets)
        seconds = process_time() - start
        # A refusal is a PKIResponse that says why (RFC 7030 section 4.3.2).
        said = reply.statuses and all(each.fail_info is not None or each.status is CmcStatus.NO_SUPPORT for each in reply.statuses)
        if not (400 <= reply.answer.status < 500 and said and seconds < MAX_CPU_SECONDS and await issued(server) == before):
            faults[message] = (reply.answer.status, reply.statuses, seconds, await issued(server) - before)
    assert faults == {}


@pytest.mark.spec("THREAT-17")
async def test_the_messages_of_this_table_are_good_but_for_their_one_fault(server: Server, world: World) -> None:
    """Otherwise the table would show nothing."""
    assert (await send(server, world.asks())).certificate_for(world.key).subject == name("device-1")
    other = new_key()
    csr = make_csr("device-1", "a.devices.example", key=other)
    passed_on = world.passed_on(WITNESS, modify(subject=SUBJECT), csr_der=csr)
    assert (await send(server, passed_on, authorization=world.ra.bearer)).certificate_for(other).subject == SUBJECT
    newcomer = full_request.sign_by_key(
        full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(other))], []), ski(other).digest, signer_of(other)
    )
    assert (await send(server, newcomer, authorization=basic())).certificate_for(other).subject == name("device-1")
