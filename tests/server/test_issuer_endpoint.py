"""GET /est-issuer/v1/issuers: the truth for the operator, and for nobody else."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.server.app_fixtures import FACTORY_CA, RA, SPEC, AppConfiguration, Server, basic, leaf, manifest, registry_of, running, tls

PATH = "/est-issuer/v1/issuers"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    broken = {**SPEC, "ca": {"secretName": "absent"}, "est": {"label": "broken"}}
    registry = registry_of(manifest(), manifest("broken", broken), manifest("unparsed", {"ca": 7}))
    async with running(tmp_path, registry, configuration=AppConfiguration(public_url="https://est.example:8443")) as running_server:
        yield running_server


async def test_the_registration_authority_learns_of_every_issuer_what_it_publishes(server: Server) -> None:
    token = server.reviewer.add(RA, audience="est-issuer")
    answer = await server.request("GET", PATH, headers=[("Authorization", f"Bearer {token}")])
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    issuers = {issuer["name"]: issuer for issuer in json.loads(answer.body)["issuers"]}
    certificate = x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])
    assert issuers["factory"] == {
        "kind": "EstIssuer",
        "namespace": "devices",
        "name": "factory",
        "uid": "uid-factory",
        "generation": 3,
        "state": "Ready",
        "reason": "Checked",
        "message": issuers["factory"]["message"],
        "label": "factory",
        "url": "https://est.example:8443/.well-known/est/factory",
        "defaultDurationSeconds": 2160 * 3600,
        "caBundle": FACTORY_CA.data["tls.crt"].decode(),
        "ca": {
            "subject": "CN=Factory CA",
            "notAfter": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        },
    }
    assert (issuers["broken"]["state"], issuers["broken"]["reason"]) == ("NotReady", "SecretMissing")
    assert "ca" not in issuers["broken"]
    assert (issuers["unparsed"]["state"], issuers["unparsed"]["reason"]) == ("NotReady", "InvalidSpec")


async def test_an_unchanged_registry_is_304_for_whoever_has_it(server: Server) -> None:
    headers = [("Authorization", f"Bearer {server.reviewer.add(RA, audience='est-issuer')}")]
    etag = (await server.request("GET", PATH, headers=headers)).header("etag")
    assert etag is not None
    for sent in (etag, f'"other", W/{etag}'):
        unchanged = await server.request("GET", PATH, headers=[*headers, ("If-None-Match", sent)])
        assert (unchanged.status, unchanged.body, unchanged.header("etag")) == (304, b"", etag)
    server.issuers.current = registry_of(manifest())
    changed = await server.request("GET", PATH, headers=[*headers, ("If-None-Match", etag)])
    assert changed.status == 200
    assert changed.header("etag") != etag


async def test_nobody_else_learns_anything(server: Server) -> None:
    pod = server.reviewer.add("team-a/web", audience="est-issuer")
    ra_elsewhere = server.reviewer.add(RA, audience="devices")
    for authorization, status in (
        (None, 401),
        (basic(), 401),
        ("Bearer junk", 401),
        (f"Bearer {ra_elsewhere}", 401),
        (f"Bearer {pod}", 403),
    ):
        headers = [("Authorization", authorization)] if authorization else []
        answer = await server.request("GET", PATH, headers=headers, connection=tls(leaf()))
        assert answer.status == status
        assert answer.all("www-authenticate") == (['Bearer realm="est-issuer"'] if status == 401 else [])
        assert "devices" not in answer.text
