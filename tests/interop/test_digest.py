"""curl's own HTTP Digest, and the promise that a nonce is one thing at all processes that share a ledger."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.conftest import PASSWORD, ROOT, RunningServer, Workshop, serving
from tests.interop.test_curl import make_csr, post
from tests.server.digest_client import line, offered, respond

USER = "device-7"
MANIFEST = """\
apiVersion: v1
kind: Secret
metadata: {{name: digests, namespace: devices}}
stringData:
  digest: |
{lines}
---
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {{name: digest, namespace: devices}}
spec:
  ca: {{secretName: digest-ca, generate: {{commonName: Digest CA, keyAlgorithm: ECDSA-P256}}}}
  est:
    label: digest
    authentication: [{{digest: {{secretName: digests, md5: true}}}}]
  policy:
    rules: [{{from: {{authentication: digest}}, subject: {{commonName: "{{user}}"}}, dnsNames: ["{{user}}.devices.example.com"]}}]
"""
TARGET = "/.well-known/est/digest/simpleenroll"


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Two server processes, each with two workers, over one ledger."""
    folder = tmp_path_factory.mktemp("digest")
    (folder / "manifests").mkdir()
    lines = [line(USER, PASSWORD, realm="digest", algorithm=algorithm) for algorithm in ("SHA-256", "MD5")]
    (folder / "manifests" / "digest.yaml").write_text(MANIFEST.format(lines="\n".join(f"    {one}" for one in lines)))
    environment = {"EST_LEDGER": f"sqlite:///{folder / 'shared.sqlite'}", "EST_WORKERS": "2"}
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(serving(folder / name, "devices/digest", environment=environment, manifests=folder / "manifests"))
            for name in ("one", "two")
        )
        yield one, two


@pytest.fixture
def workshops(tmp_path: Path, two_servers: tuple[RunningServer, RunningServer]) -> list[Workshop]:
    found = []
    for number, server in enumerate(two_servers):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "est-root.pem").write_bytes(server.anchors.read_bytes())
        found.append(Workshop(folder=folder, server=server))
    return found


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-10", "EST-AUTH-11", "EST-AUTH-12")
@pytest.mark.parametrize("user_agent", ["curl", "libest 3.2.0"])
def test_curl_enrols_by_digest(workshops: list[Workshop], user_agent: str) -> None:
    workshop = workshops[0]
    options = ("--digest", "--user", f"{USER}:{PASSWORD}", "--user-agent", user_agent)
    body = base64.b64encode(make_csr(workshop))
    done = workshop.run(
        *("curl", "--silent", "--show-error", "--verbose", "--fail", "--cacert", "est-root.pem", "--data-binary", "@-", *options),
        *("--header", "Content-Type: application/pkcs10", "--output", "answer", f"{workshop.server.url}/digest/simpleenroll"),
        stdin=body,
    )
    assert done.returncode == 0, done.stderr
    sent = [text for text in done.stderr.decode().splitlines() if text.startswith("> Authorization: Digest ")]
    assert len(sent) == 1
    assert f"algorithm={'MD5' if user_agent.startswith('libest') else 'SHA-256'}" in sent[0]
    assert post(workshop, body, "--digest", "--user", f"{USER}:wrong", operation="digest/simpleenroll")[0] == 401


@pytest.mark.spec("EST-AUTH-12", "EST-AUTH-13", "THREAT-15")
def test_a_nonce_of_one_process_is_good_at_the_other_and_a_replay_is_refused_by_both(workshops: list[Workshop]) -> None:
    one, two = workshops
    body = base64.b64encode(make_csr(one))
    challenge = offered([challenges(one, body)[0]])
    authorization = respond(challenge, USER, PASSWORD, uri=TARGET)
    assert post(two, body, "--header", f"Authorization: {authorization}", operation="digest/simpleenroll")[0] == 200
    for _ in range(6):  # four workers, and the kernel picks
        for workshop in workshops:
            answered = challenges(workshop, body, authorization)
            assert offered(answered)["stale"] == "true"


def test_the_documented_commands_make_the_lines_of_the_secrets(workshops: list[Workshop]) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    (made,) = re.findall(r"`(printf 'device-7:factory:SHA-256:[^`]*)`", text)
    done = workshops[0].run("bash", "-euc", made, environment={"PASSWORD": PASSWORD})
    assert done.stdout.decode() == line(USER, PASSWORD) + "\n"
    (made,) = re.findall(r"`(otp=[^`]*)`", text)
    done = workshops[0].run("bash", "-euc", f'{made}; printf %s "$otp"')
    hashed, _, password = done.stdout.decode().partition("  -\n")
    assert hashed == hashlib.sha256(password.encode()).hexdigest()
    assert len(password) == 32, "128 bits in hex"


def challenges(workshop: Workshop, body: bytes, authorization: str | None = None) -> list[str]:
    """The values of WWW-Authenticate of a 401."""
    credentials = () if authorization is None else ("--header", f"Authorization: {authorization}")
    done = workshop.run(
        *("curl", "--silent", "--include", "--cacert", "est-root.pem", "--header", "Content-Type: application/pkcs10", *credentials),
        *("--data-binary", "@-", f"{workshop.server.url}/digest/simpleenroll"),
        stdin=body,
    )
    head = done.stdout.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0].startswith("HTTP/1.1 401 "), head
    return [text.removeprefix("WWW-Authenticate: ") for text in head if text.startswith("WWW-Authenticate: ")]
