"""/serverkeygen as docs/clients.md shows it: our own command, and curl with `openssl cms`, against the real server."""

import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from estcore.issuer_spec import KeyAlgorithm
from tests import pki
from tests.interop.conftest import PASSWORD, ROOT, RunningServer, Workshop, serving

KEK = bytes(range(32)).hex()
RECIPIENTS_CA = pki.ca("Recipients' CA")


def recipient(algorithm: KeyAlgorithm, usage: str) -> tuple[bytes, bytes]:
    """Key and certificate of a device that decrypts by them, in PEM."""
    private_key = pki.key(algorithm, "decrypts")
    certificate = pki.leaf(RECIPIENTS_CA, public_key=private_key.public_key(), usage=pki.key_usage(usage), ekus=())
    return pki.key_pem(private_key), certificate.public_bytes(Encoding.PEM)


RECIPIENTS = {
    "rsa": recipient(KeyAlgorithm.RSA_2048, "key_encipherment"),
    "ec": recipient(KeyAlgorithm.ECDSA_P256, "key_agreement"),
    "p384": recipient(KeyAlgorithm.ECDSA_P384, "key_agreement"),
}


def issuer(name: str, ca_algorithm: str, key_algorithm: str) -> str:
    return f"""\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {{name: {name}, namespace: devices}}
spec:
  ca: {{secretName: {name}-ca, generate: {{commonName: {name} CA, keyAlgorithm: {ca_algorithm}}}}}
  est:
    label: {name}
    authentication: [{{basic: {{secretName: device-passwords}}}}]
    serverKeyGeneration:
      {{enabled: true, encryption: Optional, keyAlgorithm: {key_algorithm}, wrappingKeys: {{secretName: factory-wrapping-keys}}}}
  policy:
    rules: [{{from: {{authentication: basic}}, subject: {{commonName: "{{user}}"}}}}]
"""


def wrapping_keys() -> str:
    entries = "".join(
        f"  {name}.pem: |\n" + "".join(f"    {line}\n" for line in certificate.decode().splitlines())
        for name, (_, certificate) in RECIPIENTS.items()
    )
    return f"""\
apiVersion: v1
kind: Secret
metadata: {{name: factory-wrapping-keys, namespace: devices}}
type: Opaque
stringData:
  device-7.key: {KEK}
{entries}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Labels factory, which here makes keys (an ECDSA CA, P-256 keys), and factory-rsa (an RSA CA, RSA keys)."""
    folder = tmp_path_factory.mktemp("keygen")
    more = tmp_path_factory.mktemp("more")
    (more / "estissuer.yaml").write_text(issuer("factory", "ECDSA-P256", "ECDSA-P256"))
    (more / "factory-rsa.yaml").write_text(issuer("factory-rsa", "RSA-2048", "RSA-2048"))
    (more / "factory-wrapping.yaml").write_text(wrapping_keys())
    with serving(folder, "devices/factory", manifests=more) as running:
        yield running


@pytest.fixture
def workshop(tmp_path: Path, server: RunningServer) -> Workshop:
    shutil.copy(server.anchors, tmp_path / "est-root.pem")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "device-7.kek").write_text(KEK + "\n")
    for name, (key_pem, certificate_pem) in RECIPIENTS.items():
        (tmp_path / f"{name}.key").write_bytes(key_pem)
        (tmp_path / f"{name}.pem").write_bytes(certificate_pem)
    return Workshop(folder=tmp_path, server=server)


def shown(number: int) -> str:
    """The shell commands of docs/clients.md about this, in their order."""
    section = (ROOT / "docs" / "clients.md").read_text().split("\n## A key from the server\n")[1].split("\n## ")[0]
    return section.split("```sh\n")[1 + number].split("```")[0]


def check_pair(workshop: Workshop, key: str, certificate: str) -> x509.Certificate:
    """By openssl: the key is the certificate's."""
    ours = workshop.run("openssl", "pkey", "-in", key, "-pubout")
    theirs = workshop.run("openssl", "x509", "-in", certificate, "-noout", "-pubkey")
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    assert ours.stdout == theirs.stdout
    found = workshop.certificate(certificate)
    assert found.subject.rfc4514_string() == "CN=device-7"
    return found


def est(workshop: Workshop, *options: object, label: str = "factory") -> tuple[int, bytes]:
    command = (
        Path(sys.executable).with_name("est"),
        "serverkeygen",
        "--url",
        f"https://localhost:{workshop.server.port}",
        "--label",
        label,
    )
    who = ("--anchors", "est-root.pem", "--user", "device-7", "--password-file", "password", "--subject", "CN=device-7", "--out-dir", "out")
    done = workshop.run(*command, *who, *options)
    return done.returncode, done.stderr


@pytest.mark.spec("EST-SKG-04", "EST-SKG-12")
def test_the_documented_est_command_works_as_it_is(workshop: Workshop) -> None:
    url, path = f"https://localhost:{workshop.server.port}", f"{Path(sys.executable).parent}:/usr/bin:/bin"
    workshop.bash(shown(0).replace("https://HOST", url), PATH=path)
    check_pair(workshop, "device-7/tls.key", "device-7/tls.crt")
    assert stat.S_IMODE((workshop.folder / "device-7" / "tls.key").stat().st_mode) == 0o600
    verified = workshop.run("openssl", "verify", "-CAfile", "device-7/ca.crt", "device-7/tls.crt")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.spec("EST-SKG-01", "EST-SKG-09", "EST-SKG-10", "EST-SKG-15")
@pytest.mark.parametrize("label", ["factory", "factory-rsa"])
def test_the_documented_commands_for_a_plain_key_work_as_they_are(workshop: Workshop, label: str) -> None:
    workshop.bash(shown(1), EST=f"{workshop.server.url}/{label}", PASSWORD=PASSWORD)
    check_pair(workshop, "device-7.key", "device-7.pem")


@pytest.mark.spec("EST-SKG-05", "EST-SKG-11", "EST-SKG-12")
@pytest.mark.parametrize("label", ["factory", "factory-rsa"])
def test_the_documented_commands_for_an_encrypted_key_work_as_they_are(workshop: Workshop, label: str) -> None:
    workshop.bash(shown(2), EST=f"{workshop.server.url}/{label}", PASSWORD=PASSWORD, KEK=KEK)
    check_pair(workshop, "device-7.key", "device-7.pem")


@pytest.mark.spec("EST-SKG-13", "EST-SKG-14")
@pytest.mark.parametrize("name", RECIPIENTS)
@pytest.mark.parametrize("label", ["factory", "factory-rsa"])
def test_est_gets_a_key_that_is_encrypted_for_its_own(workshop: Workshop, name: str, label: str) -> None:
    status, stderr = est(workshop, "--decrypt-key", f"{name}.key", "--decrypt-cert", f"{name}.pem", label=label)
    assert status == 0, stderr
    check_pair(workshop, "out/tls.key", "out/tls.crt")
    key = load_pem_private_key((workshop.folder / "out" / "tls.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey if label == "factory" else rsa.RSAPrivateKey)


@pytest.mark.spec("EST-SKG-05", "EST-SKG-17")
def test_est_says_why_there_is_no_key_and_writes_none(workshop: Workshop) -> None:
    status, stderr = est(workshop, "--kek-id", "device-8", "--kek-file", "device-7.kek")
    assert status == 3
    assert b"has no key by the identifier" in stderr
    assert not (workshop.folder / "out").exists()
