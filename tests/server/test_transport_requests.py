"""What of HTTP reaches the application and what is answered below it: framing, limits, smuggling."""

import subprocess
from pathlib import Path

import pytest

from estserver.limits import Limits
from tests.server.transport_fixtures import ROOT, Answer, Client, Closed, Recorder, Server, request, running

HOST = b"Host: localhost\r\n"
POST = b"POST /.well-known/est/simpleenroll HTTP/1.1\r\n"
GET = b"GET /.well-known/est/cacerts HTTP/1.1\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def refused(server: Server, recorder: Recorder, octets: bytes) -> Answer:
    """The one answer to octets that must never reach the application; one line of text, and the connection is closed."""
    with Client(server).handshake() as client:
        client.send(octets)
        answer = client.answer()
        assert client.how_it_ends() == "close_notify"
    assert recorder.requests == []
    assert answer.header(b"Content-Type") == [b"text/plain; charset=utf-8"]
    assert answer.header(b"Connection") == [b"close"]
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    return answer


# ---- smuggling: one reading of every message, or none


@pytest.mark.spec("THREAT-20", "THREAT-09")
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        # Length in two ways (RFC 9112 section 6.3).
        (POST + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 4, 5\r\n\r\nabcde" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: +4\r\n\r\nabcd" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: -1\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 0x4\r\n\r\nabcd" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: \r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 4 4\r\n\r\nabcd" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length: 18446744073709551616\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Content-Length : 4\r\n\r\nabcd" + SMUGGLED, 400),
        # Transfer codings (RFC 9112 section 6.1).
        (POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SMUGGLED, 400),
        (POST.replace(b"1.1", b"1.0") + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        # Chunks (RFC 9112 section 7.1).
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\nab\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;x\nab\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n0\r\n\r\n" + SMUGGLED, 400),
        # Lines and names (RFC 9112 sections 2.2, 5.1 and 5.2).
        (GET + HOST + b"X: a\r\n  folded: b\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: localhost\n\n" + SMUGGLED, 400),
        (GET + HOST + b"X: a\nContent-Length: 4\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b"X: a\rContent-Length: 4\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b"X: a\x00b\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b"X\x00: a\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b" X: a\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b": a\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b"X\r\n\r\n" + SMUGGLED, 400),
        # Host (RFC 9112 section 3.2).
        (GET + b"\r\n" + SMUGGLED, 400),
        (GET + HOST + b"Host: other\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + HOST + b"\r\n" + SMUGGLED, 400),
        (GET + b"Host: \r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: a, b\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: a/b\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: user@a\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: a?b#c\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: a:port\r\n\r\n" + SMUGGLED, 400),
        (GET + b"Host: [::1\r\n\r\n" + SMUGGLED, 400),
        (GET.replace(b"1.1", b"1.0") + b"\r\n" + SMUGGLED, 400),
        # Request lines (RFC 9112 sections 3 and 3.2).
        (b"GET http://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET https://other/ HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET /\x7f HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n" + SMUGGLED, 505),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n" + SMUGGLED, 505),
        (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n" + SMUGGLED, 400),
        (b"GET /\r\n\r\n" + SMUGGLED, 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, 400),
        (b"FROBNICATE / HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 501),
        (b"get / HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 501),
        # Another protocol would make the rest of the connection opaque (RFC 9110 section 7.8).
        (POST + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nabcd" + SMUGGLED, 400),
        (GET + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + SMUGGLED, 400),
        (GET + HOST + b"Upgrade: websocket\r\n\r\n" + SMUGGLED, 400),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    transport: Server, recorder: Recorder, octets: bytes, status: int
) -> None:
    assert refused(transport, recorder, octets).status == status


@pytest.mark.spec("THREAT-20")
def test_what_follows_a_last_request_is_not_read(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(request(b"GET", b"/", b"Connection: close") + SMUGGLED)
        assert client.answer().status == 200
        assert client.how_it_ends() == "close_notify"
    assert [each.scope["raw_path"] for each in recorder.requests] == [b"/"]


@pytest.mark.spec("THREAT-20")
def test_trailers_never_become_headers(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: other\r\nAuthorization: Basic eA==\r\n\r\n")
        assert client.answer().status == 200
    assert recorder.requests[0].body == b"a"
    assert {name for name, _ in recorder.requests[0].scope["headers"]} == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize("host", [b"localhost", b"est.example.com:8443", b"192.0.2.1", b"[2001:db8::1]:443", b"a_b-c"])
def test_a_valid_host_passes(transport: Server, recorder: Recorder, host: bytes) -> None:
    with Client(transport).handshake() as client:
        client.send(GET + b"Host: " + host + b"\r\n\r\n")
        assert client.answer().status == 200


# ---- what the application sees


def test_the_scope_names_client_server_and_the_path_as_sent(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.get(b"/.well-known/est/ca%3A12/cacerts?a=%20b")
        port = client.socket.getsockname()[1]
    scope = recorder.requests[0].scope
    assert scope["raw_path"] == b"/.well-known/est/ca%3A12/cacerts"
    assert scope["path"] == "/.well-known/est/ca:12/cacerts"
    assert scope["query_string"] == b"a=%20b"
    assert scope["client"] == ("127.0.0.1", port)
    assert scope["server"] == ("127.0.0.1", transport.port)
    assert (scope["scheme"], scope["method"], scope["http_version"]) == ("https", "GET", "1.1")


def test_a_body_arrives_whole_whether_it_has_a_length_or_comes_in_chunks(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(request(b"POST", b"/", body=b"MIIB" * 500))
        client.answer()
        chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(piece), piece) for piece in (b"MIIB" * 300, b"MIIB" * 200))
        client.send(POST + HOST + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        client.answer()
    assert [each.body for each in recorder.requests] == [b"MIIB" * 500] * 2


def test_requests_may_come_octet_by_octet_each_in_a_record_of_its_own(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        for octet in request(b"POST", b"/slow", b"Content-Type: application/pkcs10", body=b"MIIB"):
            client.send(bytes([octet]))
        assert client.answer().status == 200
    assert recorder.requests[0].body == b"MIIB"


def test_each_header_token_may_come_in_a_record_of_its_own(transport: Server, recorder: Recorder) -> None:
    """Bouncy Castle's EST client writes so."""
    tokens = [b"POST", b" ", b"/est", b" ", b"HTTP/1.1", b"\r\n", b"Host", b": ", b"localhost", b"\r\n"]
    tokens += [b"Content-Type", b": ", b"application/pkcs10", b"\r\n", b"Content-Length", b": ", b"4", b"\r\n", b"\r\n", b"MIIB"]
    with Client(transport).handshake() as client:
        for token in tokens:
            client.send(token)
        assert client.answer().status == 200
    assert recorder.requests[0].headers == {b"host": b"localhost", b"content-type": b"application/pkcs10", b"content-length": b"4"}


def test_pipelined_requests_are_answered_in_order(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(b"".join(request(b"POST", b"/%d" % number, body=b"%d" % number) for number in range(50)))
        assert [client.answer().status for _ in range(50)] == [200] * 50
    assert [each.body for each in recorder.requests] == [b"%d" % number for number in range(50)]


def test_a_bad_request_behind_a_good_one_is_answered_after_it(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(request(b"GET", b"/good") + b"GET / HTTP/1.1\r\n\r\n" + SMUGGLED)
        assert [client.answer().status, client.answer().status] == [200, 400]
        assert client.how_it_ends() == "close_notify"
    assert [each.scope["raw_path"] for each in recorder.requests] == [b"/good"]


def test_a_connection_serves_many_requests_unless_the_client_says_close(transport: Server) -> None:
    with Client(transport).handshake() as client:
        for _ in range(5):
            assert client.get().header(b"Connection") == []
        assert client.get(b"/", b"Connection: close").header(b"Connection") == [b"close"]
        assert client.how_it_ends() == "close_notify"


def test_http_1_0_is_answered_and_closed(transport: Server) -> None:
    with Client(transport).handshake() as client:
        client.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
        assert client.answer().head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.how_it_ends() == "close_notify"


def test_empty_lines_before_a_request_are_skipped(transport: Server) -> None:
    """RFC 9112 section 2.2: at least one is to be expected."""
    with Client(transport).handshake() as client:
        client.send(b"\r\n\r\n" + request(b"GET", b"/"))
        assert client.answer().status == 200


# ---- limits


@pytest.mark.spec("THREAT-19", "THREAT-08")
def test_a_content_length_over_the_limit_is_413_before_any_body_is_read(transport: Server, recorder: Recorder) -> None:
    assert refused(transport, recorder, POST + HOST + b"Content-Length: 65537\r\n\r\n").status == 413


def test_64_kib_of_body_pass(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(request(b"POST", b"/", body=b"x" * 65536))
        assert client.answer().status == 200
        client.send(POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 65536 + b"0\r\n\r\n")
        assert client.answer().status == 200
    assert [len(each.body) for each in recorder.requests] == [65536] * 2


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize(
    "chunks",
    [b"10001\r\n" + b"x" * 65537 + b"\r\n0\r\n\r\n", b"1;" + b"x" * 600_000 + b"\r\na\r\n", b"1;x\r\na\r\n" * 66_000],
    ids=["a chunk too long", "an endless extension", "too many chunks"],
)
def test_a_chunked_body_is_counted(transport: Server, recorder: Recorder, chunks: bytes) -> None:
    assert refused(transport, recorder, POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).status == 413


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (GET + HOST + b"".join(b"X-%d: a\r\n" % number for number in range(100)) + b"\r\n", 431),
        (GET + HOST + b"X: " + b"a" * 17_000 + b"\r\n\r\n", 431),
        (GET + HOST + b"X: " + b"a" * 60_000, 431),
        (GET + HOST + b"X" * 60_000, 431),
        (b"\r\n" * 20_000, 431),
        (b"GET /" + b"a" * 2_100 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"a" * 60_000, 414),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: a\r\n" * 100_000, 413),
    ],
    ids=["count", "size", "endless value", "endless name", "empty lines", "target", "endless target", "trailers"],
)
def test_heads_are_bounded_whole_or_endless(transport: Server, recorder: Recorder, octets: bytes, status: int) -> None:
    assert refused(transport, recorder, octets).status == status


def test_a_head_just_within_the_limits_passes(transport: Server, recorder: Recorder) -> None:
    filler = b"".join(b"X-%02d: %s\r\n" % (number, b"a" * 150) for number in range(99))
    with Client(transport).handshake() as client:
        client.send(GET + HOST + filler + b"\r\n")
        assert client.answer().status == 200
    assert len(recorder.requests[0].scope["headers"]) == 100


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip"])
def test_a_coded_body_is_415(transport: Server, recorder: Recorder, coding: bytes) -> None:
    assert refused(transport, recorder, POST + HOST + b"Content-Encoding: " + coding + b"\r\nContent-Length: 4\r\n\r\nabcd").status == 415


def test_limits_can_be_set(recorder: Recorder) -> None:
    with running(recorder, Limits(body_octets=10, header_count=2)) as server:
        assert refused(server, recorder, POST + HOST + b"Content-Length: 11\r\n\r\n").status == 413
        assert refused(server, recorder, GET + HOST + b"A: b\r\nC: d\r\n\r\n").status == 431
        server.traffic.wait_until(lambda: server.traffic.answers == {413: 1, 431: 1})


@pytest.mark.spec("THREAT-19")
def test_200_mb_by_curl_show_413_ten_times_of_ten(transport: Server, recorder: Recorder, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(200_000_000)
    anchors = tmp_path / "root.pem"
    anchors.write_bytes(ROOT.pem)
    url = f"https://127.0.0.1:{transport.port}/.well-known/est/simpleenroll"
    for framing in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"], ["--tls-max", "1.2", "-H", "Expect:"], ["--http1.0"]):
        for _ in range(2):
            shown = subprocess.run(
                ["curl", "--cacert", anchors, "-sS", "--max-time", "10", *framing, "-X", "POST", "-T", big, "-w", "%{http_code}", url],
                capture_output=True,
                text=True,
            )
            assert shown.stdout == "the body may have 65536 octets\n413", shown
    assert recorder.requests == []


# ---- Expect


def test_a_client_that_expects_100_continue_is_asked_for_its_body(transport: Server, recorder: Recorder) -> None:
    with Client(transport).handshake() as client:
        client.send(POST + HOST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"MIIB")
        assert client.answer().status == 200
        client.send(request(b"GET", b"/first") + POST + HOST + b"Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert [client.answer().status, client.answer().status] == [200, 100]
        client.send(b"4\r\nMIIB\r\n0\r\n\r\n")
        assert client.answer().status == 200
    assert [each.body for each in recorder.requests] == [b"MIIB", b"", b"MIIB"]


def test_a_body_over_the_limit_is_never_asked_for(transport: Server, recorder: Recorder) -> None:
    assert refused(transport, recorder, POST + HOST + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n").status == 413


def test_another_expectation_is_417(transport: Server, recorder: Recorder) -> None:
    assert refused(transport, recorder, POST + HOST + b"Expect: miracles\r\nContent-Length: 4\r\n\r\n").status == 417


# ---- the end of the client's half


def test_a_half_sent_request_whose_client_leaves_is_dropped(transport: Server, recorder: Recorder) -> None:
    for octets in (POST, POST + HOST + b"Content-Length: 4\r\n\r\nMII"):
        with Client(transport).handshake() as client:
            client.send(octets)
            client.tls.shutdown()
            client.flush()
            with pytest.raises(Closed):
                client.read()
    transport.traffic.wait_until_closed()
    assert recorder.requests == []
