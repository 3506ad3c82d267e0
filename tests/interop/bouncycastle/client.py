"""What the Java client is asked and answers: options in, lines of name=value out."""

import base64
import subprocess
from collections.abc import Callable

from cryptography import x509

from tests.interop.conftest import PASSWORD, RunningServer

Answer = dict[str, list[str]]
Run = Callable[..., Answer]

NAMES = {"subject": "CN=device-7", "dns": "device-7.devices.example.com"}
LOGIN = {"user": "device-7", "password": PASSWORD}
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""One short run each: no time to compile well, no heap to tidy up."""


def run(class_path: str, server: RunningServer, command: str, *, label: str, **options: object) -> Answer:
    """One command of the client, io.estissuer.interop.Main; `key_algorithm` is --key-algorithm."""
    given = {"server": f"localhost:{server.port}", "label": label, "anchors": server.anchors, **options}
    arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    client = [*JAVA, "-cp", class_path, "io.estissuer.interop.Main", command, *arguments]
    done = subprocess.run(client, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: Answer = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        answer.setdefault(name, []).append(value)
    return answer


def certificates(answer: Answer, name: str = "certificate") -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(base64.b64decode(each)) for each in answer[name]]
