"""GET /est-issuer/v1/issuers: the truth for the operator, and for nobody else."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from estclient.client import MAX_JSON_OCTETS
from estoperator.issuer_state import read_facts
from estserver import issuer_endpoint
from estserver.issuers import Registry
from estserver.snapshot import SecretManifest
from tests import pki
from tests.server.app_fixtures import (
    FACTORY_CA,
    RA,
    SECRETS,
    SPEC,
    AppConfiguration,
    Server,
    basic,
    leaf,
    manifest,
    registry_of,
    running,
    tls,
)

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


def flooded() -> Registry:
    """215 issuers of namespace flood by a Secret with a CA certificate of 60 KB, and one in another namespace."""
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(60_000))
    padded = pki.ca("Padded", extensions=[(padding, False)])
    secret = SecretManifest(
        namespace="flood", name="big-ca", type="kubernetes.io/tls", data={"tls.crt": padded.pem, "tls.key": padded.key_pem}
    )
    spec = {"ca": {"secretName": "big-ca"}, "policy": SPEC["policy"]}
    flood = [replace(manifest(f"flood-{number:03}", spec), namespace="flood") for number in range(215)]
    return registry_of(manifest(), *flood, secrets=(*SECRETS, secret))


@pytest.mark.spec("THREAT-34")
async def test_one_namespace_cannot_make_the_list_longer_than_the_operator_reads(server: Server) -> None:
    server.issuers.current = flooded()
    headers = [("Authorization", f"Bearer {server.reviewer.add(RA, audience='est-issuer')}")]
    answer = await server.request("GET", PATH, headers=headers)
    assert issuer_endpoint.MAX_LIST_OCTETS // 2 < len(answer.body) <= issuer_endpoint.MAX_LIST_OCTETS == MAX_JSON_OCTETS
    entries = json.loads(answer.body)["issuers"]
    assert len(entries) == 216
    facts = {fact.ref.name: fact for fact in map(read_facts, entries)}
    assert facts.pop("factory").ready
    left_out = [fact for fact in facts.values() if not fact.ready]
    assert 0 < len(left_out) < 50, "of the flood itself as many as fit are there"
    assert {fact.reason for fact in left_out} == {"IssuersTooLarge"}
    assert "those of namespace flood take " in left_out[0].message
    assert left_out[0].chains == ()


@pytest.mark.parametrize(
    ("sizes", "room", "share"),
    [([], 9, 9), ([1, 2, 3], 6, 3), ([1, 2, 3], 9, 3), ([1, 9, 9], 9, 4), ([9, 1, 1], 9, 7), ([5], 4, 4), ([5, 5, 5], 2, 0)],
)
def test_of_what_does_not_fit_each_has_an_equal_share_and_what_the_small_leave_goes_to_the_others(
    sizes: list[int], room: int, share: int
) -> None:
    assert issuer_endpoint.equal_share(sizes, room) == share


def test_a_namespace_with_more_issuers_than_fit_even_without_their_cas_has_some_of_them() -> None:
    whole, short = [b"w" * 20] * 9, [b"s" * 8] * 9
    for room in range(120):
        entries = issuer_endpoint.squeezed(whole, short, room)
        assert sum(len(entry) + 2 for entry in entries) <= room
        assert len(entries) == min(9, room // 10)


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
