"""/serverkeygen from the client's side: over real TLS against the server, and against servers that would cheat."""

import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from typer.testing import CliRunner, Result

from estclient import Basic, EstClient, enrolment
from estclient.__main__ import app
from estclient.decryption import decryption_key_from
from estclient.enrolment import Wanted
from estcore import key_package, multipart
from estcore.errors import ConfigurationError, MalformedResponse, Refused
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.multipart import Part
from estcore.recipient_info import DecryptionKey, KeyEncryptionKey, RecipientKey, key_identifier
from estcore.signed_data import SubjectKeyIdentifier
from tests import pki
from tests.client.double import Answer, EstDouble, Identity, Seen, build, certificates, certs_only, est_double
from tests.client.test_client_and_server import CA, Served, serving
from tests.collect import collect
from tests.server.app_fixtures import PASSWORD, SECRETS, USER, manifest, name, registry_of, running, secret, with_est

KEK = KeyEncryptionKey(key=bytes(range(16)), key_identifier=b"device-1")
RSA = pki.key(KeyAlgorithm.RSA_2048, "recipient")
EC = pki.key(KeyAlgorithm.ECDSA_P256, "recipient")
WANTED = Wanted(subject=name(USER), sans=(x509.DNSName("a.devices.example"),))


def by_hash(private_key: PrivateKey) -> DecryptionKey:
    assert isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return RecipientKey(private_key=private_key, identifiers=(SubjectKeyIdentifier(key_identifier(private_key.public_key())),))


# ---- against the server


@pytest.fixture
async def served(tmp_path: Path, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    """Channel binding is required, so every CSR is made for its connection."""
    wrapping = {
        "device-1.key": KEK.key.hex().encode(),
        "rsa.pem": pki.pem(pki.leaf(pki.ca(), public_key=RSA.public_key(), usage=pki.key_usage("key_encipherment"))),
        "ec.pem": pki.pem(pki.leaf(pki.ca(), public_key=EC.public_key(), usage=pki.key_usage("key_agreement"))),
    }
    keygen = {"enabled": True, "encryption": "Optional", "wrappingKeys": {"secretName": "wrapping"}}
    spec = with_est(serverKeyGeneration=keygen, channelBinding="Required")
    registry = registry_of(manifest(spec=spec), secrets=(*SECRETS, secret("wrapping", wrapping)))
    async with running(tmp_path, registry) as application, serving(application, ca, server) as running_server:
        yield running_server


@pytest.mark.spec("EST-SKG-02", "EST-SKG-04", "EST-SKG-09", "EST-SKG-11", "EST-POP-06")
@pytest.mark.parametrize("key", [None, KEK, by_hash(RSA), by_hash(EC)], ids=["plain", "kekri", "ktri", "kari"])
async def test_the_client_gets_a_key_over_tls(served: Served, key: DecryptionKey | None) -> None:
    async with served.client(Basic(user=USER, password=PASSWORD)) as client:
        private_key, done = await enrolment.generate(client, WANTED, decryption_key=key)
    collect(done.certificate.public_bytes(Encoding.DER), CA.public_bytes(Encoding.DER))
    assert done.certificate.public_key() == private_key.public_key()
    assert done.certificate.subject == name(USER)
    assert done.changed == ()
    assert done.ca_certificates == (CA,)


@pytest.mark.spec("EST-SKG-05", "EST-SKG-17", "EST-URI-08")
async def test_a_key_id_that_the_server_does_not_know_is_a_refusal(served: Served) -> None:
    unknown = KeyEncryptionKey(key=bytes(16), key_identifier=b"nobody")
    async with served.client(Basic(user=USER, password=PASSWORD)) as client:
        with pytest.raises(Refused, match="no key by the identifier"):
            await enrolment.generate(client, WANTED, decryption_key=unknown)


# ---- against servers that would cheat


def plain(ca: Identity, key: ec.EllipticCurvePrivateKey) -> Answer:
    certificate = build(name("device-7"), key.public_key(), signer=ca)
    content_type, body = multipart.encode(
        [
            Part(content_type="application/pkcs8", der=key_package.private_key_info(key)),
            Part(content_type="application/pkcs7-mime; smime-type=certs-only", der=certs_only([certificate])),
        ]
    )
    return Answer(status=200, headers={"Content-Type": content_type}, body=body)


@pytest.fixture(scope="module")
def small_ca(ca: Identity, server: Identity) -> Iterator[EstDouble]:
    """Sends every key in plain, whatever was asked for."""
    key = ec.generate_private_key(ec.SECP256R1())

    def behave(seen: Seen) -> Answer:
        if seen.target.endswith("/cacerts"):
            return certificates(ca.certificate)
        if seen.target.endswith("/csrattrs"):
            return Answer(status=404, headers={}, body=b"")
        return plain(ca, key)

    with est_double(behave, server, client_ca=ca) as double:
        yield double


@pytest.mark.spec("EST-SKG-05", "THREAT-18")
async def test_a_server_that_sends_the_key_in_plain_is_not_believed(small_ca: EstDouble, ca: Identity) -> None:
    async with EstClient(url=small_ca.url, label=None, anchors_pem=ca.pem) as client:
        with pytest.raises(MalformedResponse, match="in plain"):
            await enrolment.generate(client, WANTED, decryption_key=KEK)


# ---- the command


def est(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["serverkeygen", *(str(argument) for argument in arguments)], env={"COLUMNS": "160"})


@pytest.fixture
def options(small_ca: EstDouble, ca: Identity, tmp_path: Path) -> list[str]:
    anchors, password = tmp_path / "anchors.pem", tmp_path / "password"
    anchors.write_bytes(ca.pem)
    password.write_text("correct horse\n")
    (tmp_path / "kek").write_text("00" * 16 + "\n")
    where = ["--url", small_ca.url, "--anchors", str(anchors), "--user", "device-7", "--password-file", str(password)]
    return [*where, "--subject", "CN=device-7", "--out-dir", str(tmp_path / "out")]


def test_the_command_writes_key_certificate_and_ca(options: list[str], ca: Identity, tmp_path: Path) -> None:
    result = est(*options)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    key = load_pem_private_key((out / "tls.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert (out / "ca.crt").read_bytes() == ca.pem
    assert stat.S_IMODE((out / "tls.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in result.output
    again = est(*options)
    assert again.exit_code == 2
    assert "use another folder" in again.stderr


@pytest.mark.spec("EST-SKG-05")
def test_the_command_writes_nothing_when_the_key_came_in_plain(options: list[str], tmp_path: Path) -> None:
    result = est(*options, "--kek-id", "device-7", "--kek-file", tmp_path / "kek")
    assert result.exit_code == 7
    assert "in plain" in result.stderr
    assert not (tmp_path / "out").exists()


def write(folder: Path, file_name: str, content: bytes) -> Path:
    path = folder / file_name
    path.write_bytes(content)
    return path


def test_options_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    kek = write(tmp_path, "kek", b"00" * 32)
    key = write(tmp_path, "key.pem", pki.key_pem(EC))
    other = write(tmp_path, "other.pem", pki.pem(pki.leaf(pki.ca(), public_key=RSA.public_key())))
    for given, why in (
        ({"kek_id": "a"}, "belong together"),
        ({"kek_file": kek}, "belong together"),
        ({"decrypt_cert": other}, "belongs to --decrypt-key"),
        ({"kek_id": "a", "kek_file": kek, "decrypt_key": key}, "one of"),
        ({"kek_id": "", "kek_file": kek}, "empty"),
        ({"kek_id": "0x", "kek_file": kek}, "empty"),
        ({"kek_id": "0xz", "kek_file": kek}, "hexadecimal"),
        ({"kek_id": "a", "kek_file": write(tmp_path, "short", b"00")}, "hexadecimal"),
        ({"decrypt_key": write(tmp_path, "ed", pki.key_pem(pki.key(KeyAlgorithm.ED25519)))}, "Ed25519"),
        ({"decrypt_key": key, "decrypt_cert": other}, "not the certificate of"),
    ):
        everything = {"kek_id": None, "kek_file": None, "decrypt_key": None, "decrypt_cert": None} | given
        with pytest.raises(ConfigurationError, match=why):
            decryption_key_from(**everything)


def test_a_key_for_decryption_is_read_from_files(tmp_path: Path) -> None:
    kek = write(tmp_path, "kek", b"0f" * 16 + b"\n")
    found = decryption_key_from(kek_id="0x00ff", kek_file=kek, decrypt_key=None, decrypt_cert=None)
    assert found == KeyEncryptionKey(key=b"\x0f" * 16, key_identifier=b"\x00\xff")
    certificate = pki.leaf(pki.ca(), public_key=EC.public_key(), without=[x509.SubjectKeyIdentifier])
    key_path, certificate_path = write(tmp_path, "key", pki.key_pem(EC)), write(tmp_path, "crt", pki.pem(certificate))
    found = decryption_key_from(kek_id=None, kek_file=None, decrypt_key=key_path, decrypt_cert=certificate_path)
    assert isinstance(found, RecipientKey)
    assert SubjectKeyIdentifier(key_identifier(EC.public_key())) in found.identifiers
    assert len(found.identifiers) == 2
    assert decryption_key_from(kek_id=None, kek_file=None, decrypt_key=None, decrypt_cert=None) is None
