"""The two halves of the protocol against each other: in memory first, then over real TLS on a loopback socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from estclient import Basic, Bearer, ClientCertificate, Credentials, EstClient, enrolment
from estcore import csr_builder, exchange
from estcore.errors import Refused
from estcore.exchange import HttpRequest, HttpResponse
from estcore.keys import PrivateKey, generate_private_key
from estserver.serve import serve
from estserver.tls import ServerTls
from tests.client.double import Identity
from tests.collect import collect
from tests.server.app_fixtures import (
    FACTORY_CA,
    NOW,
    PASSWORD,
    RA,
    USER,
    Server,
    make_csr,
    manifest,
    name,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)

CA = x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])
BASIC = Basic(user=USER, password=PASSWORD)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server


def keep(certificate: x509.Certificate) -> x509.Certificate:
    collect(certificate.public_bytes(Encoding.DER), CA.public_bytes(Encoding.DER))
    return certificate


# In memory


async def answer(app: Server, request: HttpRequest, *chain: x509.Certificate) -> HttpResponse:
    got = await app.request(request.method, request.target, headers=request.headers, body=request.body, connection=tls(*chain))
    return HttpResponse(status=got.status, headers=dict(got.headers), body=got.body)


@pytest.mark.spec("EST-CACERTS-01", "EST-CACERTS-04", "EST-CLI-02")
async def test_the_client_reads_the_ca_certificates_of_the_server(app: Server) -> None:
    assert exchange.read_ca_certs(await answer(app, exchange.get_ca_certs("factory")), now=NOW) == (CA,)


@pytest.mark.spec("EST-ENROLL-01", "EST-RESP-01", "EST-RESP-02", "EST-REENR-01", "EST-REENR-02")
async def test_the_client_enrols_and_renews(app: Server) -> None:
    key = new_key()
    csr_der = csr_builder.build(key, subject=name(USER), sans=[x509.DNSName("a.devices.example")])
    request = exchange.post_csr("factory", csr_der, renewal=False).with_headers(("Authorization", BASIC.header()))
    first = keep(exchange.read_issued(await answer(app, request), csr_der=csr_der, now=NOW))
    assert first.public_key() == key.public_key()

    app.clock.advance(days=1)
    rekey = csr_builder.build_renewal(new_key(), first)
    again = await answer(app, exchange.post_csr("factory", rekey, renewal=True), first)
    second = keep(exchange.read_issued(again, csr_der=rekey, now=NOW))
    assert (second.subject, second.serial_number != first.serial_number) == (first.subject, True)


@pytest.mark.spec("EST-CLI-06", "EST-RESP-05")
async def test_a_refusal_reaches_the_user_with_the_name_and_the_reason(app: Server) -> None:
    request = exchange.post_csr("factory", make_csr(USER, "evil.example"), renewal=False).with_headers(("Authorization", BASIC.header()))
    with pytest.raises(Refused, match=r"\(403\): .*DNS:evil\.example") as refused:
        exchange.check_status(await answer(app, request), now=NOW)
    assert refused.value.http_status == 403


# Over TLS


@dataclass(frozen=True, kw_only=True)
class Served:
    """The application behind a socket."""

    app: Server
    port: int
    anchors_pem: bytes

    def client(self, credentials: Credentials | None = None) -> EstClient:
        return EstClient(
            url=f"https://localhost:{self.port}",
            label="factory",
            anchors_pem=self.anchors_pem,
            credentials=credentials,
            timeout=timedelta(seconds=10),
        )


@asynccontextmanager
async def serving(app: Server, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        shutdown = asyncio.Event()
        server_tls = ServerTls(certificate_chain_pem=server.chain_pem, private_key_pem=server.key_pem)
        task = asyncio.create_task(serve(app.app, sockets=[sock], tls=server_tls, shutdown=shutdown, drain=timedelta(seconds=1)))
        try:
            yield Served(app=app, port=sock.getsockname()[1], anchors_pem=ca.pem)
        finally:
            shutdown.set()
            await task


@pytest.fixture
async def served(app: Server, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    async with serving(app, ca, server) as running_server:
        yield running_server


@pytest.fixture
async def binding_required(tmp_path: Path, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    registry = registry_of(manifest(spec=with_est(channelBinding="Required")))
    async with running(tmp_path, registry) as app, serving(app, ca, server) as running_server:
        yield running_server


def certificate_of(certificate: x509.Certificate, key: PrivateKey) -> ClientCertificate:
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ClientCertificate(chain_pem=certificate.public_bytes(Encoding.PEM), key_pem=key_pem)


@pytest.mark.spec("EST-TLS-03", "EST-TLS-06", "EST-TLS-07", "EST-TLS-15", "EST-REENR-04")
async def test_a_device_enrols_with_a_password_and_renews_with_its_certificate(served: Served) -> None:
    key = new_key()
    async with served.client(BASIC) as client:
        assert await client.ca_certs() == (CA,)
        first = keep(await client.simple_enroll(make_csr(USER, "a.devices.example", key=key)))
    served.app.clock.advance(days=1)
    async with served.client(certificate_of(first, key)) as client:
        renewed = keep(await client.simple_reenroll(csr_builder.build_renewal(key, first)))
        rekeyed = keep(await client.simple_reenroll(csr_builder.build_renewal(new_key(), first)))
    assert renewed.public_key() == first.public_key() != rekeyed.public_key()
    assert len({first.serial_number, renewed.serial_number, rekeyed.serial_number}) == 3


@pytest.mark.spec("EST-ATTR-01", "EST-ATTR-16", "EST-ATTR-17", "EST-CLI-02", "EST-POP-17")
@pytest.mark.parametrize("binding", ["Optional", "Required"])
async def test_a_device_that_knows_nothing_enrols_as_an_issuer_that_insists_tells_it(served: Served, binding: str) -> None:
    policy = {
        "keys": ["ECDSA-P384"],
        "usages": ["digital signature", "client auth"],
        "rules": [
            {
                "from": {"authentication": "basic"},
                "subject": {"commonName": "{user}", "organization": "Acme"},
                "dnsNames": ["{user}.example"],
            }
        ],
    }
    insisting = {**with_est(csrAttributes="Enforced", channelBinding=binding), "policy": policy}
    served.app.issuers.current = registry_of(manifest(spec=insisting))
    async with served.client(BASIC) as client:
        wishes = await enrolment.ask(client)
        assert wishes.key is not None
        algorithm = wishes.key.best()
        assert algorithm is not None
        done = await enrolment.enroll(client, generate_private_key(algorithm), enrolment.Wanted(subject=name(None)))
        with pytest.raises(Refused, match="it lacks a key of EC P-384, the subject's organizationName"):
            await client.simple_enroll(lambda binding: make_csr(USER, channel_binding=binding))
    certificate = keep(done.certificate)
    assert (done.unmet, done.changed) == ((), ())
    assert certificate.subject.rfc4514_string() == f"CN={USER},O=Acme"
    (dns_name,) = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert dns_name.value == f"{USER}.example"


@pytest.mark.spec("EST-ATTR-02", "EST-CLI-02")
async def test_csr_attributes_are_read_without_authentication(served: Served) -> None:
    async with served.client(None) as client:
        assert await client.csr_attrs()
        served.app.issuers.current = registry_of(manifest(spec=with_est(csrAttributes="None")))
        assert await client.csr_attrs() == ()


async def test_a_repeated_enrolment_gets_the_same_certificate(served: Served) -> None:
    """What makes the client's repeat on a fresh connection safe."""
    csr_der = make_csr(USER, "a.devices.example")
    async with served.client(BASIC) as client, served.client(BASIC) as another:
        assert await client.simple_enroll(csr_der) == await another.simple_enroll(csr_der)


async def test_a_pod_enrols_with_its_token(served: Served) -> None:
    token = served.app.reviewer.add("shop/web", audience="devices")
    async with served.client(Bearer(token=lambda: token)) as client:
        certificate = keep(await client.simple_enroll(make_csr(None, "web.shop.svc")))
    assert certificate.subject == name(None)


@pytest.mark.spec("EST-AUTH-02", "EST-AUTH-06")
async def test_a_wrong_password_is_refused_with_a_reason(served: Served) -> None:
    async with served.client(Basic(user=USER, password="guess")) as client:
        with pytest.raises(Refused, match="password is wrong") as refused:
            await client.simple_enroll(make_csr(USER, "a.devices.example"))
    assert refused.value.http_status == 401


@pytest.mark.spec("EST-POP-02", "EST-POP-05", "EST-POP-06", "EST-POP-07", "EST-POP-09", "EST-POP-12")
@pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["tls-unique on 1.2", "tls-exporter on 1.3"])
async def test_the_binding_of_each_tls_version_is_the_servers_too(binding_required: Served, newest: int) -> None:
    key = new_key()
    async with binding_required.client(BASIC) as client:
        client._context._context.set_max_proto_version(newest)  # the client has no such setting: it takes the newest there is
        certificate = await client.simple_enroll(
            lambda binding: make_csr(USER, "a.devices.example", key=key, channel_binding=binding),
        )
        with pytest.raises(Refused, match=r"challengePassword|binding"):
            await client.simple_enroll(make_csr(USER, "b.devices.example", key=key))
    assert keep(certificate).public_key() == key.public_key()


@pytest.mark.spec("EST-POP-03", "EST-POP-10", "THREAT-16")
async def test_a_csr_of_one_connection_is_worth_nothing_on_another(served: Served) -> None:
    bound = []

    def build(binding: bytes) -> bytes:
        bound.append(make_csr(USER, "a.devices.example", channel_binding=binding))
        return bound[0]

    async with served.client(BASIC) as client, served.client(BASIC) as another:
        keep(await client.simple_enroll(build))
        with pytest.raises(Refused) as refused:
            await another.simple_enroll(bound[0])
    assert refused.value.http_status == 400


async def test_the_operator_polls_the_issuers(served: Served) -> None:
    token = served.app.reviewer.add(RA, audience="est-issuer")
    async with served.client(Bearer(token=lambda: token)) as client:
        first = await client.get_json("/est-issuer/v1/issuers")
        assert first is not None
        assert [issuer["name"] for issuer in first.value["issuers"]] == ["factory"]
        assert await client.get_json("/est-issuer/v1/issuers", first.etag) is None


async def test_fifty_enrolments_at_once_yield_fifty_certificates(served: Served) -> None:
    async with served.client(BASIC) as client:
        certificates = await asyncio.gather(*(client.simple_enroll(make_csr(USER, f"d{i}.devices.example")) for i in range(50)))
    assert len({certificate.serial_number for certificate in certificates}) == 50
