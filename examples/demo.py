"""The whole way of a device, on this machine alone: `make demo`.

Starts estserver from a copy of examples/issuer, enrols a device over EST with HTTP Basic, renews over mTLS with the certificate just
got, and shows both certificates beside what the ledger says of them. Then prints the same by hand, with curl and openssl.
Leaves nothing running and no file behind.
"""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from rich.console import Console

from estclient import Basic, ClientCertificate, EstClient, display, keyfile
from estclient.enrolment import Wanted, enroll, renew
from estcore.errors import EstError, ServerUnavailable
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import generate_private_key

ISSUER = Path(__file__).parent / "issuer"
ESTSERVER = Path(sys.executable).with_name("estserver")
LABEL, USER, PASSWORD = "factory", "device-7", "replace-this-example-password"  # as examples/issuer has them
DNS_NAME = f"{USER}.devices.example.com"
START_SECONDS = 30.0
STOP_SECONDS = 10.0

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
began = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running estserver."""

    url: str
    anchors_pem: bytes
    ledger: Path


def main() -> int:
    """Run the demo; the exit code is 0 only if everything went as it says."""
    try:
        with tempfile.TemporaryDirectory(prefix="est-issuer-demo-") as folder:
            config, state = Path(folder) / "config", Path(folder) / "state"
            shutil.copytree(ISSUER, config)
            with running_server(config, state) as server:
                step(f"estserver serves the issuer {LABEL} at {server.url}, with a CA key that it just made")
                asyncio.run(device(server))
            step("estserver has stopped")
    except EstError as error:
        console.print(f"the demo failed: {error.message}", style="red", markup=False)
        return 1
    console.print("\nThe same by hand: the server in one terminal, the rest in another.\n", markup=False)
    console.print(by_hand(int(os.environ.get("EST_DEMO_PORT", "8443"))), markup=False, soft_wrap=True)
    return 0


def step(text: str) -> None:
    """One line of progress."""
    console.print(f"[{time.monotonic() - began:4.1f} s] {text}", markup=False, soft_wrap=True)


async def device(server: Server) -> None:
    """What a device does: a password once, its own certificate from then on."""
    key = generate_private_key(KeyAlgorithm.ECDSA_P256)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, USER)])
    async with EstClient(
        url=server.url, label=LABEL, anchors_pem=server.anchors_pem, credentials=Basic(user=USER, password=PASSWORD)
    ) as client:
        first = await enroll(client, key, Wanted(subject=subject, sans=(x509.DNSName(DNS_NAME),)))
    step(f"{USER} has enrolled with its password")

    own = ClientCertificate(chain_pem=first.chain_pem, key_pem=keyfile.to_pem(key))
    async with EstClient(url=server.url, label=LABEL, anchors_pem=server.anchors_pem, credentials=own) as client:
        second = await renew(client, first.certificate, generate_private_key(KeyAlgorithm.ECDSA_P256))
    step(f"{USER} has renewed with that certificate, and a new key")

    columns = [
        display.Column(heading=heading, certificate=done.certificate, authenticated_by=requester(server.ledger, done.certificate))
        for heading, done in (("enrolled", first), ("renewed", second))
    ]
    console.print(display.table("", columns))


def requester(ledger: Path, certificate: x509.Certificate) -> str:
    """How the requester of a certificate was authenticated, by the ledger's row of it."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        query = "SELECT requester FROM certificates WHERE serial = ?"
        row: tuple[str] | None = database.execute(query, (f"{certificate.serial_number:x}",)).fetchone()
    kind, _, identity = (row[0] if row else "the ledger has no row").partition(":")
    match kind:
        case "basic":
            return f"HTTP Basic\nuser {identity}"
        case "certificate":  # <SHA-256 of its issuer>:<serial>
            return f"TLS client certificate\nserial {identity.rpartition(':')[2]}"
        case _:
            return f"{kind} {identity}"


@contextmanager
def running_server(config: Path, state: Path) -> Iterator[Server]:
    """Run estserver on a free port of loopback, until the end of the block."""
    addresses = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    command = (ESTSERVER, "serve", "--config", config, "--state", state, *addresses, "--log-format", "json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        stuck = threading.Timer(START_SECONDS, process.kill)
        stuck.start()
        try:
            listening = announced(process)
            stuck.cancel()
            port = urlsplit(listening["addresses"][0]).port
            yield Server(
                url=f"https://localhost:{port}",
                anchors_pem=Path(listening["trust_root"]).read_bytes(),
                ledger=state / "ledger.sqlite",
            )
        finally:
            stuck.cancel()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=STOP_SECONDS)


def announced(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The line in which estserver says where it listens; what it logs after that is read and thrown away."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    lines = deque[str](maxlen=5)
    for line in process.stdout:
        lines.append(line)
        event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "listening":
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return event
    raise ServerUnavailable("estserver did not start: " + "".join(lines).strip())


def by_hand(port: int) -> str:
    """The same as commands for a shell; a test runs them as they are printed."""
    request = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    names = f"-subj /CN={USER} -addext subjectAltName=DNS:{DNS_NAME} -outform DER"
    curl = "curl -sS --fail-with-body --cacert state/serving/ca.crt"
    csr = "-H 'Content-Type: application/pkcs10' --data-binary"
    read = "openssl base64 -d -A | openssl pkcs7 -inform DER -print_certs -out"
    return f"""\
{ESTSERVER} serve --config {ISSUER} \\
  --state ~/est-by-hand/state --listen 127.0.0.1:{port}

cd ~/est-by-hand
EST=https://localhost:{port}/.well-known/est/{LABEL}
{curl} $EST/cacerts | {read} ca.pem

{request} -keyout first.key \\
  {names} | openssl base64 > first.p10
{curl} --user {USER}:{PASSWORD} \\
  {csr} @first.p10 $EST/simpleenroll | {read} first.pem

{request} -keyout second.key \\
  {names} | openssl base64 > second.p10
{curl} --cert first.pem --key first.key \\
  {csr} @second.p10 $EST/simplereenroll | {read} second.pem

openssl verify -CAfile ca.pem first.pem second.pem
openssl x509 -in second.pem -noout -text
"""


if __name__ == "__main__":
    sys.exit(main())
