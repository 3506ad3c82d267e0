"""What a client meets at the TLS layer: versions, suites, certificates, and every way a handshake ends."""

import base64
import contextlib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from estcore.errors import ConfigurationError
from estcore.issuer_spec import KeyAlgorithm
from estserver.deadline import Phase
from estserver.limits import Limits
from estserver.tls import ServerTls
from tests import pki
from tests.server.transport_fixtures import (
    ROOT,
    Client,
    Closed,
    Recorder,
    Server,
    client_chain,
    client_context,
    request,
    running,
    server_certificate,
)

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])


# ---- versions and suites


@pytest.mark.spec("EST-TLS-01", "EST-TLS-03", "EST-TLS-05")
@both_versions
def test_a_client_capped_at_either_version_is_served(transport: Server, recorder: Recorder, version: int) -> None:
    with Client(transport, client_context(version)).handshake() as client:
        assert client.get().status == 200
        assert recorder.requests[0].scope["extensions"]["tls"].version == client.tls.get_protocol_version_name()


@pytest.mark.spec("EST-TLS-03")
def test_tls_1_3_with_the_post_quantum_group_is_preferred(transport: Server) -> None:
    with Client(transport, SSL.Context(SSL.TLS_CLIENT_METHOD)).handshake() as client:
        assert client.tls.get_protocol_version_name() == "TLSv1.3"
        assert client.tls.get_group_name() == "X25519MLKEM768"


def client_hello(version: bytes) -> bytes:
    """A ClientHello of RFC 5246 without extensions, as a stack of that version sends it."""
    body = version + bytes(32) + b"\x00" + b"\x00\x04\xc0\x2f\xc0\x13" + b"\x01\x00"
    handshake = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2) + handshake


@pytest.mark.spec("EST-TLS-02")
@pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x01", b"\x03\x02"], ids=["SSLv3", "TLSv1.0", "TLSv1.1"])
def test_older_versions_get_the_alert_protocol_version(transport: Server, version: bytes) -> None:
    with Client(transport) as client:
        client.socket.sendall(client_hello(version))
        alert = client.socket.recv(100)
        assert (alert[0], alert[5:7]) == (21, b"\x02\x46")  # fatal, protocol_version (RFC 5246 section 7.2)


@pytest.mark.spec("EST-TLS-04")
@pytest.mark.parametrize("suite", [b"ECDHE-ECDSA-NULL-SHA", b"AECDH-AES128-SHA", b"ECDHE-ECDSA-AES128-SHA", b"ECDHE-ECDSA-AES128-SHA256"])
def test_suites_without_authentication_encryption_or_aead_are_refused(transport: Server, suite: bytes) -> None:
    context = client_context(TLS12)
    context.set_cipher_list(suite + b":@SECLEVEL=0")
    with Client(transport, context) as client, pytest.raises(Closed, match="handshake failure"):
        client.handshake()


@pytest.mark.spec("EST-TLS-04")
def test_every_suite_has_forward_secrecy_and_aead() -> None:
    tls = ServerTls(pki.pem(server_certificate()), pki.key_pem(pki.key(owner="server")))
    for suite in tls.accept().get_cipher_list():
        assert suite.startswith(("TLS_AES", "TLS_CHACHA20", "ECDHE-")), suite
        assert "GCM" in suite or "CHACHA20" in suite, suite


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
    ids=["the server's order", "ChaCha20 for who has no AES"],
)
def test_the_server_chooses_the_suite_unless_the_client_puts_chacha20_first(transport: Server, offered: str, chosen: str) -> None:
    context = client_context(TLS12)
    context.set_cipher_list(offered.encode())
    with Client(transport, context).handshake() as client:
        assert client.tls.get_cipher_name() == chosen


@pytest.mark.spec("EST-TLS-13")
def test_tls_1_2_has_the_extended_master_secret(transport: Server) -> None:
    with Client(transport, client_context(TLS12)).handshake() as client:
        server_hello = client.received[: client.records()[0][1] + 5]
        assert b"\x00\x17\x00\x00" in server_hello[-64:]


@pytest.mark.parametrize(
    ("offered", "chosen"), [([b"h2", b"http/1.1"], b"http/1.1"), ([b"http/1.1"], b"http/1.1"), ([b"h2"], b""), (None, b"")]
)
def test_alpn_chooses_http_1_1_where_it_is_offered(transport: Server, offered: list[bytes] | None, chosen: bytes) -> None:
    context = client_context()
    if offered:
        context.set_alpn_protos(offered)
    with Client(transport, context).handshake() as client:
        assert client.tls.get_alpn_proto_negotiated() == chosen
        assert client.get().status == 200


# ---- octets


@both_versions
def test_a_handshake_and_a_request_may_come_octet_by_octet(transport: Server, recorder: Recorder, version: int) -> None:
    with Client(transport, client_context(version, chain=client_chain()), step=1).handshake() as client:
        assert client.get(b"/slow").status == 200
    assert recorder.requests[0].scope["raw_path"] == b"/slow"


@both_versions
def test_a_request_may_come_with_the_octets_that_end_the_handshake(transport: Server, version: int) -> None:
    """One TCP segment then holds the client's Finished and its request: nothing of it may be lost."""
    with Client(transport, client_context(version)) as client:
        with contextlib.suppress(SSL.WantReadError):
            client.tls.do_handshake()
        client.flush()
        if version == TLS13:
            while True:
                client._pull()
                with contextlib.suppress(SSL.WantReadError):
                    client.tls.do_handshake()
                    break
            client.send(request(b"GET", b"/"))  # flushed together with the Finished
        else:
            client.handshake()
            client.send(request(b"GET", b"/"))
        assert client.answer().status == 200


# ---- client certificates


@pytest.mark.spec("EST-TLS-07")
def test_a_client_certificate_is_asked_for_and_not_demanded(transport: Server, recorder: Recorder) -> None:
    with Client(transport, client_context(TLS12)).handshake() as client:
        assert client.get().status == 200
        assert b"\x0d\x00\x00" in client.received  # CertificateRequest (RFC 5246 section 7.4.4), in clear on TLS 1.2
    assert recorder.requests[0].scope["extensions"]["tls"].unverified_client_chain == ()


@both_versions
def test_no_names_of_cas_are_told(transport: Server, version: int) -> None:
    with Client(transport, client_context(version)).handshake() as client:
        assert client.tls.get_client_ca_list(as_cryptography=True) == []


@pytest.mark.spec("EST-TLS-06", "THREAT-13")
@both_versions
@pytest.mark.parametrize("length", [1, 2, 8])
def test_the_chain_arrives_as_sent_leaf_first(transport: Server, recorder: Recorder, version: int, length: int) -> None:
    chain = client_chain(length)
    with Client(transport, client_context(version, chain=chain)).handshake() as client:
        client.get()
        client.get()
    first, second = (each.scope["extensions"]["tls"] for each in recorder.requests)
    assert first.unverified_client_chain == chain
    assert first is second, "taken once per connection"


def forged(kind: str) -> tuple[x509.Certificate, ...]:
    genuine = pki.ca("Genuine root")
    match kind:
        case "unknown CA":
            return (pki.leaf(pki.ca("Nobody's root")),)
        case "forged signature":
            return (pki.leaf(genuine, signed_by=pki.key(owner="forger")), genuine.certificate)
        case "expired":
            return (pki.leaf(genuine, not_before=pki.EPOCH - 2 * pki.YEAR, not_after=pki.EPOCH - pki.YEAR), genuine.certificate)
        case _:
            return (pki.leaf(genuine, ekus=(pki.SERVER_AUTH,)), genuine.certificate)


@pytest.mark.spec("THREAT-11")
@both_versions
@pytest.mark.parametrize("kind", ["unknown CA", "forged signature", "expired", "wrong purpose"])
def test_a_forged_chain_passes_as_unverified_and_nothing_else(transport: Server, recorder: Recorder, version: int, kind: str) -> None:
    """TLS must not fail: /cacerts and passwords work on such a connection. Who trusts the chain is decided elsewhere."""
    chain = forged(kind)
    with Client(transport, client_context(version, chain=chain)).handshake() as client:
        assert client.get().status == 200
    assert recorder.requests[0].scope["extensions"]["tls"].unverified_client_chain == chain


@pytest.mark.parametrize("algorithm", pki.ONE_OF_EACH_KIND, ids=str)
def test_a_client_may_hold_any_kind_of_key_that_the_product_issues_for(
    transport: Server, recorder: Recorder, algorithm: KeyAlgorithm
) -> None:
    device = pki.key(algorithm)
    chain = (pki.leaf(pki.ca("Device root"), public_key=device.public_key()),)
    for version in (TLS12, TLS13):
        with Client(transport, client_context(version, chain=chain, key=device)).handshake() as client:
            assert client.get().status == 200
    assert [each.scope["extensions"]["tls"].unverified_client_chain for each in recorder.requests] == [chain, chain]


@pytest.mark.spec("THREAT-13")
@both_versions
def test_nine_certificates_end_the_connection_with_an_alert(transport: Server, recorder: Recorder, version: int) -> None:
    with pytest.raises(Closed) as ended, Client(transport, client_context(version, chain=client_chain(9))).handshake() as client:
        client.get()
    assert "alert" in ended.value.how
    assert recorder.requests == []


@pytest.mark.spec("THREAT-13")
@both_versions
@pytest.mark.parametrize("octets", [33_000, 60_000, 90_000])
def test_more_than_32_kib_of_certificates_end_the_connection_with_an_alert(
    transport: Server, recorder: Recorder, version: int, octets: int
) -> None:
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(octets))
    chain = (pki.leaf(pki.ca("Device root"), extensions=((padding, False),)),)
    with pytest.raises(Closed) as ended, Client(transport, client_context(version, chain=chain)).handshake() as client:
        client.get()
    assert "alert" in ended.value.how
    assert recorder.requests == []


def test_30_kib_of_certificates_pass(transport: Server, recorder: Recorder) -> None:
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(30_000))
    chain = (pki.leaf(pki.ca("Device root"), extensions=((padding, False),)),)
    with Client(transport, client_context(chain=chain)).handshake() as client:
        assert client.get().status == 200


@both_versions
def test_a_certificate_that_cannot_be_decoded_ends_the_connection_with_an_alert(
    transport: Server, recorder: Recorder, version: int
) -> None:
    """X.509 version 6: OpenSSL reads it, `cryptography` does not."""
    der = pki.der(pki.leaf(pki.ca("Device root"))).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_certificate(der)
    context = standard_library_context(version, der, pki.key_pem(pki.key()))
    with pytest.raises((ssl.SSLError, ConnectionError)) as ended:
        ask(transport, context)
    assert "ALERT" in str(ended.value)
    assert recorder.requests == []


@both_versions
def test_a_bad_certificate_verify_ends_the_handshake_with_an_alert(transport: Server, recorder: Recorder, version: int) -> None:
    """The leaf of somebody else, and a private key that is not the leaf's: what a thief of certificates has."""
    leaf = pki.leaf(pki.ca("Device root"))
    thief = pki.key(owner="thief")
    private = thief.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    point, own_point = (
        key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        for key in (leaf.public_key(), thief.public_key())
    )
    mixed = private.replace(own_point, point)
    key_pem = b"-----BEGIN EC PRIVATE KEY-----\n" + base64.encodebytes(mixed) + b"-----END EC PRIVATE KEY-----\n"
    context = standard_library_context(version, pki.der(leaf), key_pem)
    with pytest.raises((ssl.SSLError, ConnectionError)) as ended:
        ask(transport, context)
    assert "DECRYPT_ERROR" in str(ended.value)
    assert recorder.requests == []


def standard_library_context(version: int, der: bytes, key_pem: bytes) -> ssl.SSLContext:
    """The standard library's OpenSSL takes certificates and keys that `cryptography` refuses to load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
    certificate_pem = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der).decode() + "-----END CERTIFICATE-----\n"
    with temporary_file(certificate_pem.encode()) as certificate, temporary_file(key_pem) as key:
        context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def temporary_file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


@contextlib.contextmanager
def standard_library_connection(server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
        context.wrap_socket(raw, session=session) as connection,
    ):
        yield connection


def ask(server: Server, context: ssl.SSLContext) -> bytes:
    with standard_library_connection(server, context) as connection:
        connection.sendall(request(b"GET", b"/"))
        return connection.recv(100)


# ---- channel binding


@pytest.mark.spec("EST-POP-09", "EST-POP-10", "EST-POP-12", "EST-POP-13", "THREAT-16")
@pytest.mark.parametrize(("version", "octets"), [(TLS12, 12), (TLS13, 32)], ids=["tls-unique", "tls-exporter"])
def test_the_channel_binding_is_the_same_on_both_ends_and_of_one_connection(
    transport: Server, recorder: Recorder, version: int, octets: int
) -> None:
    ours = []
    for _ in range(3):
        with Client(transport, client_context(version, chain=client_chain())).handshake() as client:
            client.get()
            ours.append(client.binding())
    theirs = [each.scope["extensions"]["tls"].channel_binding for each in recorder.requests]
    assert theirs == ours
    assert len(set(ours)) == 3
    assert {len(binding) for binding in ours} == {octets}


# ---- resumption, renegotiation, early data


@pytest.mark.spec("THREAT-16", "EST-TLS-14", "EST-POP-11")
@both_versions
def test_a_client_that_wants_to_resume_gets_a_full_handshake(transport: Server, version: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
    session = None
    for _ in range(3):
        with standard_library_connection(transport, context, session) as connection:
            connection.sendall(request(b"GET", b"/"))
            connection.recv(1000)
            assert not connection.session_reused
            session = connection.session
            assert session is None or not session.has_ticket


@pytest.mark.spec("THREAT-16")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_cannot_resume(transport: Server, version: str) -> None:
    reconnected = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{transport.port}", version, "-reconnect", "-servername", "localhost"],
        input=b"",
        capture_output=True,
        timeout=10,
    )
    assert b"New, TLSv1" in reconnected.stdout
    assert b"Reused" not in reconnected.stdout


@pytest.mark.spec("EST-TLS-14")
def test_nothing_follows_a_tls_1_3_handshake_but_the_answer(transport: Server) -> None:
    """No NewSessionTicket: each costs CPU and a record, and none could be used."""
    with Client(transport).handshake() as client:
        before = len(client.records())
        client.get()
        assert len(client.records()) == before + 1


@pytest.mark.spec("EST-TLS-12", "THREAT-16")
def test_renegotiation_is_refused(transport: Server) -> None:
    with Client(transport, client_context(TLS12)).handshake() as client:
        client.get()
        client.tls.renegotiate()
        with pytest.raises(Closed, match="no renegotiation"):
            client.handshake()


# ---- what is no handshake


@pytest.mark.spec("EST-TLS-01", "EST-AUTH-04")
def test_plain_http_is_told_that_the_port_speaks_https(transport: Server) -> None:
    with Client(transport) as client:
        client.socket.sendall(request(b"GET", b"/"))
        head, _, body = client.socket.recv(1000).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
        assert client.socket.recv(1000) == b""
    transport.traffic.wait_until(lambda: transport.traffic.failures["plain_http"] > 0)


@pytest.mark.parametrize("octets", [b"\x00" * 400, b"\xff" * 400, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\xff\xff" + b"\x01" * 400])
def test_what_is_not_tls_is_closed(transport: Server, octets: bytes) -> None:
    with Client(transport) as client:
        client.socket.sendall(octets)
        while answer := client.socket.recv(1000):
            assert answer[0] == 21, "an alert, or nothing"
    with Client(transport).handshake() as client:
        assert client.get().status == 200


def test_a_client_that_leaves_in_its_handshake_is_counted(transport: Server) -> None:
    before = transport.traffic.failures["eof"]
    with Client(transport) as client:
        client.socket.sendall(b"\x16\x03\x01\x02\x00\x01")
        client.socket.shutdown(1)
        assert client.socket.recv(100) == b""
    transport.traffic.wait_until(lambda: transport.traffic.failures["eof"] == before + 1)


def test_a_client_that_does_not_trust_the_server_is_counted_by_its_alert(transport: Server) -> None:
    context = client_context(TLS12)
    context.set_verify(SSL.VERIFY_PEER, None)
    with Client(transport, context) as client, pytest.raises(Closed, match="certificate verify failed"):
        client.handshake()
    transport.traffic.wait_until(lambda: transport.traffic.failures["client_alert"] > 0)


# ---- bounds


@pytest.mark.spec("THREAT-19")
def test_a_handshake_has_a_deadline(recorder: Recorder) -> None:
    with running(recorder, Limits(handshake_seconds=0.1)) as server, Client(server) as client:
        client.socket.sendall(b"\x16\x03\x01\x02\x00\x01")
        with contextlib.suppress(ConnectionResetError):
            assert client.socket.recv(100) == b""
        server.traffic.wait_until_closed()
        assert server.traffic.timeouts == {Phase.HANDSHAKE: 1}


@pytest.mark.spec("THREAT-19")
def test_a_thousand_half_open_handshakes_are_capped_and_closed_by_their_deadline(recorder: Recorder) -> None:
    limits = Limits(connections=300, handshake_seconds=0.5)
    with running(recorder, limits) as server:
        clients = [Client(server) for _ in range(1000)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.socket.sendall(b"\x16\x03\x01\x02\x00\x01")
        traffic = server.traffic
        traffic.wait_until(lambda: traffic.opened + traffic.refused["connections"] == 1000)
        traffic.wait_until_closed()
        assert traffic.timeouts[Phase.HANDSHAKE] == traffic.opened
        assert traffic.refused["connections"] > 0
        with Client(server).handshake() as client:
            assert client.get().status == 200
        for client in clients:
            client.socket.close()


@pytest.mark.spec("THREAT-19")
def test_one_source_cannot_take_all_connections(recorder: Recorder) -> None:
    with running(recorder, Limits(connections=4, connections_per_source=2)) as server:
        with Client(server).handshake(), Client(server).handshake():
            with Client(server) as third, pytest.raises(Closed):
                third.handshake()
            assert server.traffic.refused == {"connections_per_source": 1}
        server.traffic.wait_until(lambda: server.traffic.closed == 2)
        with Client(server).handshake() as again:
            assert again.get().status == 200


# ---- the server's own certificate


def served_name(client: Client) -> str:
    certificate = client.tls.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.subject.rfc4514_string()


def test_a_new_certificate_is_for_new_connections_and_old_ones_go_on(recorder: Recorder) -> None:
    with running(recorder) as server, Client(server).handshake() as old:
        assert old.get().status == 200
        renewed = pki.key(owner="renewed")
        certificate = pki.leaf(ROOT, subject=pki.name("renewed"), public_key=renewed.public_key())
        server.tls.replace(pki.pem(certificate), pki.key_pem(renewed))
        with Client(server).handshake() as new:
            assert (served_name(old), served_name(new)) == ("CN=localhost", "CN=renewed")
            assert old.get().status == new.get().status == 200


def test_the_chain_above_the_servers_certificate_is_sent(recorder: Recorder) -> None:
    between = pki.ca("Between", issuer=ROOT)
    leaf = pki.leaf(between, public_key=pki.key(owner="server").public_key())
    with running(recorder) as server:
        server.tls.replace(pki.pem(leaf, between.certificate), pki.key_pem(pki.key(owner="server")))
        with Client(server).handshake() as client:
            assert client.tls.get_peer_cert_chain(as_cryptography=True) == [leaf, between.certificate]


@pytest.mark.parametrize("what", ["another key", "no PEM", "no certificate", "an encrypted key"])
def test_what_is_no_pair_is_refused_and_the_former_certificate_stays(what: str) -> None:
    good = pki.pem(server_certificate())
    tls = ServerTls(good, pki.key_pem(pki.key(owner="server")))
    encrypted = pki.key(owner="server").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    certificate_pem, key_pem = {
        "another key": (good, pki.key_pem(pki.key(owner="other"))),
        "no PEM": (good, b"nonsense"),
        "no certificate": (b"", pki.key_pem(pki.key(owner="server"))),
        "an encrypted key": (good, encrypted),
    }[what]
    before = tls.certificate
    with pytest.raises(ConfigurationError):
        tls.replace(certificate_pem, key_pem)
    assert tls.certificate is before


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="body_octets"):
        Limits(body_octets=0)
