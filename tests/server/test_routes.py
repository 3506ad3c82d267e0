"""Paths, methods and headers: what is not exactly right reaches nothing."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from estcore import transfer
from estserver import routes
from tests.server.app_fixtures import SPEC, Server, basic, make_csr, manifest, registry_of, running, with_est

EST = "/.well-known/est"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(tmp_path_factory.mktemp("server")) as running_server:
        yield running_server


@pytest.mark.spec("EST-URI-01", "EST-URI-02", "EST-URI-04", "EST-URI-06")
@pytest.mark.parametrize("path", [f"{EST}/cacerts", f"{EST}/factory/cacerts"])
async def test_operations_answer_with_and_without_label(server: Server, path: str) -> None:
    answer = await server.request("GET", path)
    assert answer.status == 200
    assert answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only"


@pytest.mark.spec("EST-URI-04")
async def test_labels_lead_to_different_cas(tmp_path: Path) -> None:
    other = {**SPEC, "ca": {"secretName": "other-ca"}, "est": {**SPEC["est"], "label": "other"}}
    async with running(tmp_path, registry_of(manifest(), manifest("other", other))) as server:
        one, two = await server.request("GET", f"{EST}/factory/cacerts"), await server.request("GET", f"{EST}/other/cacerts")
    assert one.status == two.status == 200
    assert one.body != two.body


@pytest.mark.parametrize("written", ["ca%3A12", "ca%3a12", "ca:12"])
async def test_a_label_may_hold_a_colon_and_be_written_with_it_encoded(tmp_path: Path, written: str) -> None:
    async with running(tmp_path, registry_of(manifest(spec=with_est(label="ca:12")))) as server:
        assert (await server.request("GET", f"{EST}/{written}/cacerts")).status == 200


@pytest.mark.spec("EST-URI-06")
async def test_without_default_issuer_the_path_without_label_says_so(tmp_path: Path) -> None:
    two = registry_of(manifest(), manifest("other", with_est(label="other")), default=None)
    async with running(tmp_path, two) as server:
        answer = await server.request("GET", f"{EST}/cacerts")
    assert answer.status == 404
    assert answer.text == "this server has no default issuer; use /.well-known/est/<label>/…"


ODD_PATHS = [
    "/",
    "",
    "*",
    "/cacerts",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/healthz",
    "/metrics",
    "/.well-known/est",
    "/.well-known/est/",
    "/.well-known/est/cacerts/",
    "/.well-known/est//cacerts",
    "//.well-known/est/cacerts",
    "/.well-known//est/cacerts",
    "/.well-known/est/factory//cacerts",
    "/.well-known/est/factory/cacerts/",
    "/.well-known/est/factory/other/cacerts",
    "/.well-known/est/./cacerts",
    "/.well-known/est/../est/cacerts",
    "/.well-known/est/factory/../cacerts",
    "/.well-known/est/%2e/cacerts",
    "/.well-known/est/%2e%2e/est/cacerts",
    "/.well-known/est/factory%2fcacerts",
    "/.well-known/est/factory%2Fcacerts",
    "/.well-known/est/%66actory/cacerts",
    "/.well-known/est/factory/%63acerts",
    "/.well-known/est/factory%00/cacerts",
    "/.well-known/est/factory/cacerts%00",
    "/.well-known/est/factory;x/cacerts",
    "/.well-known/est/factory/cacerts;x=1",
    "/.well-known/est/cacerts%20",
    "/.well-known/est/cacerts ",
    "/.well-known/est/CACERTS",
    "/.well-known/est/Factory/cacerts",
    "/.WELL-KNOWN/est/cacerts",
    "/.well-known/est\\cacerts",
    "/.well-known/est/fact\xf6ry/cacerts",
    "/.well-known/est/unknown/cacerts",
    "/.well-known/est/cacerts/cacerts",
    f"/.well-known/est/{'a' * 400}/cacerts",
    "/est-issuer/v1/issuers/",
    "/est-issuer/v1//issuers",
    "/est-issuer/v1/issuers;x",
    "/est-issuer/v1/%69ssuers",
    "http://other.example/.well-known/est/cacerts",
]


@pytest.mark.spec("THREAT-09", "THREAT-37", "EST-RESP-06")
@pytest.mark.parametrize("path", ODD_PATHS)
async def test_a_path_that_is_not_in_the_table_is_404_in_plain_text(server: Server, path: str) -> None:
    answer = await server.request("GET", path)
    assert answer.status == 404
    assert answer.text
    # the method is looked at before the label, so that an operation's Allow is the same at every label
    assert (await server.request("POST", path)).status in {404, 405}


@pytest.mark.parametrize("query", [b"x=1", b"label=factory", b"%2e"])
async def test_a_query_is_no_part_of_any_path(server: Server, query: bytes) -> None:
    assert (await server.request("GET", f"{EST}/cacerts", query=query)).status == 404
    assert (await server.request("GET", "/est-issuer/v1/issuers", query=query)).status == 404


@pytest.mark.spec("EST-URI-03")
@pytest.mark.parametrize(
    ("path", "allowed", "refused"),
    [
        (f"{EST}/cacerts", "GET", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "FOO"]),
        (f"{EST}/factory/simpleenroll", "POST", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "FOO"]),
        (f"{EST}/factory/simplereenroll", "POST", ["GET", "HEAD", "PUT", "OPTIONS"]),
        ("/est-issuer/v1/issuers", "GET", ["HEAD", "POST", "PUT", "DELETE"]),
    ],
)
async def test_another_method_is_405_with_allow(server: Server, path: str, allowed: str, refused: list[str]) -> None:
    for method in refused:
        answer = await server.request(method, path, headers=[("Authorization", basic())])
        assert answer.status == 405
        assert answer.header("allow") == allowed
        assert answer.text == f"this operation is invoked by {allowed}"


@pytest.mark.spec("THREAT-09", "EST-CLI-01", "EST-AUTH-02")
async def test_unauthenticated_variants_of_path_method_host_and_label_are_never_issued(server: Server) -> None:
    """At least 200 variants; 0 issued (threats: figures to reach)."""
    bodies = make_csr("device-1", "a.devices.example")
    segments = [
        "simpleenroll",
        "simplereenroll",
        "simpleenroll/",
        "simpleEnroll",
        "fullcmc",
        "serverkeygen",
        "simpleenroll%00",
        "simpleenroll;a",
    ]
    labels = ["", "factory/", "devices.factory/", "FACTORY/", "./", "%2e/", "factory%2f/", "unknown/"]
    methods = ["POST", "GET", "PUT", "HEAD", "OPTIONS", "CONNECT"]
    headers: list[list[tuple[str, str]]] = [
        [],
        [("Host", "evil.example/.well-known/est/cacerts?"), ("X-Forwarded-Client-Cert", "Hash=00"), ("X-SSL-Client-Verify", "SUCCESS")],
    ]
    answers = []
    for segment, label, method, extra in itertools.product(segments, labels, methods, headers):
        answer = await server.request(
            method, f"{EST}/{label}{segment}", headers=[("Content-Type", "application/pkcs10"), *extra], body=bodies
        )
        answers.append(answer)
        assert answer.status in {401, 403, 404, 405, 415}
        assert answer.status != 401 or answer.all("www-authenticate")
    assert len(answers) >= 200
    assert server.audit_lines == []


@pytest.mark.parametrize("header", ["Authorization", "Content-Type", "Content-Encoding"])
async def test_a_header_that_may_come_once_and_comes_twice_is_400(server: Server, header: str) -> None:
    answer = await server.request("POST", f"{EST}/simpleenroll", headers=[(header, "one"), (header, "one")])
    assert answer.status == 400
    assert answer.text == f"{header.lower()} is there twice"


@pytest.mark.parametrize("chunks", [1, 2, 7])
async def test_a_body_in_pieces_is_read_whole(server: Server, chunks: int) -> None:
    headers = [("Content-Type", "application/pkcs10"), ("Authorization", basic())]
    body = transfer.encode_body(make_csr("device-1", "a.devices.example"))
    answer = await server.request("POST", f"{EST}/simpleenroll", headers=headers, body=body, chunks=chunks)
    assert answer.status == 200


@pytest.mark.spec("THREAT-08", "THREAT-19")
@pytest.mark.parametrize("chunks", [1, 3])
async def test_a_body_over_64_kib_is_413(server: Server, chunks: int) -> None:
    answer = await server.request("POST", f"{EST}/simpleenroll", body=b"A" * (64 * 1024 + 1), chunks=chunks)
    assert answer.status == 413
    assert answer.text == "the body is longer than 65536 octets"


async def test_a_client_that_went_away_within_its_body_is_not_served(server: Server) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/.well-known/est/simpleenroll",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "client": None,
    }
    incoming: list[dict[str, Any]] = [{"type": "http.request", "body": b"MII", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await server.app(scope, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.spec("EST-RESP-05", "THREAT-36")
async def test_an_exception_of_ours_is_500_with_an_id_and_nothing_internal(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Any:
        raise ValueError("secret inner detail at /srv/app.py")

    monkeypatch.setattr(routes, "OPERATIONS", {**routes.OPERATIONS, b"cacerts": ("GET", "cacerts", broken)})
    answer = await server.request("GET", f"{EST}/cacerts")
    assert answer.status == 500
    words = answer.text.split()
    assert words[:2] == ["internal", "error"]
    assert len(words[2].rstrip(";")) == 16
    assert "inner" not in answer.text
    assert server.metric('est_refusals_total{issuer="EstIssuer/devices/factory",reason="InternalError"}') == 1


async def test_a_websocket_is_not_accepted(server: Server) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await server.app({"type": "websocket", "path": f"{EST}/cacerts", "raw_path": b"", "headers": [], "query_string": b""}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
