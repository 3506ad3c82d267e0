"""Bouncy Castle's EST client (Java): base64 only where a header says so, a 401 only without a body, tls-unique on TLS 1.2."""

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from estcore.keys import PublicKey
from tests import pki
from tests.collect import collect
from tests.interop.bouncycastle.client import LOGIN, NAMES, Answer, Run, certificates
from tests.interop.conftest import PASSWORD, WRAPPING_KEY, Workshop, documented, wrapping_identity


def issued(answer: Answer, ca: x509.Certificate) -> x509.Certificate:
    """The one certificate of an answer, by this CA, kept for the linters."""
    assert answer["status"] == ["200"], answer
    (certificate,) = certificates(answer)
    certificate.verify_directly_issued_by(ca)
    collect(certificate.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
    return certificate


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-CACERTS-03", "EST-POP-09")
def test_the_documented_program_works_as_it_is(workshop: Workshop, class_path: str) -> None:
    (workshop.folder / "Enrol.java").write_text(documented("Bouncy Castle", "java"))
    variables = {"BOUNCY_CASTLE": class_path, "SERVER": f"localhost:{workshop.server.port}", "PASSWORD": PASSWORD}
    done = workshop.run("bash", "-euc", documented("Bouncy Castle"), environment=variables)
    assert done.returncode == 0, done.stderr.decode()
    authority, first, second = done.stdout.decode().splitlines()
    assert authority == "CN=Factory CA"
    assert {first.split()[0], second.split()[0]} == {"CN=device-7"}
    assert first != second


@pytest.mark.spec("EST-CACERTS-03", "EST-TLS-05", "EST-ENC-05")
def test_the_ca_certificates_come_over_a_connection_that_it_trusts(bouncy_castle: Run) -> None:
    answer = bouncy_castle("cacerts")
    (root,) = certificates(answer)
    root.verify_directly_issued_by(root)
    assert answer["trusted"] == ["true"]


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-AUTH-03", "EST-AUTH-08", "EST-TLS-03", "EST-TLS-06", "EST-TLS-15")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_it_enrols_by_password_after_a_challenge_and_renews_by_certificate(
    bouncy_castle: Run, ca: x509.Certificate, tmp_path: Path, version: str
) -> None:
    device = tmp_path / "device"
    first = issued(bouncy_castle("enroll", tls=version, save=device, **NAMES, **LOGIN), ca)
    second = issued(bouncy_castle("enroll", tls=version, identity=device, reenroll="yes", **NAMES), ca)
    assert first.subject == second.subject
    assert first.public_key() != second.public_key()


@pytest.mark.spec("EST-POP-02", "EST-POP-07", "EST-POP-08", "EST-POP-09")
def test_its_tls_unique_is_the_servers_on_the_connection_after_the_challenge_and_on_one_with_a_certificate(
    bouncy_castle: Run, ca: x509.Certificate, tmp_path: Path
) -> None:
    """It makes the CSR anew for the second connection: a value of the first would be refused (tests/interop/test_channel_binding.py)."""
    device = tmp_path / "device"
    issued(bouncy_castle("enroll", tls="TLSv1.2", bind="yes", save=device, **NAMES, **LOGIN), ca)
    issued(bouncy_castle("enroll", tls="TLSv1.2", bind="yes", identity=device, reenroll="yes", **NAMES), ca)


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-09", "EST-AUTH-10", "EST-AUTH-11")
@pytest.mark.parametrize("options", [{}, {"tls": "TLSv1.2", "bind": "yes"}], ids=["TLS 1.3", "linked by tls-unique"])
def test_it_answers_a_digest_challenge_by_sha_256(bouncy_castle: Run, options: dict[str, str]) -> None:
    (root,) = certificates(bouncy_castle("cacerts", label="digest"))
    issued(bouncy_castle("enroll", label="digest", subject="CN=device-7", **LOGIN, **options), root)
    refused = bouncy_castle("enroll", label="digest", subject="CN=device-7", user="device-7", password="wrong", **options)
    assert refused["status"] == ["401"]


@pytest.mark.spec("EST-ENROLL-01", "EST-POP-01")
@pytest.mark.parametrize("algorithm", ["EC-P384", "RSA-2048", "Ed25519"])
def test_it_enrols_keys_of_every_kind(bouncy_castle: Run, ca: x509.Certificate, algorithm: str) -> None:
    issued(bouncy_castle("enroll", key_algorithm=algorithm, **NAMES, **LOGIN), ca)


CHALLENGE_PASSWORD, EXTENSION_REQUEST, TEMPLATE = "1.2.840.113549.1.9.7", "1.2.840.113549.1.9.14", "1.2.840.113549.1.9.16.2.61"


@pytest.mark.spec("EST-ATTR-03", "EST-ATTR-06", "EST-ATTR-08")
def test_it_reads_what_the_issuer_wants_of_a_csr(bouncy_castle: Run) -> None:
    """Old form and template (RFC 9908 section 3) beside each other, and challengePassword where binding is required."""
    wanted = bouncy_castle("csrattrs")
    assert {EXTENSION_REQUEST, TEMPLATE} <= set(wanted["attribute"])
    assert CHALLENGE_PASSWORD not in wanted.get("oid", [])
    assert CHALLENGE_PASSWORD in bouncy_castle("csrattrs", label="bound")["oid"]


def server_made(answer: Answer) -> PublicKey:
    """The public key of the private key in an answer of serverkeygen, which is its certificate's too."""
    assert answer["status"] == ["200"], answer
    (certificate,) = certificates(answer)
    key = load_der_private_key(base64.b64decode(answer["key"][0]), password=None)
    assert key.public_key() == certificate.public_key()
    return key.public_key()  # type: ignore[return-value]  # of a kind that the issuer makes


@pytest.mark.spec("EST-SKG-01", "EST-SKG-09", "EST-SKG-10", "EST-SKG-15")
def test_it_gets_a_key_that_the_server_made_and_another_each_time(bouncy_castle: Run) -> None:
    first, second = (server_made(bouncy_castle("serverkeygen", label="keygen", subject="CN=device-7", **LOGIN)) for _ in range(2))
    assert first != second


@pytest.mark.spec("EST-SKG-08", "EST-SKG-11", "EST-SKG-15")
@pytest.mark.parametrize(
    "recipient",
    [
        pytest.param("kekri", marks=pytest.mark.spec("EST-SKG-12")),
        pytest.param("ktri", marks=pytest.mark.spec("EST-SKG-13")),
        pytest.param("kari", marks=pytest.mark.spec("EST-SKG-14")),
    ],
)
@pytest.mark.parametrize("cipher", ["cbc", "gcm"])
def test_it_decrypts_and_verifies_a_key_that_the_server_made(bouncy_castle: Run, tmp_path: Path, recipient: str, cipher: str) -> None:
    if recipient == "kekri":
        holder = {"decrypt_key_id": b"symmetric".hex(), "wrapping_key": WRAPPING_KEY.hex()}
    else:
        private = wrapping_identity("rsa" if recipient == "ktri" else "ec")
        (tmp_path / "key.pem").write_bytes(pki.key_pem(private))
        identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key()).digest
        holder = {"asymmetric_decrypt_key_id": identifier.hex(), "wrapping_key_file": str(tmp_path / "key.pem")}
    if cipher == "gcm":
        holder["gcm"] = "yes"
    answer = bouncy_castle("serverkeygen-encrypted", label="keygen", subject="CN=device-7", **LOGIN, **holder)
    server_made(answer)
    (signer,) = certificates(answer, "signer")
    (root,) = certificates(bouncy_castle("cacerts", label="keygen"))
    signer.verify_directly_issued_by(root)


@pytest.mark.spec("EST-SKG-05", "EST-SKG-17")
def test_a_key_for_an_unknown_recipient_is_refused_and_comes_in_no_other_form(bouncy_castle: Run) -> None:
    unknown = {"decrypt_key_id": b"nobody".hex(), "wrapping_key": WRAPPING_KEY.hex()}
    answer = bouncy_castle("serverkeygen-encrypted", label="keygen", subject="CN=device-7", **LOGIN, **unknown)
    assert answer["status"] == ["400"]
    assert "key" not in answer


@pytest.mark.spec("EST-RESP-05", "EST-AUTH-02")
def test_a_refusal_reaches_its_user_with_its_status(bouncy_castle: Run) -> None:
    assert bouncy_castle("enroll", **NAMES)["status"] == ["401"]
    assert bouncy_castle("enroll", **NAMES, user="device-7", password="wrong")["status"] == ["401"]
    foreign = {"subject": "CN=device-7", "dns": "www.example.com"}
    assert bouncy_castle("enroll", **foreign, **LOGIN)["status"] == ["403"]
