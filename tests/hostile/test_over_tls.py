"""A part of the corpus over real TLS: what the application says to it is what arrives."""

import asyncio
import socket
import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from estserver.serve import serve
from estserver.tls import ServerTls
from tests import pki
from tests.hostile import authentication, csr_attributes, csr_contents, csr_names, full_requests, key_requests, messages, paths
from tests.hostile.case import Case, site
from tests.server.transport_fixtures import ROOT, SERVER_KEY, server_certificate

EVERY = 9
"""One case of so many: a handshake costs more than all the rest."""


def _plain(case: Case) -> bool:
    """Nothing that the transport answers itself, before the application sees it, and no client certificate, whose key nobody has."""
    path = case.path.encode("latin-1") if isinstance(case.path, str) else case.path
    return (
        case.connection().unverified_client_chain == ()
        and path.startswith(b"/")
        and len(path) < 1000
        and all(0x20 < octet < 0x7F and octet not in b"#?" for octet in path)
        and case.method.isalpha()
        and case.method.isupper()
        and case.method not in {"CONNECT", "POSTX", "GETX", "HEAD"}
        and all(value.isascii() and value.isprintable() and value == value.strip() for _, value in case.headers)
        and not {"Host", "Expect", "Content-Encoding"} & {name for name, _ in case.headers}
    )


SUBSET: dict[str, Case] = {
    name: case
    for table in (csr_names, csr_contents, csr_attributes, key_requests, full_requests, messages, authentication, paths)
    for name, case in [(name, case) for name, case in table.CASES.items() if _plain(case)][::EVERY]
}


def _request(case: Case) -> bytes:
    path = case.path.encode("latin-1") if isinstance(case.path, str) else case.path
    body = case.body()
    target = path + (b"?" + case.query if case.query else b"")
    lines = [f"{name}: {value}".encode() for name, value in (("Host", "127.0.0.1"), *case.headers, ("Content-Length", str(len(body))))]
    return b"\r\n".join([case.method.encode() + b" " + target + b" HTTP/1.1", *lines, b"Connection: close", b"", body])


@asynccontextmanager
async def _listening(folder: Path) -> AsyncIterator[int]:
    async with site(folder) as application:
        sock = socket.create_server(("127.0.0.1", 0))
        shutdown = asyncio.Event()
        tls = ServerTls(pki.pem(server_certificate()), pki.key_pem(SERVER_KEY))
        serving = asyncio.create_task(
            serve(application.app, sockets=[sock], tls=tls, shutdown=shutdown, drain=timedelta(seconds=5), observer=application.metrics)
        )
        try:
            yield sock.getsockname()[1]
        finally:
            shutdown.set()
            await serving


async def _ask(port: int, case: Case, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    try:
        writer.write(_request(case))
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.spec("THREAT-01", "THREAT-08", "THREAT-09", "EST-RESP-05")
async def test_hostile_requests_get_their_answers_over_tls_and_no_certificate(tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=pki.pem(ROOT.certificate).decode())
    assert len(SUBSET) >= 75
    wrong = {}
    async with asyncio.timeout(60), _listening(tmp_path) as port:
        for name, case in SUBSET.items():
            answer = await _ask(port, case, context)
            says = b"" if b"smime-type=CMC-response" in answer else case.says.encode()  # what a signed response says is base64 here
            if not answer.startswith(b"HTTP/1.1 %d " % case.status) or says not in answer:
                wrong[name] = (case.status, answer[:300])
    assert wrong == {}
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT count(*) FROM certificates").fetchone() == (0,)
