"""EstClient against a server that misbehaves: keep-alive, deadlines, cut answers, redirects, changed anchors."""

import asyncio
import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estclient import Basic, Bearer, Credentials, EstClient
from estcore import csr_builder
from estcore.errors import ConfigurationError, MalformedResponse, Pending, Refused, ServerUnavailable, UntrustedServer
from tests.client.double import Answer, EstDouble, Identity, Seen, certificates, est_double, issue, make_ca, name

KEY = ec.generate_private_key(ec.SECP256R1())
CSR_DER = csr_builder.build(KEY, subject=name("device-7"))


def client(double: EstDouble, ca: Identity, *, timeout: float = 5, credentials: Credentials | None = None) -> EstClient:
    return EstClient(url=double.url, label="factory", anchors_pem=ca.pem, credentials=credentials, timeout=timedelta(seconds=timeout))


@pytest.mark.spec("EST-URI-03", "EST-ENROLL-01", "EST-REENR-01")
async def test_the_three_operations_go_to_their_paths_on_one_connection(ca: Identity, server: Identity) -> None:
    def behave(seen: Seen) -> Answer:
        return certificates(issue(ca, seen.csr_der) if seen.method == "POST" else ca.certificate)

    with est_double(behave, server) as double:
        async with client(double, ca, credentials=Basic(user="device-7", password="pw")) as est:
            assert await est.ca_certs() == (ca.certificate,)
            assert (await est.simple_enroll(CSR_DER)).public_key() == KEY.public_key()
            assert (await est.simple_reenroll(CSR_DER)).subject == name("device-7")
        assert [(seen.method, seen.target.rpartition("/")[2]) for seen in double.seen] == [
            ("GET", "cacerts"),
            ("POST", "simpleenroll"),
            ("POST", "simplereenroll"),
        ]
        assert double.connections == 1
        assert {seen.target.rpartition("/")[0] for seen in double.seen} == {"/.well-known/est/factory"}
        assert {seen.headers["authorization"] for seen in double.seen} == {"Basic ZGV2aWNlLTc6cHc="}
        assert double.seen[0].headers["host"] == f"localhost:{double.port}"
        assert not double.seen[0].headers["user-agent"].startswith("libest")


async def test_a_token_is_asked_for_before_each_request(ca: Identity, server: Identity) -> None:
    tokens = iter(["one", "two"])
    with est_double(lambda _: certificates(ca.certificate), server) as double:
        async with client(double, ca, credentials=Bearer(token=lambda: next(tokens))) as est:
            await est.ca_certs()
            await est.ca_certs()
        assert [seen.headers["authorization"] for seen in double.seen] == ["Bearer one", "Bearer two"]


async def test_many_tasks_share_a_few_connections(ca: Identity, server: Identity) -> None:
    with est_double(lambda seen: certificates(issue(ca, seen.csr_der)), server) as double:
        async with client(double, ca) as est:
            await asyncio.gather(*(est.simple_enroll(CSR_DER) for _ in range(50)))
        assert len(double.seen) == 50
        assert 1 <= double.connections <= 8


@pytest.mark.parametrize("ending", ["close", "cut"])
async def test_an_enrolment_survives_a_kept_connection_that_the_server_closed(ca: Identity, server: Identity, ending: str) -> None:
    """The server says nothing of closing, and the client has not read its EOF yet when it writes."""
    answers = 0

    def behave(seen: Seen) -> Answer:
        nonlocal answers
        answers += 1
        if answers == 2:
            return Answer(raw=b"", close=ending == "close", cut=ending == "cut")
        return certificates(issue(ca, seen.csr_der))

    with est_double(behave, server) as double:
        async with client(double, ca) as est:
            await est.simple_enroll(CSR_DER)
            await est.simple_enroll(CSR_DER)
        assert [seen.connection for seen in double.seen] == [1, 1, 2]
        assert double.seen[2].body == double.seen[1].body


@pytest.mark.spec("EST-HTTP-07")
async def test_a_repeat_on_another_connection_carries_a_csr_of_that_connection(ca: Identity, server: Identity) -> None:
    bindings: list[bytes] = []

    def build(binding: bytes) -> bytes:
        bindings.append(binding)
        return csr_builder.build(KEY, subject=name("device-7"), channel_binding=binding)

    answers = iter([False, True, False])

    def behave(seen: Seen) -> Answer:
        return Answer(raw=b"", cut=True) if next(answers) else certificates(issue(ca, seen.csr_der))

    with est_double(behave, server) as double:
        async with client(double, ca) as est:
            await est.simple_enroll(build)
            await est.simple_enroll(build)
        first, second, third = (x509.load_der_x509_csr(seen.csr_der) for seen in double.seen)
    assert bindings[0] == bindings[1] != bindings[2]
    assert {len(binding) for binding in bindings} == {32}
    assert first.public_key() == second.public_key() == third.public_key()


async def test_a_fresh_connection_that_ends_without_an_answer_is_not_tried_again(ca: Identity, server: Identity) -> None:
    with est_double(lambda _: Answer(raw=b"", cut=True), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(ServerUnavailable):
                await est.simple_enroll(CSR_DER)
        assert len(double.seen) == 1


async def test_an_answer_that_has_begun_is_never_asked_for_twice(ca: Identity, server: Identity) -> None:
    answers = iter([certificates(ca.certificate), Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", cut=True)])
    with est_double(lambda _: next(answers), server) as double:
        async with client(double, ca) as est:
            await est.ca_certs()
            with pytest.raises(ServerUnavailable):
                await est.ca_certs()
        assert len(double.seen) == 2


CUT = {
    "in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "in a body of known length": b"HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\nContent-Length: 4000\r\n\r\nMII",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nMII",
    "in a body that ends with the connection": b"HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\n\r\nMII",
}


@pytest.mark.parametrize("where", sorted(CUT))
async def test_a_cut_answer_is_never_taken_for_a_whole_one(ca: Identity, server: Identity, where: str) -> None:
    with est_double(lambda _: Answer(raw=CUT[where], cut=True), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(ServerUnavailable):
                await est.ca_certs()


async def test_a_body_that_ends_with_close_notify_is_whole(ca: Identity, server: Identity) -> None:
    good = certificates(ca.certificate)
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\n\r\n" + good.body
    with est_double(lambda _: Answer(raw=raw, close=True), server) as double:
        async with client(double, ca) as est:
            assert await est.ca_certs() == (ca.certificate,)


HOSTILE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000,
    "an endless header": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a body over the limit": b"HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\nContent-Length: 300000\r\n\r\n" + b"A" * 300_000,
    "endless chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b"A" * 4096 + b"\r\n") * 100,
}


@pytest.mark.parametrize("which", sorted(HOSTILE))
async def test_hostile_answers_are_bounded(ca: Identity, server: Identity, which: str) -> None:
    with est_double(lambda _: Answer(raw=HOSTILE[which], stall=True), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(MalformedResponse):
                await est.ca_certs()


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nMII"]
)
async def test_a_slow_answer_ends_at_the_deadline(ca: Identity, server: Identity, begun: bytes) -> None:
    with est_double(lambda _: Answer(raw=begun, stall=True), server) as double:
        async with client(double, ca, timeout=0.2) as est:
            with pytest.raises(ServerUnavailable, match=r"within 0\.2 s"):
                await est.ca_certs()


async def test_a_port_that_never_shakes_hands_ends_at_the_deadline(ca: Identity) -> None:
    async def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with EstClient(url=f"https://127.0.0.1:{port}", label=None, anchors_pem=ca.pem, timeout=timedelta(seconds=0.2)) as est:
        with pytest.raises(ServerUnavailable, match="within"):
            await est.ca_certs()
    silent.close()


@pytest.mark.spec("EST-RESP-08", "EST-RESP-09", "EST-RESP-12", "EST-AUTH-06")
@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Answer(status=202, headers={"Retry-After": "60"}), Pending, "approval"),
        (Answer(status=401, headers={"WWW-Authenticate": "Negotiate"}, body=b"log in"), Refused, "log in"),
        (Answer(status=403, headers={"Content-Type": "text/plain"}, body=b"DNS:a is not permitted\n"), Refused, "DNS:a is not permitted"),
        (Answer(status=503, headers={"Retry-After": "9"}), ServerUnavailable, "503"),
        (Answer(status=500, headers={"Content-Type": "application/json"}, body=b'{"detail": "x"}'), ServerUnavailable, "500"),
        (Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<p>"), MalformedResponse, "text/html"),
        (Answer(status=204), MalformedResponse, "204"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
async def test_each_answer_becomes_its_error(ca: Identity, server: Identity, answer: Answer, error: type[Exception], says: str) -> None:
    with est_double(lambda _: answer, server) as double:
        async with client(double, ca, credentials=Basic(user="u", password="p")) as est:
            with pytest.raises(error, match=says):
                await est.simple_enroll(CSR_DER)
        assert len(double.seen) == 1, "an answer is never answered by asking again on its own"


@pytest.mark.spec("EST-HTTP-04")
async def test_a_redirect_within_the_origin_is_followed_with_method_and_body(ca: Identity, server: Identity) -> None:
    def behave(seen: Seen) -> Answer:
        if seen.target.endswith("/elsewhere"):
            return certificates(issue(ca, seen.csr_der))
        return Answer(status=307, headers={"Location": "/elsewhere"})

    with est_double(behave, server) as double:
        async with client(double, ca) as est:
            await est.simple_enroll(CSR_DER)
        assert [(seen.method, seen.target) for seen in double.seen] == [
            ("POST", "/.well-known/est/factory/simpleenroll"),
            ("POST", "/elsewhere"),
        ]


@pytest.mark.spec("EST-HTTP-08")
async def test_a_circle_of_redirects_ends(ca: Identity, server: Identity) -> None:
    with est_double(lambda seen: Answer(status=307, headers={"Location": seen.target}), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(MalformedResponse, match="circle"):
                await est.ca_certs()
        assert len(double.seen) == 5


@pytest.mark.spec("EST-HTTP-05", "EST-HTTP-06", "EST-HTTP-08")
async def test_no_other_origin_sees_the_password(ca: Identity, server: Identity) -> None:
    with est_double(lambda _: Answer(), server) as other:
        with est_double(lambda _: Answer(status=307, headers={"Location": f"{other.url}/x"}), server) as double:
            async with client(double, ca, credentials=Basic(user="u", password="p")) as est:
                with pytest.raises(MalformedResponse, match="another origin"):
                    await est.simple_enroll(CSR_DER)
        assert other.connections == 0


async def test_what_cannot_stand_in_a_header_is_refused_without_quoting_it(ca: Identity, server: Identity) -> None:
    with est_double(lambda _: Answer(), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(ConfigurationError) as refused:
                await est.get_json("/", "secret\r\nHost: evil")
        assert "secret" not in refused.value.message
        assert double.seen == []


async def test_new_anchors_hold_from_the_next_request_on(ca: Identity, server: Identity) -> None:
    other = make_ca("the next CA")
    with est_double(lambda _: certificates(ca.certificate), server) as double:
        async with client(double, ca) as est:
            await est.ca_certs()
            with pytest.raises(ConfigurationError):
                est.replace(anchors_pem=server.pem)
            await est.ca_certs()
            assert double.connections == 1, "anchors that cannot be used change nothing"
            est.replace(anchors_pem=other.pem)
            with pytest.raises(UntrustedServer):
                await est.ca_certs()
            est.replace(anchors_pem=other.pem + ca.pem, credentials=Basic(user="u", password="p"))
            await est.ca_certs()
        assert "authorization" not in double.seen[1].headers
        assert "authorization" in double.seen[2].headers


async def test_connections_in_use_end_when_anchors_are_replaced(ca: Identity, server: Identity) -> None:
    hold: list[Callable[[], None]] = []

    def behave(seen: Seen) -> Answer:
        for release in hold:
            release()
        return certificates(ca.certificate)

    with est_double(behave, server) as double:
        async with client(double, ca) as est:
            hold.append(lambda: est.replace(anchors_pem=ca.pem))
            await est.ca_certs()
            hold.clear()
            await est.ca_certs()
        assert double.connections == 2


async def test_json_is_fetched_once_and_then_only_when_it_changed(ca: Identity, server: Identity) -> None:
    def behave(seen: Seen) -> Answer:
        if seen.headers.get("if-none-match") == '"1"':
            return Answer(raw=b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
        return Answer(headers={"Content-Type": "application/json; charset=utf-8", "ETag": '"1"'}, body=b'{"issuers": []}')

    with est_double(behave, server) as double:
        async with client(double, ca) as est:
            first = await est.get_json("/est-issuer/v1/issuers")
            assert first is not None
            assert (first.value, first.etag) == ({"issuers": []}, '"1"')
            assert await est.get_json("/est-issuer/v1/issuers", first.etag) is None
        assert double.connections == 1


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/plain", b"{}"), ("application/json", b"{"), ("application/json", b"[" * 200_000), ("application/json", b"\xff")],
)
async def test_what_is_no_json_is_a_protocol_error(ca: Identity, server: Identity, content_type: str, body: bytes) -> None:
    with est_double(lambda _: Answer(headers={"Content-Type": content_type}, body=body), server) as double:
        async with client(double, ca) as est:
            with pytest.raises(MalformedResponse, match="JSON"):
                await est.get_json("/x")


async def test_closing_leaves_no_connection_behind(ca: Identity, server: Identity) -> None:
    with est_double(lambda _: certificates(ca.certificate), server) as double:
        est = client(double, ca)
        await asyncio.gather(*(est.ca_certs() for _ in range(4)))
        await est.aclose()
        assert await asyncio.to_thread(double.all_closed.wait, 5)


@pytest.mark.spec("EST-ENC-03")
async def test_a_bag_in_long_and_short_lines_is_the_same(ca: Identity, server: Identity) -> None:
    bodies = iter([certificates(ca.certificate).body, base64.encodebytes(base64.b64decode(certificates(ca.certificate).body))])
    with est_double(lambda _: Answer(headers={"Content-Type": "application/pkcs7-mime"}, body=next(bodies)), server) as double:
        async with client(double, ca) as est:
            assert await est.ca_certs() == await est.ca_certs()


async def test_sixteen_kilobytes_of_csr_leave_whole(ca: Identity, server: Identity) -> None:
    sans = [x509.DNSName(f"{'x' * 60}{i:03}.example") for i in range(100)]
    csr_der = csr_builder.build(KEY, subject=name("big"), sans=sans)

    with est_double(lambda seen: certificates(issue(ca, seen.csr_der)), server) as double:
        async with client(double, ca) as est:
            await est.simple_enroll(csr_der)
        assert double.seen[0].csr_der == csr_der
