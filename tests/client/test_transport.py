"""The TLS side of the client, against servers that must not be talked to and servers that must."""

import ssl
import warnings
from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, ObjectIdentifier

from estclient import ClientCertificate, Credentials, EstClient
from estclient.transport import check_identity
from estcore import csr_builder
from estcore.errors import ConfigurationError, ServerUnavailable, UntrustedServer
from tests.client.double import (
    CMC_CA,
    CMC_RA,
    Answer,
    Identity,
    Seen,
    build,
    certificates,
    est_double,
    issue,
    make_ca,
    make_server,
    name,
)

DAY = timedelta(days=1)
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH


def client(url: str, anchors: bytes, *, credentials: Credentials | None = None) -> EstClient:
    return EstClient(url=url, label=None, anchors_pem=anchors, credentials=credentials, timeout=timedelta(seconds=5))


async def assert_nothing_is_sent(url_host: str, server: Identity, anchors: bytes, why: str, identity: Identity | None = None) -> None:
    credentials = None if identity is None else ClientCertificate(chain_pem=identity.chain_pem, key_pem=identity.key_pem)
    with est_double(lambda _: Answer(), server) as double:
        async with client(f"https://{url_host}:{double.port}", anchors, credentials=credentials) as est:
            with pytest.raises(UntrustedServer, match=why):
                await est.ca_certs()
        assert double.seen == []
        assert double.connections == 0, "the handshake itself must fail"


@pytest.mark.spec("EST-TA-01", "EST-TA-02", "EST-TLS-08")
async def test_a_server_under_another_ca_gets_nothing(ca: Identity) -> None:
    other = make_ca("another CA")
    await assert_nothing_is_sent("localhost", make_server(other, "localhost"), ca.pem, "not among the trust anchors")


@pytest.mark.spec("EST-TLS-08")
async def test_a_ca_of_the_same_name_with_another_key_is_not_the_anchor(ca: Identity) -> None:
    impostor = make_ca("est-issuer test CA")
    await assert_nothing_is_sent("localhost", make_server(impostor, "localhost"), ca.pem, "not trusted")


@pytest.mark.spec("EST-TLS-08")
@pytest.mark.parametrize(
    ("life", "why"), [((-2 * DAY, -DAY), "expired"), ((DAY, 2 * DAY), "not valid yet")], ids=["expired", "not yet valid"]
)
async def test_a_certificate_outside_its_life_is_refused(ca: Identity, life: tuple[timedelta, timedelta], why: str) -> None:
    await assert_nothing_is_sent("localhost", make_server(ca, "localhost", life=life), ca.pem, why)


@pytest.mark.spec("EST-TLS-08")
async def test_a_certificate_for_clients_only_is_no_servers(ca: Identity) -> None:
    server = make_server(ca, "localhost", ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
    await assert_nothing_is_sent("localhost", server, ca.pem, "purpose")


@pytest.mark.spec("EST-TLS-08")
async def test_a_leaf_signs_nobody(ca: Identity) -> None:
    leaf = make_server(ca, "leaf.example")
    server = make_server(leaf, "localhost", above=(leaf.certificate,))
    await assert_nothing_is_sent("localhost", server, ca.pem, "not trusted")


@pytest.mark.spec("EST-SRVID-01", "EST-SRVID-02", "EST-SRVID-08", "EST-ENROLL-02")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_for_another_host_gets_neither_request_nor_our_certificate(ca: Identity, host: str) -> None:
    identity = make_server(ca, "device-7", ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
    await assert_nothing_is_sent(host, make_server(ca, "est.example"), ca.pem, f"does not name {host}", identity)


@pytest.mark.spec("EST-SRVID-02", "EST-TA-03")
async def test_a_registration_authority_under_an_explicit_anchor_may_have_any_name(ca: Identity) -> None:
    server = make_server(ca, "est.example", ekus=[SERVER_AUTH, CMC_RA])
    with est_double(lambda _: certificates(ca.certificate), server) as double:
        async with client(double.url, ca.pem) as est:
            assert await est.ca_certs() == (ca.certificate,)


@pytest.mark.spec("EST-TA-01")
async def test_an_intermediate_ca_may_be_the_anchor(ca: Identity) -> None:
    intermediate = make_ca("intermediate", ca)
    server = make_server(intermediate, "localhost", above=(intermediate.certificate,))
    with est_double(lambda _: certificates(ca.certificate), server) as double:
        async with client(double.url, intermediate.pem) as by_intermediate, client(double.url, ca.pem) as by_root:
            await by_intermediate.ca_certs()
            await by_root.ca_certs()


@pytest.mark.spec("EST-TA-01")
def test_a_leaf_is_no_anchor(server: Identity) -> None:
    with pytest.raises(ConfigurationError, match="no CA certificate"):
        client("https://localhost", server.pem)


@pytest.mark.parametrize("pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\n" * (1 << 20 | 1)])
def test_anchors_that_are_no_certificates_are_told_so(pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match="trust anchors"):
        client("https://localhost", pem)


@pytest.mark.parametrize(
    ("sans", "host", "named"),
    [
        (["est.example.com"], "est.example.com", True),
        (["EST.Example.COM"], "est.example.com", True),
        (["*.example.com"], "a.example.com", True),
        (["*.example.com"], "a.b.example.com", False),
        (["*.example.com"], "example.com", False),
        (["a*.example.com"], "ab.example.com", False),
        (["a.*.example.com"], "a.b.example.com", False),
        (["xn--bcher-kva.example"], "xn--bcher-kva.example", True),
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.2"], "127.0.0.1", False),
        (["::1"], "::1", True),
        (["0:0:0:0:0:0:0:1"], "::1", True),
        ([], "est.example.com", False),
    ],
)
@pytest.mark.spec("EST-SRVID-05", "EST-SRVID-06", "EST-SRVID-07", "EST-SRVID-08")
def test_names_match_label_by_label(ca: Identity, sans: Sequence[str], host: str, named: bool) -> None:
    certificate = make_server(ca, *sans, subject="est.example.com").certificate
    if named:
        check_identity(certificate, host)
    else:
        with pytest.raises(UntrustedServer, match="does not name"):
            check_identity(certificate, host)


@pytest.mark.spec("EST-SRVID-08")
def test_an_address_in_a_dns_name_is_not_the_address(ca: Identity) -> None:
    key = make_server(ca, "x").key
    certificate = build(name("x"), key.public_key(), signer=ca, sans=[x509.DNSName("127.0.0.1")])
    with pytest.raises(UntrustedServer):
        check_identity(certificate, "127.0.0.1")


@pytest.mark.spec("EST-SRVID-04")
@pytest.mark.parametrize("eku", [CMC_CA, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], ids=["cmcCA", "any"])
def test_only_cmc_ra_stands_in_for_a_name(ca: Identity, eku: ObjectIdentifier) -> None:
    with pytest.raises(UntrustedServer):
        check_identity(make_server(ca, "est.example", ekus=[SERVER_AUTH, eku]).certificate, "localhost")


@pytest.mark.spec("EST-TLS-02")
async def test_tls_1_1_is_not_spoken(ca: Identity, server: Identity) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with est_double(
            lambda _: Answer(),
            server,
            oldest=ssl.TLSVersion.TLSv1,
            newest=ssl.TLSVersion.TLSv1_1,
            configure=lambda context: context.set_ciphers("ALL:@SECLEVEL=0"),
        ) as double:
            async with client(double.url, ca.pem) as est:
                with pytest.raises(ServerUnavailable):
                    await est.ca_certs()
        assert double.connections == 0


@pytest.mark.spec("EST-TLS-04")
async def test_a_cipher_without_forward_secrecy_is_not_used(ca: Identity, server: Identity) -> None:
    with est_double(
        lambda _: Answer(), server, newest=ssl.TLSVersion.TLSv1_2, configure=lambda context: context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    ) as double:
        async with client(double.url, ca.pem) as est:
            with pytest.raises(ServerUnavailable):
                await est.ca_certs()
    assert double.connections == 0


@pytest.mark.spec("EST-POP-06", "EST-POP-07", "EST-POP-09", "EST-HTTP-07")
async def test_on_tls_1_2_the_csr_carries_tls_unique_of_its_own_connection(ca: Identity, server: Identity) -> None:
    key = make_server(ca, "x").key
    answers = iter([True, False])

    def behave(seen: Seen) -> Answer:
        answer = certificates(issue(ca, seen.csr_der))
        answer.headers["Connection"] = "close" if next(answers) else "keep-alive"
        return answer

    with est_double(behave, server, newest=ssl.TLSVersion.TLSv1_2) as double:
        async with client(double.url, ca.pem) as est:
            for _ in range(2):
                await est.simple_enroll(lambda binding: csr_builder.build(key, subject=name("device-7"), channel_binding=binding))
        first, second = double.seen
    assert first.tls_version == "TLSv1.2"
    for seen in (first, second):
        attribute = x509.load_der_x509_csr(seen.csr_der).attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
        assert len(seen.tls_unique) == 12
        assert attribute.value.decode() == csr_builder.challenge_password(seen.tls_unique)
        assert len(attribute.value) == 16
    assert first.tls_unique != second.tls_unique


@pytest.mark.spec("EST-TLS-09", "EST-TLS-15")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_client_certificate_is_shown_on_both_versions(ca: Identity, server: Identity, version: ssl.TLSVersion) -> None:
    device = make_server(ca, "device-7", ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
    with est_double(lambda _: certificates(ca.certificate), server, client_ca=ca, newest=version) as double:
        async with client(double.url, ca.pem, credentials=ClientCertificate(chain_pem=device.pem, key_pem=device.key_pem)) as est:
            await est.ca_certs()
        assert double.seen[0].client_certificate == device.certificate.public_bytes(Encoding.DER)


async def test_a_client_certificate_that_the_server_rejects_is_an_error_and_not_a_hang(ca: Identity, server: Identity) -> None:
    """On TLS 1.3 the client has finished its handshake by then: the alert comes with the first read."""
    stranger = make_server(make_ca("another CA"), "device-7", ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
    with est_double(lambda _: Answer(), server, client_ca=ca) as double:
        credentials = ClientCertificate(chain_pem=stranger.pem, key_pem=stranger.key_pem)
        async with client(double.url, ca.pem, credentials=credentials) as est:
            with pytest.raises(ServerUnavailable):
                await est.ca_certs()
        assert double.seen == []


def test_a_client_certificate_with_another_key_is_refused_at_once(ca: Identity, server: Identity) -> None:
    with pytest.raises(ConfigurationError, match="do not belong together"):
        client("https://localhost", ca.pem, credentials=ClientCertificate(chain_pem=ca.pem, key_pem=server.key_pem))


async def test_nobody_there_is_told_in_one_sentence(ca: Identity) -> None:
    async with client("https://127.0.0.1:1", ca.pem) as est:
        with pytest.raises(ServerUnavailable, match=r"no connection to 127\.0\.0\.1 port 1: "):
            await est.ca_certs()
