"""What the Java client is asked and answers: a line of command and options in, lines of name=value out."""

import base64
import subprocess
from collections.abc import Callable

from cryptography import x509

from tests.interop.conftest import PASSWORD, RunningServer

Answer = dict[str, list[str]]
Run = Callable[..., Answer]

NAMES = {"subject": "CN=device-7", "dns": "device-7.devices.example.com"}
LOGIN = {"user": "device-7", "password": PASSWORD}


class Client:
    """One process for all commands: to start a Java takes a second. Each command makes TLS contexts and connections of its own."""

    def __init__(self, process: subprocess.Popen[str], server: RunningServer) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands, self._answers, self._server = process.stdin, process.stdout, server

    def run(self, command: str, *, label: str = "factory", **options: object) -> Answer:
        """One command of io.estissuer.interop.Main at an issuer; `key_algorithm` is --key-algorithm."""
        given = {"server": f"localhost:{self._server.port}", "label": label, "anchors": self._server.anchors, **options}
        arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self._commands.write("\t".join((command, *arguments)) + "\n")
        self._commands.flush()
        answer: Answer = {}
        while line := self._answers.readline().rstrip("\n"):
            name, _, value = line.partition("=")
            answer.setdefault(name, []).append(value)
        assert answer, "the Java client is gone"
        assert "exception" not in answer, answer["exception"]
        return answer


def certificates(answer: Answer, name: str = "certificate") -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(base64.b64decode(each)) for each in answer[name]]
