"""Bad input gets a clear answer: the issue's list, one row each, and a corpus of junk that must never be a 5xx."""

import base64
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import csr_builder, transfer
from tests import pki
from tests.server.app_fixtures import (
    AppConfiguration,
    Server,
    basic,
    leaf,
    make_csr,
    manifest,
    name,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
ENROLL = "/.well-known/est/factory/simpleenroll"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    configuration = AppConfiguration(retry_window=timedelta(0))
    async with running(tmp_path_factory.mktemp("server"), configuration=configuration) as running_server:
        yield running_server


def _builder(common_name: str = "device-1") -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(name(common_name))


def _der(builder: x509.CertificateSigningRequestBuilder, key: Any = None, digest: Any = None) -> bytes:
    return builder.sign(key or new_key(), digest or hashes.SHA256()).public_bytes(Encoding.DER)


GOOD = make_csr("device-1", "a.devices.example")
FLIPPED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
PEM = x509.load_der_x509_csr(GOOD).public_bytes(Encoding.PEM)
INDEFINITE = b"\x30\x80" + GOOD[4:] + b"\x00\x00"
RSA_1024 = pki.rsa_key(1024)
CA_TRUE = _builder().add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
MANY_SANS = csr_builder.build(
    new_key(), subject=name("device-1"), sans=[x509.DNSName(f"h{number}.devices.example") for number in range(101)]
)


def encoded(der: bytes) -> bytes:
    return transfer.encode_body(der)


# body, status, what the text says
CASES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "the body is empty"),
    "white space": (b" \r\n\t", 400, "the body is empty"),
    "not base64": (b"this is not base64!", 400, "the body is not base64"),
    "URL alphabet": (encoded(GOOD).replace(b"+", b"-").replace(b"/", b"_") + b"-_", 400, "not base64"),
    "cut base64": (encoded(GOOD).rstrip()[:-3], 400, "not base64"),
    "PEM armour": (PEM, 400, "the body is PEM"),
    "raw DER": (GOOD, 400, "the body is binary DER"),
    "not DER": (encoded(b"hello, world"), 400, ""),
    "trailing octets": (encoded(GOOD + b"\x00"), 400, "followed by 1 octets"),
    "two CSRs": (encoded(GOOD + GOOD), 400, "followed by"),
    "cut DER": (encoded(GOOD[:-10]), 400, ""),
    "indefinite length": (encoded(INDEFINITE), 400, ""),
    "nested 5,000 deep": (encoded(b"\x30\x80" * 5000), 400, ""),
    "a certificate": (encoded(leaf().public_bytes(Encoding.DER)), 400, ""),
    "bad signature": (encoded(FLIPPED), 400, "signature"),
    "RSA 1024": (encoded(_der(_builder(), RSA_1024)), 400, "RSA"),
    "P-224": (encoded(_der(_builder(), ec.generate_private_key(ec.SECP224R1()))), 400, ""),
    "secp256k1": (encoded(_der(_builder(), ec.generate_private_key(ec.SECP256K1()))), 400, ""),
    "CA:TRUE": (encoded(_der(CA_TRUE)), 400, ""),
    "101 SANs": (encoded(MANY_SANS), 400, "100"),
    "a name that is not permitted": (encoded(make_csr("device-1", "evil.example")), 403, "evil.example"),
    "a suffix trick": (encoded(make_csr("device-1", "evildevices.example")), 403, "evildevices.example"),
    "a wildcard": (encoded(make_csr("device-1", "*.devices.example")), 403, "*.devices.example"),
    "somebody else's name": (encoded(make_csr("device-2")), 403, "device-2"),
}


@pytest.mark.spec("EST-ENC-06", "EST-ENC-07", "EST-ENC-08", "EST-POP-01", "EST-ENROLL-10", "EST-RESP-05", "EST-CLI-06", "THREAT-08")
@pytest.mark.parametrize("case", CASES)
async def test_a_bad_body_gets_its_status_and_one_line_that_says_why(server: Server, case: str) -> None:
    body, status, expected = CASES[case]
    events = len(server.audit_lines)
    answer = await server.request("POST", ENROLL, headers=[("Content-Type", "application/pkcs10"), ("Authorization", basic())], body=body)
    assert answer.status == status, answer.text
    assert expected in answer.text
    assert len(answer.text) <= 512
    assert len(server.audit_lines) == events, "nothing was signed"


@pytest.mark.spec("EST-HTTP-03", "EST-RESP-06")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "")],
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/json")],
        [("Content-Type", "application/x-pem-file")],
        [("Content-Type", "application/pkcs10x")],
        [("Content-Type", "application/pkcs7-mime; smime-type=CMC-request")],
        [("Content-Type", "multipart/form-data; boundary=application/pkcs10")],
        [("Content-Type", "application/pkcs10"), ("Content-Encoding", "gzip")],
    ],
)
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
async def test_another_media_type_is_415(server: Server, headers: list[tuple[str, str]], operation: str) -> None:
    answer = await server.request(
        "POST", f"/.well-known/est/{operation}", headers=[*headers, ("Authorization", basic())], body=encoded(GOOD)
    )
    assert answer.status == 415
    assert "application/pkcs10" in answer.text or "Content-Encoding" in answer.text


@pytest.mark.spec("THREAT-08")
async def test_mutants_of_a_csr_are_refused_quickly_and_never_with_a_5xx(server: Server) -> None:
    """1,000 mutants: 0 issued for what was not signed, 0 answers of 5xx, each at most 50 ms of CPU."""
    chance = random.Random(7)  # noqa: S311 - the same mutants each run
    connection = tls()
    headers = [("Content-Type", "application/pkcs10"), ("Authorization", basic())]
    slowest = 0.0
    for _ in range(1000):
        mutant = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            position = chance.randrange(len(mutant))
            match chance.randrange(4):
                case 0:
                    mutant[position] ^= 1 << chance.randrange(8)
                case 1:
                    del mutant[position : position + chance.randint(1, 8)]
                case 2:
                    mutant[position:position] = chance.randbytes(chance.randint(1, 8))
                case _:
                    mutant[position] = chance.choice((0, 0x7F, 0x80, 0xFF, 0x30))
        if bytes(mutant) == GOOD:
            continue
        started = time.thread_time()
        answer = await server.request("POST", ENROLL, headers=headers, body=base64.b64encode(mutant), connection=connection)
        slowest = max(slowest, time.thread_time() - started)
        assert answer.status == 400, answer.body
    assert slowest < 0.05


ARMOURED = [
    PEM,
    b"\r\n" + PEM.replace(b"\n", b"\r\n"),
    PEM.replace(b" REQUEST", b" REQUEST", 1).rstrip(b"\n"),
    x509.load_der_x509_csr(GOOD).public_bytes(Encoding.PEM).replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"),
]


@pytest.mark.spec("EST-ENC-07")
@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("media_type", ["application/pkcs10", "application/x-pem-file"])
async def test_an_issuer_may_accept_pem_from_clients_that_send_nothing_else(tmp_path: Path, media_type: str) -> None:
    async with running(tmp_path, registry_of(manifest(spec=with_est(acceptPem=True)))) as lenient:
        for body in (*ARMOURED, encoded(GOOD)):
            headers = [("Content-Type", media_type), ("Authorization", basic())]
            assert (await lenient.request("POST", ENROLL, headers=headers, body=body)).status == 200
        for body in (
            PEM + PEM,
            PEM.replace(b"END CERTIFICATE", b"END A CERTIFICATE"),
            PEM.replace(b"-----END", b"Comment: x\n-----END"),
            b"-----BEGIN CERTIFICATE REQUEST-----\n" * 900,
        ):
            answer = await lenient.request("POST", ENROLL, headers=[("Content-Type", media_type), ("Authorization", basic())], body=body)
            assert answer.status == 400
            assert "PEM" in answer.text
