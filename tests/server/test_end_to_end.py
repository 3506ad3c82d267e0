"""The application over its real transport, with clients that know nothing of it: Python's ssl and http.client, and our own EstClient."""

import asyncio
import http.client
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from estclient.client import EstClient
from estclient.credentials import Basic, Bearer, ClientCertificate
from estcore import csr_builder, transfer
from estcore.keys import PrivateKey
from estserver.serve import serve
from estserver.tls import ServerTls
from tests import pki
from tests.collect import collect
from tests.server.app_fixtures import (
    FACTORY_CA,
    MANUFACTURER_CA,
    NOW,
    OTHER_CA,
    PASSWORD,
    RA,
    USER,
    Server,
    basic,
    leaf,
    make_csr,
    name,
    new_key,
    running,
)
from tests.server.transport_fixtures import ROOT, SERVER_KEY, server_certificate

KEY = new_key()


@dataclass
class Site:
    """A server that listens."""

    application: Server
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self, credentials: Basic | Bearer | ClientCertificate | None = None, *, label: str | None = "factory") -> EstClient:
        return EstClient(
            url=self.url, label=label, anchors_pem=pki.pem(ROOT.certificate), credentials=credentials, now=self.application.clock
        )

    async def ask(self, method: str, path: str, context: ssl.SSLContext, **request: object) -> tuple[int, list[tuple[str, str]], bytes]:
        """One request by http.client on a connection of its own."""

        def _ask() -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)
            try:
                connection.request(method, path, **request)  # type: ignore[arg-type]  # body and headers, as the caller says
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        return await asyncio.to_thread(_ask)


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[Site]:
    async with running(directory) as application:
        sock = socket.create_server(("127.0.0.1", 0))
        shutdown = asyncio.Event()
        serving = asyncio.create_task(
            serve(
                application.app,
                sockets=[sock],
                tls=ServerTls(pki.pem(server_certificate()), pki.key_pem(SERVER_KEY)),
                shutdown=shutdown,
                drain=timedelta(seconds=5),
                observer=application.metrics,
            )
        )
        try:
            yield Site(application, sock.getsockname()[1])
        finally:
            shutdown.set()
            await serving


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with listening(tmp_path) as listening_site:
        yield listening_site


def credentials(certificate: x509.Certificate, key: PrivateKey) -> ClientCertificate:
    return ClientCertificate(chain_pem=certificate.public_bytes(Encoding.PEM), key_pem=pki.key_pem(key))


def context(directory: Path, version: ssl.TLSVersion, certificate: x509.Certificate | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=pki.pem(ROOT.certificate).decode())
    made.minimum_version = made.maximum_version = version
    if certificate is not None:
        file = directory / "client.pem"
        file.write_bytes(certificate.public_bytes(Encoding.PEM) + pki.key_pem(KEY))
        made.load_cert_chain(file)
    return made


@pytest.mark.spec("EST-URI-01", "EST-TLS-06", "EST-TLS-09", "EST-POP-12", "EST-REENR-01", "EST-CACERTS-05")
async def test_a_device_enrols_by_password_bound_to_its_connection_and_renews_by_certificate(site: Site) -> None:
    async with site.client(Basic(user=USER, password=PASSWORD)) as client:
        (ca,) = await client.ca_certs()
        first = await client.simple_enroll(
            lambda binding: csr_builder.build(KEY, subject=name(USER), sans=[x509.DNSName("a.devices.example")], channel_binding=binding)
        )
    first.verify_directly_issued_by(ca)
    async with site.client(credentials(first, KEY)) as client:
        renewed = await client.simple_reenroll(lambda binding: csr_builder.build_renewal(KEY, first, channel_binding=binding))
    for certificate in (first, renewed):
        collect(pki.der(certificate), pki.der(ca))
    assert renewed.subject == first.subject
    assert renewed.serial_number != first.serial_number
    assert [event["result"] for event in site.application.audit_events if event["audit"] == "signed"] == ["issued", "issued"]
    assert site.application.metric('est_connections_total{result="accepted"}') == 2


async def test_the_operator_enrols_and_polls_with_its_token(site: Site) -> None:
    token = site.application.reviewer.add(RA, audience="est-issuer")
    async with site.client(Bearer(token=lambda: token)) as client:
        csr_der = make_csr("web", "web.team-a.svc")
        first = await client.simple_enroll(csr_der)
        assert await client.simple_enroll(csr_der) == first
        listed = await client.get_json("/est-issuer/v1/issuers")
        assert listed is not None
        assert [issuer["state"] for issuer in listed.value["issuers"]] == ["Ready"]
        assert await client.get_json("/est-issuer/v1/issuers", listed.etag) is None


@pytest.mark.spec("EST-TLS-03", "EST-TLS-08", "THREAT-11", "THREAT-12")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_of_four_forged_certificates_none_is_accepted_and_the_true_ones_are(
    site: Site, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Unknown CA, forged signature, expired, wrong purpose: TLS lets them pass, estcore.trust does not (design: decision 1)."""
    forged = [
        leaf(OTHER_CA, key=KEY),
        leaf(FACTORY_CA, key=KEY, signed_by=OTHER_CA),
        leaf(key=KEY, not_after=NOW - timedelta(days=1), not_before=NOW - timedelta(days=2)),
        leaf(key=KEY, purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        leaf(MANUFACTURER_CA, key=KEY, signed_by=OTHER_CA),
    ]
    headers = {"Content-Type": "application/pkcs10"}
    body = transfer.encode_body(make_csr(USER, key=KEY))
    for certificate in forged:
        tls = context(tmp_path, version, certificate)
        assert (await site.ask("POST", "/.well-known/est/factory/simplereenroll", tls, body=body, headers=headers))[0] == 403
        assert (await site.ask("POST", "/.well-known/est/factory/simpleenroll", tls, body=body, headers=headers))[0] == 401
        assert (await site.ask("GET", "/.well-known/est/factory/cacerts", tls))[0] == 200
    assert site.application.audit_lines == []
    own = context(tmp_path, version, leaf(key=KEY))
    assert (await site.ask("POST", "/.well-known/est/factory/simplereenroll", own, body=body, headers=headers))[0] == 200
    third = context(tmp_path, version, leaf(MANUFACTURER_CA, key=KEY))
    assert (await site.ask("POST", "/.well-known/est/factory/simpleenroll", third, body=body, headers=headers))[0] == 200


@pytest.mark.spec("EST-RESP-01", "EST-AUTH-02")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_header_names_leave_in_the_case_that_old_clients_compare(site: Site, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """interop.md pitfalls 1, 2 and 7."""
    tls = context(tmp_path, version)
    body = transfer.encode_body(make_csr())
    status, headers, _ = await site.ask(
        "POST", "/.well-known/est/factory/simpleenroll", tls, body=body, headers={"Content-Type": "application/pkcs10"}
    )
    assert status == 401
    assert [header for header, _ in headers if header.lower() == "www-authenticate"] == ["WWW-Authenticate"] * 2
    granted, headers, _ = await site.ask(
        "POST",
        "/.well-known/est/factory/simpleenroll",
        tls,
        body=body,
        headers={"Content-Type": "application/pkcs10", "Authorization": basic()},
    )
    assert granted == 200
    assert ("Content-Type", "application/pkcs7-mime; smime-type=certs-only") in headers
    assert {"Content-Length", "Content-Type"} <= {header for header, _ in headers}
    assert not {"Transfer-Encoding", "Content-Encoding"} & {header for header, _ in headers}
    missing, headers, text = await site.ask("POST", "/.well-known/est/factory/cacerts", tls)
    assert (missing, dict(headers)["Allow"], text) == (405, "GET", b"this operation is invoked by GET\n")
