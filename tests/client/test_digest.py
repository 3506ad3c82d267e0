"""The client answers challenges of HTTP Digest, and sends no password where none was asked for."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from estclient import Basic, CertificateAndPassword, ClientCertificate, Credentials, Digest, EstClient
from estcore.errors import Refused
from estcore.http_authentication import parse_parameters
from tests.client.double import Answer, Identity, Seen, certificates, est_double, issue
from tests.client.test_client_and_server import Served, serving
from tests.server.app_fixtures import (
    MANUFACTURER_CA,
    SECRETS,
    SPEC,
    leaf,
    make_csr,
    manifest,
    new_key,
    registry_of,
    running,
    with_est,
)
from tests.server.digest_client import digests, line

USER, PASSWORD = "device-1", "correct horse"
DIGEST = Digest(user=USER, password=PASSWORD)
TARGET = "/.well-known/est/factory/simpleenroll"
HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}


def challenge(algorithm: str | None = "SHA-256", *, nonce: str = "n1", qop: str = "auth", more: str = "") -> str:
    named = "" if algorithm is None else f", algorithm={algorithm}"
    return f'Digest realm="factory", qop="{qop}"{named}, nonce="{nonce}", opaque="o"{more}'


def parameters(seen: Seen) -> dict[str, str]:
    scheme, _, rest = seen.headers.get("authorization", "").partition(" ")
    assert scheme == "Digest"
    return parse_parameters(rest)


def expected(algorithm: str, *, nonce: str, nc: str, cnonce: str, password: str = PASSWORD) -> str:
    """RFC 7616 section 3.4.1."""

    def h(text: str) -> str:
        return HASHES[algorithm](text.encode()).hexdigest()

    return h(f"{h(f'{USER}:factory:{password}')}:{nonce}:{nc}:{cnonce}:auth:{h(f'POST:{TARGET}')}")


def server_that(ca: Identity, *challenges: str) -> Any:
    """Answers each request with the next challenge, and with a certificate when there are no more."""
    left = list(challenges)

    def behave(seen: Seen) -> Answer:
        if left:
            return Answer(status=401, headers={"WWW-Authenticate": left.pop(0), "Content-Type": "text/plain"}, body=b"who are you")
        return certificates(issue(ca, seen.csr_der))

    return behave


def client(double: Any, ca: Identity, credentials: Credentials) -> EstClient:
    return EstClient(url=double.url, label="factory", anchors_pem=ca.pem, credentials=credentials, timeout=timedelta(seconds=10))


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-05", "EST-AUTH-10", "EST-AUTH-12")
@pytest.mark.parametrize(("offered", "algorithm"), [("SHA-256", "SHA-256"), ("MD5", "MD5"), (None, "MD5")])
async def test_a_challenge_is_answered_and_the_password_stays_here(
    ca: Identity, server: Identity, offered: str | None, algorithm: str
) -> None:
    with est_double(server_that(ca, challenge(offered)), server) as double:
        async with client(double, ca, DIGEST) as est:
            await est.simple_enroll(make_csr())
        first, second = double.seen
    assert "authorization" not in first.headers
    sent = parameters(second)
    assert sent["response"] == expected(algorithm, nonce="n1", nc="00000001", cnonce=sent["cnonce"])
    assert {name: sent[name] for name in ("username", "realm", "uri", "nonce", "nc", "qop", "opaque", "algorithm")} == {
        "username": USER,
        "realm": "factory",
        "uri": TARGET,
        "nonce": "n1",
        "nc": "00000001",
        "qop": "auth",
        "opaque": "o",
        "algorithm": algorithm,
    }
    assert PASSWORD not in second.headers["authorization"]


@pytest.mark.spec("EST-AUTH-11")
@pytest.mark.parametrize("joined", [("MD5", "SHA-256"), ("SHA-256", "MD5")])
async def test_the_strongest_algorithm_is_taken_in_whichever_order_they_stand(
    ca: Identity, server: Identity, joined: tuple[str, str]
) -> None:
    offer = ", ".join(['Basic realm="factory"', *(challenge(algorithm) for algorithm in joined), "Negotiate"])
    with est_double(server_that(ca, offer), server) as double:
        async with client(double, ca, DIGEST) as est:
            await est.simple_enroll(make_csr())
        assert parameters(double.seen[1])["algorithm"] == "SHA-256"


@pytest.mark.spec("EST-AUTH-12")
async def test_a_nonce_serves_further_requests_with_a_higher_count_and_another_cnonce(ca: Identity, server: Identity) -> None:
    with est_double(server_that(ca, challenge()), server) as double:
        async with client(double, ca, DIGEST) as est:
            for _ in range(3):
                await est.simple_enroll(make_csr())
        sent = [parameters(seen) for seen in double.seen[1:]]
    assert [one["nc"] for one in sent] == ["00000001", "00000002", "00000003"]
    assert len({one["cnonce"] for one in sent}) == 3


@pytest.mark.spec("EST-AUTH-13")
async def test_a_stale_nonce_is_replaced_without_asking_anybody(ca: Identity, server: Identity) -> None:
    with est_double(server_that(ca, challenge(), challenge(nonce="n2", more=", stale=true")), server) as double:
        async with client(double, ca, DIGEST) as est:
            await est.simple_enroll(make_csr())
        assert [parameters(seen)["nonce"] for seen in double.seen[1:]] == ["n1", "n2"]
        assert parameters(double.seen[2])["nc"] == "00000001"


@pytest.mark.spec("EST-AUTH-13")
async def test_a_wrong_password_is_answered_once_and_a_server_that_is_always_stale_not_for_ever(ca: Identity, server: Identity) -> None:
    with est_double(server_that(ca, challenge(), challenge(nonce="n2")), server) as double:
        async with client(double, ca, DIGEST) as est:
            with pytest.raises(Refused, match="who are you"):
                await est.simple_enroll(make_csr())
        assert len(double.seen) == 2
    always = [challenge(nonce=f"n{number}", more=", stale=true") for number in range(50)]
    with est_double(server_that(ca, *always), server) as double:
        async with client(double, ca, DIGEST) as est:
            with pytest.raises(Refused):
                await est.simple_enroll(make_csr())
        assert len(double.seen) == 3


@pytest.mark.spec("EST-AUTH-06")
@pytest.mark.parametrize(
    "offer",
    [
        "Negotiate",
        'Basic realm="factory"',
        challenge("SHA-512-256"),
        challenge("SHA-256-sess"),
        challenge(qop="auth-int"),
        'Digest realm="factory", nonce="n"',
        'Digest realm="factory", qop="auth"',
        'Digest realm="factory',
        "",
    ],
)
async def test_where_no_challenge_can_be_answered_nothing_is_sent(ca: Identity, server: Identity, offer: str) -> None:
    with est_double(server_that(ca, offer), server) as double:
        async with client(double, ca, DIGEST) as est:
            with pytest.raises(Refused):
                await est.simple_enroll(make_csr())
        assert ["authorization" in seen.headers for seen in double.seen] == [False]


@pytest.mark.spec("EST-AUTH-03")
async def test_a_password_for_basic_answers_digest_where_basic_is_not_taken_and_only_there(ca: Identity, server: Identity) -> None:
    basic = Basic(user=USER, password=PASSWORD)
    with est_double(server_that(ca, challenge()), server) as double:
        async with client(double, ca, basic) as est:
            await est.simple_enroll(make_csr())
        assert double.seen[0].headers["authorization"].startswith("Basic ")
        assert parameters(double.seen[1])["username"] == USER
    with est_double(server_that(ca, f'Basic realm="factory", {challenge()}'), server) as double:
        async with client(double, ca, basic) as est:
            with pytest.raises(Refused):
                await est.simple_enroll(make_csr())
        assert len(double.seen) == 1


# against the real server


@pytest.fixture
async def served(tmp_path: Path, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    ways: list[Mapping[str, Any]] = [
        {"digest": {"secretName": "digests"}},
        {"certificate": {"caSecretName": "manufacturer"}, "digest": {"secretName": "both"}},
    ]
    rules = [{"from": {"authentication": "digest"}, "subject": {"commonName": "{user}"}}]
    spec = {**with_est(authentication=ways), "policy": {"rules": [*rules, *SPEC["policy"]["rules"]]}}
    secrets = (*SECRETS, digests(line(USER, PASSWORD)), digests(line("device-2", "battery"), name="both"))
    async with running(tmp_path, registry_of(manifest(spec=spec), secrets=secrets)) as app, serving(app, ca, server) as running_server:
        yield running_server


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-10", "EST-AUTH-13")
async def test_client_and_server_agree_for_as_long_as_they_talk(served: Served) -> None:
    async with served.client(DIGEST) as est:
        for minutes in (0, 1, 10):
            served.app.clock.advance(minutes=minutes)
            issued = await est.simple_enroll(make_csr(USER))
            assert issued.subject.rfc4514_string() == f"CN={USER}"
    async with served.client(Digest(user=USER, password="wrong")) as est:
        with pytest.raises(Refused, match="the user or the password is wrong"):
            await est.simple_enroll(make_csr(USER))


@pytest.mark.spec("EST-AUTH-01")
async def test_a_certificate_and_a_password_go_together(served: Served) -> None:
    key = new_key()
    device: x509.Certificate = leaf(MANUFACTURER_CA, "serial 7", key=key)
    certificate = ClientCertificate(
        chain_pem=device.public_bytes(Encoding.PEM),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    password = Digest(user="device-2", password="battery")
    async with served.client(CertificateAndPassword(certificate=certificate, password=password)) as est:
        assert (await est.simple_enroll(make_csr("device-2"))).subject.rfc4514_string() == "CN=device-2"
    async with served.client(password) as est:
        with pytest.raises(Refused, match="a TLS client certificate is needed beside it"):
            await est.simple_enroll(make_csr("device-2"))
