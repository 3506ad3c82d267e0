"""What both servers of the benchmark share: one CA, one server and one client certificate, manifests, and vegeta's targets."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estcore import cert_template, full_exchange, full_request, pki_data, ra_witness, template_modification
from estcore.cmc_controls import Control, LraPopWitness, ModCertTemplate, RegInfo
from estcore.cms_signature import signer_of
from estcore.extension_request import CMC_RA

DISTINCT_CSRS = 512
"""Each with a key and a name of its own, so that neither server can answer from a cache."""

MANIFESTS = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {{name: bench, namespace: default}}
spec:
  ca: {{secretName: bench-ca}}
  est:
    label: bench
    authentication: [{{certificate: {{issuedBy: this}}}}]
  policy:
    rules:
      - from: {{authentication: certificate}}
        subject: {{commonName: "bench-*"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: bench-ca, namespace: default}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The files of one run, all PEM but for the manifests in `config`."""

    ca: Path
    ca_key: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    ra: Path
    ra_key: Path
    config: Path


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def build(folder: Path) -> Scene:
    """Write the files of one run into a folder."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_encipherment", "encipher_only", "decipher_only"), False
    )
    ca = (
        _builder("Bench CA", "Bench CA", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .sign(ca_key, hashes.SHA256())
    )

    def leaf(subject: str, *purposes: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(subject, "Bench CA", key)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM), _key_pem(key)

    config = folder / "config"
    config.mkdir()
    ca_pem = ca.public_bytes(Encoding.PEM)
    b64 = {"certificate": base64.b64encode(ca_pem).decode(), "key": base64.b64encode(_key_pem(ca_key)).decode()}
    (config / "issuer.yaml").write_text(MANIFESTS.format(**b64))
    files = {"ca.pem": ca_pem, "ca.key": _key_pem(ca_key)}
    files["server.pem"], files["server.key"] = leaf("localhost", ExtendedKeyUsageOID.SERVER_AUTH)
    files["client.pem"], files["client.key"] = leaf("bench-client", ExtendedKeyUsageOID.CLIENT_AUTH)
    files["ra.pem"], files["ra.key"] = leaf("bench-ra", ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Scene(
        ca=folder / "ca.pem",
        ca_key=folder / "ca.key",
        server=folder / "server.pem",
        server_key=folder / "server.key",
        client=folder / "client.pem",
        client_key=folder / "client.key",
        ra=folder / "ra.pem",
        ra_key=folder / "ra.key",
        config=config,
    )


def _write(file: Path, url: str, content_type: str, bodies: Iterable[bytes]) -> None:
    """Vegeta's targets as JSON lines, one POST for each DER body."""
    with file.open("w") as targets:
        for body in bodies:
            target = {
                "method": "POST",
                "url": url,
                "header": {"Content-Type": [content_type]},
                "body": base64.b64encode(base64.b64encode(body) + b"\n").decode(),
            }
            targets.write(json.dumps(target) + "\n")


def _csrs() -> Iterator[bytes]:
    for number in range(DISTINCT_CSRS):
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(_name(f"bench-{number}")).sign(key, hashes.SHA256())
        yield csr.public_bytes(Encoding.DER)


def write_targets(file: Path, url: str) -> None:
    """Write vegeta's targets: one simpleenroll each."""
    _write(file, url, "application/pkcs10", _csrs())


def write_full_requests(file: Path, url: str, files: Scene) -> None:
    """Write vegeta's targets: one Full PKI Request each, as the operator sends it.

    It has no transactionId, for the targets come round again, and each is to be a new certificate as it is for simpleenroll.
    """
    certificate = x509.load_pem_x509_certificate(files.ra.read_bytes())
    key = load_pem_private_key(files.ra_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - as it was made above
    template = cert_template.build(subject=_name("bench-web"), not_after=datetime.now(UTC) + timedelta(days=1))
    controls: list[Control] = [
        LraPopWitness(ra_witness.build_pop_witness(1)),
        ModCertTemplate(template_modification.build_mod_cert_template(template, requests=[1])),
        RegInfo(b'{"name":"web-1","requester":"system:serviceaccount:cert-manager:cert-manager"}'),
    ]
    bodies = (full_request.body([pki_data.tagged_pkcs10(1, csr_der)], controls) for csr_der in _csrs())
    messages = (full_request.sign_by_certificate(body, certificate, signer_of(key)) for body in bodies)
    _write(file, url, full_exchange.MEDIA_CMC_REQUEST, messages)
