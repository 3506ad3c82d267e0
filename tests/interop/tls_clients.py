"""Two TLS clients that are not ours and know their connection's channel binding: Python's ssl on TLS 1.2, `openssl s_client` on 1.3.

Both are OpenSSL's; neither shares code with estserver, whose OpenSSL came with `cryptography`.
"""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from tests.interop.conftest import RunningServer

EXPORTER = ("-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32")
"""RFC 9266 section 2."""


class Connection(Protocol):
    """A TLS connection to the server that stays open."""

    binding: bytes

    def ask(self, request: bytes) -> tuple[int, str]:
        """Send one HTTP request; status and body of its answer."""


def _answer(stream: IO[bytes]) -> tuple[int, str]:
    status_line = b""
    while not status_line.startswith(b"HTTP/1."):
        status_line = stream.readline()
        assert status_line, "the server closed without an answer"
    length = 0
    while (line := stream.readline()) != b"\r\n":
        assert line, "the server closed within its answer"
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return int(status_line.split()[1]), stream.read(length).decode()


class PythonConnection:
    """On TLS 1.2: tls-unique (RFC 5929 section 3)."""

    def __init__(self, connection: ssl.SSLSocket, answers: IO[bytes]) -> None:
        self._connection, self._answers = connection, answers
        self.reused, self.session = connection.session_reused, connection.session
        binding = connection.get_channel_binding("tls-unique")
        assert binding is not None
        self.binding = binding

    def ask(self, request: bytes) -> tuple[int, str]:
        self._connection.sendall(request)
        return _answer(self._answers)


def python_context(server: RunningServer, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(server.anchors))
    context.minimum_version = context.maximum_version = version
    return context


@contextmanager
def python_connection(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Iterator[PythonConnection]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as connection,
        connection.makefile("rb") as answers,
    ):
        yield PythonConnection(connection, answers)


class SClientConnection:
    """tls-exporter; `reused` says what s_client says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._requests, self._answers = process.stdin, process.stdout
        told: list[bytes] = []
        while not (found := re.search(rb"Keying material: ([0-9A-F]{64})", told[-1] if told else b"")):
            told.append(self._answers.readline())
            assert told[-1], b"".join(told).decode()
        self.reused = any(line.startswith(b"Reused, ") for line in told)
        assert self.reused or any(line.startswith(b"New, ") for line in told)
        self.binding = bytes.fromhex(found[1].decode())

    def ask(self, request: bytes) -> tuple[int, str]:
        self._requests.write(request)
        self._requests.flush()
        return _answer(self._answers)


@contextmanager
def s_client_connection(server: RunningServer, *options: str, port: int | None = None) -> Iterator[SClientConnection]:
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port or server.port}", "-servername", "localhost", "-nocommands")
    with subprocess.Popen(
        (*command, *EXPORTER, *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield SClientConnection(process)
        finally:
            process.kill()
