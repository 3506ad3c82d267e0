"""A worker that starts while something is broken goes on with what its brothers go on with, and with nothing more."""

import json
from collections.abc import Sequence

import pytest

from estcore.errors import Unauthenticated
from estserver import control, last_good
from estserver.issuers import Issuer, Issuers, Registry, RegistrySettings, build
from estserver.registry_keeper import RegistryKeeper
from estserver.snapshot import TYPE_BASIC_AUTH, IssuerManifest, SecretManifest, Snapshot
from tests.server.manifest_builders import NOW, ca_secret, issuer, secret, snapshot

SETTINGS = RegistrySettings(cluster_namespace="est-system")
KEY = "EstIssuer/devices/factory"
BASIC = {"authentication": [{"basic": {"secretName": "one"}}, {"basic": {"secretName": "two"}}]}
HALF_WRITTEN = secret("factory-ca", {"tls.crt": b"half"})


def user(secret_name: str, name: bytes) -> SecretManifest:
    return secret(secret_name, {"username": name, "password": b"correct horse"}, kind=TYPE_BASIC_AUTH)


GOOD = (ca_secret(), user("one", b"mallory"), user("two", b"bob"))


def judged(*steps: Sequence[IssuerManifest | SecretManifest]) -> Registry:
    """A registry that saw these one after the other."""
    registry = Registry()
    for step in steps:
        registry = build(snapshot(*step), registry, SETTINGS, now=NOW)
    return registry


async def started_anew(brother: Registry, newest: Snapshot) -> Registry:
    """The registry of a worker that starts beside one with this registry."""
    issuers = Issuers()
    keeper = RegistryKeeper(issuers, SETTINGS, clock=lambda: NOW, tells=False)
    line = control.former_line(last_good.snapshots(brother))
    keeper.remember(control.read_former(json.loads(line)))
    keeper.feed(newest)
    await keeper.judge()
    return issuers.current


def lets_in(found: Issuer, name: str) -> bool:
    assert found.passwords is not None
    try:
        found.passwords.check(name, "correct horse")
    except Unauthenticated:
        return False
    return True


def told(found: Issuer) -> tuple[object, ...]:
    return found.ready, found.reason, found.message, found.spec, found.label, found.cacerts_body, found.secrets.ca.secrets


BROKEN = {
    "its CA": (issuer(est=BASIC), HALF_WRITTEN, *GOOD[1:]),
    "a password Secret": (issuer(est=BASIC), GOOD[0], user("one", b"alice"), user("two", b"")),
    "its spec": (issuer(est={"authentication": [{"basics": {}}]}, generation=2), *GOOD),
    "its spec and its CA": (issuer(est={"authentication": [{"basics": {}}]}, generation=2), HALF_WRITTEN, *GOOD[1:]),
}


@pytest.mark.spec("THREAT-27", "THREAT-32")
@pytest.mark.parametrize("what", BROKEN)
async def test_a_worker_that_starts_while_something_is_broken_answers_as_its_brothers_do(what: str) -> None:
    broken = BROKEN[what]
    brother = judged((issuer(est=BASIC), *GOOD), broken)
    found = await started_anew(brother, snapshot(*broken))
    old, new = brother.issuers[KEY], found.issuers[KEY]
    assert old.authority is not None
    assert new.authority is not None
    assert new.authority.certificate == old.authority.certificate
    assert told(new) == told(old)
    for name in ("mallory", "alice", "bob"):
        assert lets_in(new, name) == lets_in(old, name)


async def test_nothing_is_handed_on_that_the_brothers_do_not_go_on_with() -> None:
    brother = judged((issuer(est=BASIC), *GOOD), (issuer(est=BASIC), *GOOD[1:]))
    newest = snapshot(issuer(est=BASIC), *GOOD[1:])
    assert (await started_anew(brother, newest)).issuers[KEY].authority is None, "a CA whose Secret was deleted is out of use"
    younger = judged((issuer(), ca_secret()), (issuer(), issuer("younger"), HALF_WRITTEN))
    found = await started_anew(younger, snapshot(issuer(), issuer("younger"), HALF_WRITTEN))
    assert found.issuers[KEY].authority is not None
    assert found.issuers["EstIssuer/devices/younger"].authority is None, "it names a Secret that was never good since it does"
    anew = snapshot(issuer(uid="another"), HALF_WRITTEN)
    assert (await started_anew(younger, anew)).issuers[KEY].authority is None, "an issuer made anew inherits nothing"


async def test_where_all_is_in_order_nothing_is_handed_on() -> None:
    assert last_good.snapshots(judged((issuer(est=BASIC), *GOOD))) == ()
    newest = snapshot(issuer(est=BASIC), *GOOD)
    assert (await started_anew(Registry(), newest)).issuers[KEY].ready
