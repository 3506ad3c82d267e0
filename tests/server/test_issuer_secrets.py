"""Digests, one-time passwords and shared secrets of an issuer: which Secrets are read, what of them, and what goes on when one breaks."""

import hashlib
from typing import Any

import pytest

from estcore.digest_authentication import DigestAlgorithm, DigestCredentials
from estcore.errors import ConfigurationError, Unauthenticated
from estserver.digests import Digests
from estserver.issuers import Issuer, Registry, RegistrySettings, build
from estserver.one_time_passwords import OneTimePasswords
from estserver.passwords import Passwords
from estserver.secret_uses import SecretUse, references, trim
from estserver.shared_secrets import SharedSecrets
from estserver.shared_secrets import load as load_shared_secrets
from estserver.snapshot import TYPE_BASIC_AUTH, TYPE_OPAQUE, TYPE_TLS, SecretManifest
from tests.server import manifest_builders
from tests.server.manifest_builders import NOW, ca_secret, issuer, snapshot

KEY = "EstIssuer/devices/factory"
WAYS: list[dict[str, Any]] = [
    {"digest": {"secretName": "digests"}},
    {"oneTimePassword": {"secretName": "otps"}},
    {"cmcSharedSecret": {"secretName": "cmc"}},
]


def secret(name: str, data: dict[str, bytes], *, kind: str = TYPE_OPAQUE) -> SecretManifest:
    return manifest_builders.secret(name, data, kind=kind)


DIGEST_LINE = f"device-1:devices.factory:SHA-256:{hashlib.sha256(b'device-1:devices.factory:x').hexdigest()}".encode()
OTP_LINE = f"device-1:sha256:{hashlib.sha256(b'otp').hexdigest()}".encode()
SHARED = b"a shared secret of CMC"
SECRETS = (
    secret("digests", {"digest": DIGEST_LINE, "other": b"x"}),
    secret("otps", {"otp": OTP_LINE}),
    secret("cmc", {"device-1": SHARED + b"\n", "device-2": SHARED * 2}),
)


def judge(*secrets: SecretManifest, ways: list[dict[str, Any]] | None = None, previous: Registry | None = None) -> Registry:
    found = snapshot(issuer(est={"authentication": ways or WAYS}), ca_secret(), *secrets)
    return build(found, previous or Registry(), RegistrySettings(cluster_namespace="est-system"), now=NOW)


def the_issuer(registry: Registry) -> Issuer:
    return registry.issuers[KEY]


def test_each_use_is_read_from_the_secret_that_its_way_names() -> None:
    found = the_issuer(judge(*SECRETS))
    assert (found.ready, found.reason, found.message) == (True, "Checked", "the CA and every Secret that the issuer names are in order")
    assert found.digests is not None
    assert len(found.digests) == 1
    assert found.one_time_passwords is not None
    assert found.one_time_passwords.check("otp", common_name=None).user == "device-1"
    assert found.shared_secrets is not None
    assert (found.shared_secrets.get("device-1"), found.shared_secrets.get("device-3")) == (SHARED, None)


def test_no_secret_shows_in_a_repr() -> None:
    found = the_issuer(judge(*SECRETS))
    shown = repr(found) + repr(found.secrets) + repr(found.shared_secrets) + repr(found.digests) + repr(found.one_time_passwords)
    for hidden in (SHARED, DIGEST_LINE.rsplit(b":")[-1], OTP_LINE.rsplit(b":")[-1]):
        assert hidden.decode() not in shown


@pytest.mark.parametrize("absent", range(3))
def test_a_secret_that_is_missing_makes_the_issuer_not_ready_and_ends_what_it_held(absent: int) -> None:
    before = judge(*SECRETS)
    found = the_issuer(judge(*SECRETS[:absent], *SECRETS[absent + 1 :], previous=before))
    assert (found.ready, found.reason) == (False, "SecretMissing")
    assert SECRETS[absent].name in found.message
    assert [found.digests, found.one_time_passwords, found.shared_secrets][absent] is None


@pytest.mark.parametrize(
    "broken",
    [secret("digests", {"digest": b"nonsense"}), secret("otps", {"otp": b"nonsense"}), secret("cmc", {"device-1": b"short"})],
    ids=lambda broken: broken.name,
)
def test_a_broken_secret_leaves_the_last_good_state_and_says_so(broken: SecretManifest) -> None:
    before = judge(*SECRETS)
    good = tuple(one for one in SECRETS if one.name != broken.name)
    found = the_issuer(judge(*good, broken, previous=before))
    assert (found.ready, found.reason) == (True, "SecretInvalidData")
    assert "still using the" in found.message
    assert found.digests is the_issuer(before).digests
    assert found.one_time_passwords is the_issuer(before).one_time_passwords
    assert found.shared_secrets is the_issuer(before).shared_secrets
    assert not the_issuer(judge(*good, broken)).ready


TWO_OF_EACH: dict[str, tuple[str, str]] = {
    "passwords": ("basic", TYPE_BASIC_AUTH),
    "digests": ("digest", TYPE_OPAQUE),
    "one-time passwords": ("oneTimePassword", TYPE_OPAQUE),
    "shared secrets": ("cmcSharedSecret", TYPE_OPAQUE),
}


def holding(use: str, name: str, *users: str) -> SecretManifest:
    """A Secret of this use with these users; passwords are one user's."""
    data = {
        "passwords": {"username": users[0].encode(), "password": b"of " + users[0].encode()},
        "digests": {"digest": b"\n".join(DIGEST_LINE.replace(b"device-1", user.encode()) for user in users)},
        "one-time passwords": {
            "otp": b"\n".join(f"{user}:sha256:{hashlib.sha256(f'of {user}'.encode()).hexdigest()}".encode() for user in users)
        },
        "shared secrets": dict.fromkeys(users, SHARED),
    }[use]
    return secret(name, data, kind=TWO_OF_EACH[use][1])


def half_written(use: str, name: str) -> SecretManifest:
    return secret(name, {"device-2": b"short"}, kind=TWO_OF_EACH[use][1])


def digest_credentials(user: str) -> DigestCredentials:
    return DigestCredentials(
        user=user,
        realm="devices.factory",
        nonce="",
        uri="",
        algorithm=DigestAlgorithm.SHA_256,
        nonce_count=1,
        cnonce="",
        response="",
    )


def users_of(registry: Registry, use: str) -> set[str]:
    """Who of four can be identified by what was loaded."""
    found = the_issuer(registry)

    held = {
        "passwords": found.passwords,
        "digests": found.digests,
        "one-time passwords": found.one_time_passwords,
        "shared secrets": found.shared_secrets,
    }[use]

    def knows(user: str) -> bool:
        match held:
            case Passwords() | OneTimePasswords():
                try:
                    held.check(user, f"of {user}") if isinstance(held, Passwords) else held.check(f"of {user}", common_name=None)
                except Unauthenticated:
                    return False
                return True
            case Digests():
                return held.find(digest_credentials(user), secret_names={"one", "two", "three"})[1] is not None
            case SharedSecrets():
                return held.get(user) is not None
        raise AssertionError(f"nothing is held of {use}")

    return {user for user in ("mallory", "alice", "bob", "carol") if knows(user)}


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("use", TWO_OF_EACH)
def test_who_is_taken_out_of_a_secret_is_out_whatever_is_wrong_with_another_one(use: str) -> None:
    ways = [{TWO_OF_EACH[use][0]: {"secretName": name}} for name in ("one", "two")]
    before = judge(holding(use, "one", "mallory"), holding(use, "two", "bob"), ways=ways)
    assert users_of(before, use) == {"mallory", "bob"}
    after = judge(holding(use, "one", "alice"), half_written(use, "two"), ways=ways, previous=before)
    assert users_of(after, use) == {"alice", "bob"}
    assert (the_issuer(after).ready, the_issuer(after).reason) == (True, "SecretInvalidData")
    assert "Secret devices/two" in the_issuer(after).message
    again = judge(holding(use, "one", "carol"), half_written(use, "two"), ways=ways, previous=after)
    assert users_of(again, use) == {"carol", "bob"}
    mended = judge(holding(use, "one", "carol"), holding(use, "two", "alice"), ways=ways, previous=again)
    assert users_of(mended, use) == {"carol", "alice"}
    assert the_issuer(mended).reason == "Checked"


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("use", TWO_OF_EACH)
def test_a_user_who_is_put_into_a_second_secret_keeps_nobody_in_who_is_taken_out_of_the_first(use: str) -> None:
    ways = [{TWO_OF_EACH[use][0]: {"secretName": name}} for name in ("one", "two", "three")]
    held = [holding(use, "one", "mallory"), holding(use, "two", "bob"), holding(use, "three", "carol")]
    before = judge(*held, ways=ways)
    after = judge(holding(use, "one", "alice"), holding(use, "two", "carol"), held[2], ways=ways, previous=before)
    assert users_of(after, use) == {"alice", "bob", "carol"}
    assert "Secret devices/three" in the_issuer(after).message
    moved = judge(holding(use, "one", "bob"), holding(use, "two", "alice"), half_written(use, "three"), ways=ways, previous=after)
    assert users_of(moved, use) == {"alice", "bob", "carol"}
    found = the_issuer(moved).passwords
    assert found is None or (found.secret_of("bob"), found.secret_of("alice")) == ("one", "two")


@pytest.mark.spec("THREAT-27")
def test_a_trust_anchor_that_is_taken_out_is_out_whatever_is_wrong_with_another_secret() -> None:
    ways = [{"certificate": {"caSecretName": name}} for name in ("one", "two")]

    def anchors(name: str, *names: str) -> SecretManifest:
        return secret(name, {"ca.crt": b"".join(manifest_builders.ca_pem(common_name)[1] for common_name in names)})

    before = judge(anchors("one", "Good", "Compromised"), anchors("two", "Other"), ways=ways)
    after = the_issuer(judge(anchors("one", "Good"), secret("two", {"ca.crt": b"oops"}), ways=ways, previous=before))
    names = {name: [anchor.subject.rfc4514_string() for anchor in found] for name, found in after.anchors.items()}
    assert names == {"one": ["CN=Good"], "two": ["CN=Other"]}


@pytest.mark.spec("THREAT-21")
@pytest.mark.parametrize("kind", [TYPE_TLS, TYPE_BASIC_AUTH, "kubernetes.io/service-account-token", "kubernetes.io/dockerconfigjson"])
@pytest.mark.parametrize("name", ["digests", "otps", "cmc"])
def test_a_secret_of_another_type_is_not_read(name: str, kind: str) -> None:
    wrong = secret(name, {"digest": DIGEST_LINE, "otp": OTP_LINE, "token": b"of somebody else"}, kind=kind)
    found = the_issuer(judge(*(one for one in SECRETS if one.name != name), wrong))
    assert (found.ready, found.reason) == (False, "SecretInvalidData")
    assert f"its type is {kind}" in found.message
    assert "somebody" not in found.message


@pytest.mark.spec("THREAT-21")
def test_of_a_secret_only_what_its_uses_need_is_kept() -> None:
    whole = secret("any", {"digest": b"d", "otp": b"o", "auth": b"a", "device-1": b"s"})
    assert set(trim(whole, [SecretUse.DIGESTS]).data) == {"digest"}
    assert set(trim(whole, [SecretUse.ONE_TIME_PASSWORDS, SecretUse.PASSWORDS]).data) == {"otp", "auth"}
    assert trim(whole, [SecretUse.SHARED_SECRETS]).data == whole.data
    tls = secret("any", {"tls.key": b"k", "tls.crt": b"c"}, kind=TYPE_TLS)
    for use in (SecretUse.DIGESTS, SecretUse.ONE_TIME_PASSWORDS, SecretUse.SHARED_SECRETS):
        assert trim(tls, [use]).data == {}


def test_a_secret_that_two_ways_name_is_one() -> None:
    ways = [{"digest": {"secretName": "digests"}}, {"digest": {"secretName": "digests"}, "certificate": {"issuedBy": "this"}}]
    found = the_issuer(judge(*SECRETS, ways=ways))
    assert found.ready
    assert found.spec is not None
    named = [(reference.name, reference.use) for reference in references(found.spec, namespace="devices")]
    assert named.count(("digests", SecretUse.DIGESTS)) == 1


BROKEN = {
    "too short": ([secret("one", {"device-1": b"fifteen octets."})], "Secret devices/one: device-1: a shared secret has 16 to 1024 octets"),
    "too short but for its line end": ([secret("one", {"device-1": b"fifteen octets.\r\n"})], "a shared secret has 16 to 1024 octets"),
    "too long": ([secret("one", {"device-1": b"x" * 1025})], "a shared secret has 16 to 1024 octets"),
    "empty": ([secret("one", {})], "it holds no entry"),
    "twice": ([secret("one", {"a": SHARED}), secret("two", {"a": SHARED})], "Secret devices/two: a: an entry of this name is in another"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_shared_secret_is_a_configuration_error_that_names_it_and_not_what_it_is(case: str) -> None:
    sources, expected = BROKEN[case]
    with pytest.raises(ConfigurationError) as raised:
        load_shared_secrets(sources)
    assert expected in raised.value.message
    assert raised.value.reason == "SecretInvalidData"
    assert "fifteen" not in raised.value.message
