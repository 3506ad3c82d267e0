"""Every handshake that a client spoils ends with the alert that says how (RFC 8446 section 6.2), and the server goes on."""

import pytest
from OpenSSL import SSL

from tests.server.transport_fixtures import Client, Closed, Server, client_context, request

HANDSHAKE, ALERT, APPLICATION_DATA = 22, 21, 23
UNEXPECTED_MESSAGE, RECORD_OVERFLOW, ILLEGAL_PARAMETER, DECODE_ERROR, MISSING_EXTENSION = 10, 22, 47, 50, 109

X25519_SHARE = b"\x00\x1d\x00\x20" + bytes(31) + b"\x09"  # the point with the coordinate 9 x 2^248: some point
EXTENSIONS = {
    "supported_versions": b"\x00\x2b\x00\x03\x02\x03\x04",
    "signature_algorithms": b"\x00\x0d\x00\x04\x00\x02\x04\x03",
    "supported_groups": b"\x00\x0a\x00\x04\x00\x02\x00\x1d",
    "key_share": b"\x00\x33\x00\x26\x00\x24" + X25519_SHARE,
}


def record(content: bytes, kind: int = HANDSHAKE) -> bytes:
    return bytes((kind, 3, 1)) + len(content).to_bytes(2) + content


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + len(content).to_bytes(3) + content


def client_hello(*, without: str = "", more: bytes = b"", compression: bytes = b"\x01\x00") -> bytes:
    """A ClientHello of TLS 1.3 (RFC 8446 section 4.1.2) that the server takes as it is, X25519 and ECDSA with SHA-256."""
    extensions = b"".join(each for name, each in EXTENSIONS.items() if name != without) + more
    return b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + compression + len(extensions).to_bytes(2) + extensions


SPOILED = {
    "another message first": (record(message(client_hello(), kind=2)), UNEXPECTED_MESSAGE),
    "application data first": (record(b"GET / HTTP/1.1\r\n\r\n", kind=APPLICATION_DATA), UNEXPECTED_MESSAGE),
    "a record longer than records are": (bytes((HANDSHAKE, 3, 1)) + (17_000).to_bytes(2) + bytes(17_000), RECORD_OVERFLOW),
    "a ClientHello cut short": (record(message(client_hello()[:40])), DECODE_ERROR),
    "a ClientHello with octets after it": (record(message(client_hello() + b"\x00")), DECODE_ERROR),
    "an extension longer than its list": (record(message(client_hello(more=b"\x00\x00\x00\xff"))), DECODE_ERROR),
    "an extension twice": (record(message(client_hello(more=EXTENSIONS["supported_groups"]))), ILLEGAL_PARAMETER),
    "compression asked for": (record(message(client_hello(compression=b"\x01\x01"))), ILLEGAL_PARAMETER),
    "no signature algorithms": (record(message(client_hello(without="signature_algorithms"))), MISSING_EXTENSION),
    "no groups": (record(message(client_hello(without="supported_groups"))), MISSING_EXTENSION),
    "a key share of no point": (record(message(client_hello().replace(X25519_SHARE, b"\x00\x1d\x00\x20" + bytes(32)))), ILLEGAL_PARAMETER),
}


def test_the_hello_that_the_others_spoil_is_answered(transport: Server) -> None:
    with Client(transport) as client:
        client.socket.sendall(record(message(client_hello())))
        answer = client.socket.recv(100)
        assert (answer[0], answer[5]) == (HANDSHAKE, 2), "a ServerHello"


@pytest.mark.parametrize(("octets", "description"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_handshake_ends_with_its_alert(transport: Server, octets: bytes, description: int) -> None:
    with Client(transport) as client:
        client.socket.sendall(octets)
        answer = client.socket.recv(100)
        assert (answer[0], answer[5], answer[6]) == (ALERT, 2, description)
        assert client.socket.recv(100) == b""
    with Client(transport).handshake() as client:
        assert client.get().status == 200


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLSv1.2", "TLSv1.3"])
def test_a_record_that_was_altered_ends_the_connection_with_an_alert(transport: Server, version: int) -> None:
    with Client(transport, client_context(version)).handshake() as client:
        client.get()
        client.tls.send(request(b"GET", b"/"))
        altered = bytearray(client.tls.bio_read(10_000))
        altered[-1] ^= 1
        client.socket.sendall(altered)
        with pytest.raises(Closed, match="alert bad record mac"):
            client.answer()
