"""A snapshot becomes a registry: what is loaded, what is kept when a Secret breaks, who gets which label."""

import itertools
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from estcore import certs_only, roll_over, transfer
from estcore.authority import Authority
from estcore.errors import IssuerNotReady, Unauthenticated
from estserver import snapshot as snapshots
from estserver.issuers import Issuer, Registry, RegistrySettings, build
from estserver.keystore import SecretKeyStore
from estserver.snapshot import TYPE_BASIC_AUTH, TYPE_OPAQUE, TYPE_TLS, SecretManifest, SecretProblem
from tests.server.manifest_builders import NOW, ca_pem, ca_secret, issuer, next_serial, secret, snapshot

CLUSTER = RegistrySettings(cluster_namespace="est-system")
DIRECTORY = RegistrySettings(directory=True)
KEY = "EstIssuer/devices/factory"
BASIC = {"authentication": [{"basic": {"secretName": "device-passwords"}}]}
PASSWORDS = secret("device-passwords", {"username": b"device-1", "password": b"correct horse"}, kind=TYPE_BASIC_AUTH)


def judge(
    *things: snapshots.IssuerManifest | SecretManifest,
    previous: Registry | None = None,
    settings: RegistrySettings = CLUSTER,
    now: datetime = NOW,
) -> Registry:
    return build(snapshot(*things), previous or Registry(), settings, now=now)


def serial_numbers(found: Issuer) -> list[int]:
    return [certificate.serial_number for certificate in certs_only.decode(transfer.decode_body(found.cacerts_body))]


def leaf_pem() -> tuple[bytes, bytes]:
    """(key, certificate) of an end entity: a certificate that is no CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "not a CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(next_serial())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    key_pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_pem, certificate.public_bytes(encoding)


def ca_below_root(*, root_days: int, ca_days: int) -> SecretManifest:
    """A CA Secret whose CA is issued by a root; both begin at NOW."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, public_key: ec.EllipticCurvePublicKey, days: int) -> bytes:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")]))
            .public_key(public_key)
            .serial_number(next_serial())
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root_key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret(
        "factory-ca",
        {
            "tls.key": key_pem,
            "tls.crt": certificate("Sub", key.public_key(), ca_days),
            "ca.crt": certificate("Root", root_key.public_key(), root_days),
        },
    )


def encrypted(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"correct horse")
    )


def broken_secrets() -> dict[str, SecretManifest]:
    """The twelve of threats row 27, by what is wrong with them."""
    key, certificate = ca_pem()
    other_key, _ = ca_pem("Another CA")
    leaf_key, leaf = leaf_pem()
    expired_key, expired = ca_pem("Expired CA", begin=NOW - timedelta(days=20), days=10)
    future_key, future = ca_pem("Future CA", begin=NOW + timedelta(days=10))
    return {
        "no key yet": secret("factory-ca", {"tls.crt": certificate}),
        "no certificate yet": secret("factory-ca", {"tls.key": key}),
        "empty members": secret("factory-ca", {"tls.crt": b"", "tls.key": b""}),
        "key cut off": secret("factory-ca", {"tls.crt": certificate, "tls.key": key[: len(key) // 2]}),
        "certificate cut off": secret("factory-ca", {"tls.crt": certificate[: len(certificate) // 2], "tls.key": key}),
        "another certificate's key": secret("factory-ca", {"tls.crt": certificate, "tls.key": other_key}),
        "encrypted key": secret("factory-ca", {"tls.crt": certificate, "tls.key": encrypted(key)}),
        "not a CA": secret("factory-ca", {"tls.crt": leaf, "tls.key": leaf_key}),
        "expired CA": secret("factory-ca", {"tls.crt": expired, "tls.key": expired_key}),
        "not yet valid": secret("factory-ca", {"tls.crt": future, "tls.key": future_key}),
        "a stranger as root": secret("factory-ca", {"tls.crt": certificate, "tls.key": key, "ca.crt": ca_pem("Another CA")[1]}),
        "another type": secret("factory-ca", {"tls.crt": certificate, "tls.key": key}, kind=TYPE_OPAQUE),
    }


def test_an_issuer_whose_secret_is_in_order_is_ready_and_gives_out_its_ca() -> None:
    found = judge(issuer(), ca_secret()).issuers[KEY]
    assert (found.ready, found.reason, found.label) == (True, "Checked", "devices.factory")
    assert serial_numbers(found) == [x509.load_pem_x509_certificate(ca_pem()[1]).serial_number]
    assert transfer.decode_body(found.cacerts_body_wrapped) == transfer.decode_body(found.cacerts_body)
    assert found.usable_authority(now=NOW) is found.authority


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("what", broken_secrets())
def test_a_broken_secret_is_never_loaded_and_says_why(what: str) -> None:
    found = judge(issuer(), broken_secrets()[what]).issuers[KEY]
    assert not found.ready
    assert found.authority is None
    assert found.cacerts_body == b""
    assert "devices/factory-ca" in found.message
    with pytest.raises(IssuerNotReady) as refused:
        found.usable_authority(now=NOW)
    assert "factory-ca" not in str(refused.value), "a client learns nothing of the inside"


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("what", broken_secrets())
def test_a_secret_that_breaks_leaves_the_last_good_ca_signing_and_says_why(what: str) -> None:
    before = judge(issuer(), ca_secret())
    broken = judge(issuer(), broken_secrets()[what], previous=before)
    assert broken.issuers[KEY].authority is before.issuers[KEY].authority
    assert broken.issuers[KEY].ready
    assert broken.issuers[KEY].reason != "Checked"
    assert "still using the CA loaded before" in broken.issuers[KEY].message
    mended = judge(issuer(), ca_secret("New CA"), previous=broken).issuers[KEY]
    assert (mended.ready, mended.reason) == (True, "Checked")
    assert serial_numbers(mended) == [x509.load_pem_x509_certificate(ca_pem("New CA")[1]).serial_number]


def test_a_secret_that_is_deleted_takes_the_ca_out_of_use() -> None:
    found = judge(issuer(), previous=judge(issuer(), ca_secret())).issuers[KEY]
    assert (found.ready, found.reason, found.authority) == (False, "SecretMissing", None)


def test_while_a_ca_is_generated_anew_the_one_that_was_deleted_is_out_of_use() -> None:
    problem = {("devices", "factory-ca"): SecretProblem("CAGenerating", "its CA is being generated", absent=True)}
    found = build(snapshot(issuer(), problems=problem), judge(issuer(), ca_secret()), CLUSTER, now=NOW).issuers[KEY]
    assert (found.ready, found.reason, found.authority) == (False, "CAGenerating", None)


def test_a_secret_that_may_not_be_read_is_forbidden_until_it_was_read_once() -> None:
    problem = {("devices", "factory-ca"): SecretProblem("SecretForbidden", "set chart value secretNamespaces")}
    never_read = build(snapshot(issuer(), problems=problem), Registry(), CLUSTER, now=NOW).issuers[KEY]
    assert (never_read.ready, never_read.reason) == (False, "SecretForbidden")
    assert "secretNamespaces" in never_read.message
    read_before = build(snapshot(issuer(), ca_secret(), problems=problem), Registry(), CLUSTER, now=NOW).issuers[KEY]
    assert (read_before.ready, read_before.reason) == (True, "SecretForbidden")


def test_another_secret_name_never_inherits_the_ca_of_the_one_before() -> None:
    before = judge(issuer(), ca_secret())
    found = judge(issuer(ca="other", generation=2), secret("other", {"tls.crt": b"x"}), previous=before).issuers[KEY]
    assert found.authority is None


def test_an_issuer_that_was_deleted_and_made_anew_inherits_nothing() -> None:
    before = judge(issuer(uid="first"), ca_secret())
    found = judge(issuer(uid="second"), secret("factory-ca", {"tls.crt": b"x"}), previous=before).issuers[KEY]
    assert found.authority is None


@pytest.mark.spec("THREAT-27")
def test_an_expired_ca_is_not_ready_by_the_clock_alone() -> None:
    short = ca_secret("Short CA", days=1)
    before = judge(issuer(), short)
    end = x509.load_pem_x509_certificate(short.data["tls.crt"]).not_valid_after_utc
    assert judge(issuer(), short, previous=before, now=end - timedelta(seconds=1)).issuers[KEY].ready
    with pytest.raises(IssuerNotReady):
        before.issuers[KEY].usable_authority(now=end)
    found = judge(issuer(), short, previous=before, now=end).issuers[KEY]
    assert (found.ready, found.reason, found.authority, found.cacerts_body) == (False, "CAExpired", None, b"")


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("ends_first", ["the root", "the CA"])
def test_a_ca_below_an_expired_root_signs_no_more_whether_the_server_was_restarted_or_not(ends_first: str) -> None:
    root_days, ca_days = (100, 300) if ends_first == "the root" else (300, 100)
    below = ca_below_root(root_days=root_days, ca_days=ca_days)
    before = judge(issuer(), below)
    assert before.issuers[KEY].ready
    end = NOW + timedelta(days=100)
    before.issuers[KEY].usable_authority(now=end - timedelta(seconds=1))
    with pytest.raises(IssuerNotReady):
        before.issuers[KEY].usable_authority(now=end)
    for previous in (before, None):
        found = judge(issuer(), below, previous=previous, now=end + timedelta(seconds=1)).issuers[KEY]
        assert (found.ready, found.reason, found.authority) == (False, "CAExpired", None)
    longer = ca_below_root(root_days=1000, ca_days=300)
    assert judge(issuer(), longer, previous=before, now=end + timedelta(seconds=1)).issuers[KEY].ready


def test_a_ca_that_becomes_valid_is_ready_by_the_clock_alone() -> None:
    future = ca_secret("Future CA", begin=NOW + timedelta(days=10))
    early = judge(issuer(), future)
    assert not early.issuers[KEY].ready
    assert judge(issuer(), future, previous=early, now=NOW + timedelta(days=10)).issuers[KEY].ready


def test_where_a_signer_comes_or_goes_the_same_secret_is_read_anew() -> None:
    signer: dict[str, Any] = {"signer": {"exec": {"command": ["/bin/false"]}}}
    with_key = ca_secret(namespace="default")
    without = secret("factory-ca", {member: value for member, value in with_key.data.items() if member != "tls.key"}, namespace="default")

    def found(registry: Registry) -> Issuer:
        return registry.issuers["EstIssuer/default/factory"]

    def judged(ca: SecretManifest, previous: Registry | None = None, **spec: Any) -> Registry:
        return judge(issuer(namespace="default", **spec), ca, previous=previous, settings=DIRECTORY)

    outside = judged(with_key, **signer)
    inside = judged(with_key, outside)
    again = judged(with_key, inside, **signer)
    for registry, holds_key in ((outside, False), (inside, True), (again, False)):
        authority = found(registry).authority
        assert authority is not None
        assert authority.holds_key is holds_key
        assert found(registry).ready
    nothing_signs = found(judged(without, judged(without, **signer)))
    assert (nothing_signs.ready, nothing_signs.authority) == (False, None)
    assert nothing_signs.reason == "SecretInvalidData"


def test_what_did_not_change_is_not_loaded_again() -> None:
    before = judge(issuer(est=BASIC), ca_secret(), PASSWORDS).issuers[KEY]
    again = judge(
        issuer(est=BASIC), ca_secret(), PASSWORDS, previous=Registry(issuers={KEY: before}), now=NOW + timedelta(hours=1)
    ).issuers[KEY]
    assert again.authority is before.authority
    assert again.passwords is before.passwords
    assert again.cacerts_body is before.cacerts_body


def test_an_issuer_waits_for_a_password_secret_but_its_devices_may_renew() -> None:
    found = judge(issuer(est=BASIC), ca_secret()).issuers[KEY]
    assert (found.ready, found.reason, found.passwords) == (False, "SecretMissing", None)
    assert found.usable_authority(now=NOW) is found.authority
    found = judge(issuer(est=BASIC), ca_secret(), PASSWORDS).issuers[KEY]
    assert found.ready
    assert found.passwords is not None
    found.passwords.check("device-1", "correct horse")


def test_a_broken_password_secret_keeps_the_passwords_before() -> None:
    before = judge(issuer(est=BASIC), ca_secret(), PASSWORDS)
    broken = replace(PASSWORDS, data={"username": b"device-1"})
    found = judge(issuer(est=BASIC), ca_secret(), broken, previous=before).issuers[KEY]
    assert (found.ready, found.reason) == (True, "SecretInvalidData")
    assert found.passwords is before.issuers[KEY].passwords


def test_anchors_are_read_from_ca_crt_of_their_secret() -> None:
    est = {"authentication": [{"certificate": {"caSecretName": "manufacturer"}}, {"certificate": {"caSecretName": "second"}}]}
    roots = [ca_pem("Manufacturer")[1], ca_pem("Second")[1]]
    found = judge(
        issuer(est=est),
        ca_secret(),
        secret("manufacturer", {"ca.crt": roots[0]}, kind=TYPE_OPAQUE),
        secret("second", {"ca.crt": roots[1]}),
    ).issuers[KEY]
    assert found.ready
    assert tuple(itertools.chain.from_iterable(found.anchors.values())) == tuple(x509.load_pem_x509_certificate(root) for root in roots)


@pytest.mark.spec("THREAT-12")
def test_an_anchor_that_is_a_leaf_is_refused() -> None:
    est = {"authentication": [{"certificate": {"caSecretName": "manufacturer"}}]}
    found = judge(issuer(est=est), ca_secret(), secret("manufacturer", {"ca.crt": leaf_pem()[1]}, kind=TYPE_OPAQUE)).issuers[KEY]
    assert (found.ready, found.reason, found.anchors) == (False, "SecretInvalidData", {})


@pytest.mark.spec("THREAT-21")
@pytest.mark.parametrize("kind", ["kubernetes.io/service-account-token", "kubernetes.io/dockerconfigjson", TYPE_TLS])
def test_a_secret_whose_type_does_not_fit_is_not_read(kind: str) -> None:
    est = {"authentication": [{"basic": {"secretName": "somebody-elses"}}]}
    canary = b"user:$2b$04$canarycanarycanarycanary"
    found = judge(issuer(est=est), ca_secret(), secret("somebody-elses", {"auth": canary, "token": canary}, kind=kind)).issuers[KEY]
    assert (found.ready, found.passwords) == (False, None)
    assert "canary" not in found.message
    assert kind in found.message


def test_a_namespaced_issuer_reads_its_own_namespace_a_cluster_issuer_the_install_namespace() -> None:
    registry = judge(
        issuer(),
        issuer("everyone", kind="EstClusterIssuer"),
        ca_secret(namespace="devices"),
        ca_secret("Cluster CA", namespace="est-system"),
    )
    assert serial_numbers(registry.issuers[KEY]) != serial_numbers(registry.issuers["EstClusterIssuer/everyone"])
    assert not judge(issuer(namespace="tenants"), ca_secret()).issuers["EstIssuer/tenants/factory"].ready


@pytest.mark.spec("THREAT-27")
def test_beside_a_spec_that_does_not_parse_a_ca_that_is_deleted_signs_no_more_until_it_is_there_again() -> None:
    bad = issuer(est={"lable": "x"}, generation=2)
    before = judge(bad, ca_secret(), previous=judge(issuer(), ca_secret()))
    gone = judge(bad, previous=before)
    found = gone.issuers[KEY]
    assert (found.ready, found.reason, found.authority) == (False, "InvalidSpec", None)
    assert "EST clients are not answered" in found.message
    assert "Secret devices/factory-ca: it does not exist" in found.message
    again = judge(bad, ca_secret("New CA"), previous=gone).issuers[KEY]
    assert again.authority is not None
    assert (again.reason, serial_numbers(again)) == ("InvalidSpec", [x509.load_pem_x509_certificate(ca_pem("New CA")[1]).serial_number])


@pytest.mark.spec("THREAT-27")
def test_beside_a_spec_that_does_not_parse_passwords_are_those_of_now() -> None:
    bad = issuer(est={**BASIC, "lable": "x"}, generation=2)
    before = judge(bad, ca_secret(), PASSWORDS, previous=judge(issuer(est=BASIC), ca_secret(), PASSWORDS))
    kept = before.issuers[KEY].passwords
    assert kept is not None
    kept.check("device-1", "correct horse")
    other = secret("device-passwords", {"username": b"device-2", "password": b"battery staple"}, kind=TYPE_BASIC_AUTH)
    changed = judge(bad, ca_secret(), other, previous=before).issuers[KEY].passwords
    assert changed is not None
    with pytest.raises(Unauthenticated):
        changed.check("device-1", "correct horse")
    changed.check("device-2", "battery staple")


@pytest.mark.spec("THREAT-27")
def test_beside_a_spec_that_does_not_parse_a_broken_secret_leaves_the_last_good_ca_and_both_are_told() -> None:
    before = judge(issuer(), ca_secret())
    found = judge(issuer(est={"lable": "x"}, generation=2), secret("factory-ca", {"tls.crt": b""}), previous=before).issuers[KEY]
    assert found.authority is before.issuers[KEY].authority
    assert "spec.est.lable" in found.message
    assert "still using the CA loaded before" in found.message


@pytest.mark.spec("THREAT-34")
@pytest.mark.parametrize("parsed_before", [False, True])
def test_a_spec_that_does_not_parse_is_read_once_for_everybodys_judgement_waits_for_it(*, parsed_before: bool) -> None:
    rules = [{"from": {"users": [f"u{rule}"]}, "dnsNames": [f"h{host}.{rule}.example" for host in range(64)]} for rule in range(64)]
    long = issuer(policy={"rules": [*rules, {"dnsNames": ["x*.example"]}]}, generation=2)
    before = judge(issuer(), ca_secret()) if parsed_before else None
    begun = time.process_time()
    first = judge(long, ca_secret(), previous=before)
    read = time.process_time()
    again = judge(long, ca_secret(), previous=first)
    assert time.process_time() - read < (read - begun) / 4
    assert first.issuers[KEY].reason == "InvalidSpec"
    assert again == first
    assert judge(issuer(generation=3), ca_secret(), previous=again).issuers[KEY].ready


def test_a_spec_that_does_not_parse_leaves_est_by_the_spec_before_it() -> None:
    never = judge(issuer(est={"lable": "x"}), ca_secret()).issuers[KEY]
    assert (never.ready, never.reason, never.spec, never.authority) == (False, "InvalidSpec", None, None)
    assert "spec.est.lable" in never.message
    before = judge(issuer(), ca_secret())
    found = judge(issuer(est={"lable": "x"}, generation=2), ca_secret(), previous=before)
    assert (found.issuers[KEY].ready, found.issuers[KEY].reason, found.issuers[KEY].generation) == (False, "InvalidSpec", 2)
    assert found.issuers[KEY].usable_authority(now=NOW) is before.issuers[KEY].authority
    assert found.by_label["devices.factory"].spec == before.issuers[KEY].spec
    assert judge(issuer(generation=3), ca_secret(), previous=found).issuers[KEY].ready


def cluster_issuer(name: str, label: str | None, *, age_days: int = 0) -> snapshots.IssuerManifest:
    return issuer(name, kind="EstClusterIssuer", created=NOW - timedelta(days=age_days), est={"label": label} if label else {})


SHARED = ca_secret("Cluster CA", namespace="est-system")


def test_a_spec_that_does_not_parse_is_never_ready_whatever_its_label() -> None:
    """Contract: Ready speaks of the generation that was read, so it must not be true of one that nobody could read."""
    key = "EstClusterIssuer/younger"
    ca = ca_secret(namespace="est-system")
    older = issuer("older", kind="EstClusterIssuer", est={"label": "factory"})

    def younger(generation: int, label: str, *names: str) -> snapshots.IssuerManifest:
        rules = [{"dnsNames": list(names)}]
        later = NOW + timedelta(days=1)
        est = {"label": label}
        return issuer("younger", kind="EstClusterIssuer", created=later, generation=generation, est=est, policy={"rules": rules})

    first = judge(older, younger(1, "factory", "*.example.com"), ca)
    assert (first.issuers[key].ready, first.issuers[key].reason) == (False, "LabelConflict")
    typo = younger(2, "other", "x*.example.com")
    second = judge(older, typo, ca, previous=first)
    third = judge(older, typo, ca, previous=second, now=NOW + timedelta(seconds=30))
    for registry in (second, third):
        found = registry.issuers[key]
        assert (found.ready, found.reason, found.generation) == (False, "InvalidSpec", 2)
        assert "x*.example.com" in found.message
        assert "label" in found.message
    alone = judge(typo, ca, previous=third).issuers[key]
    assert (alone.ready, alone.reason) == (False, "InvalidSpec")
    assert alone.spec == first.issuers[key].spec, "EST goes on by the spec before it"
    mended = judge(older, younger(3, "other", "x.example.com"), ca, previous=third).issuers[key]
    assert (mended.ready, mended.reason, mended.generation) == (True, "Checked", 3)


def test_of_two_cluster_issuers_the_older_keeps_the_label_and_the_newer_says_so() -> None:
    registry = judge(cluster_issuer("a-new", "factory"), cluster_issuer("z-old", "factory", age_days=1), SHARED)
    assert registry.by_label["factory"].name == "z-old"
    newer = registry.issuers["EstClusterIssuer/a-new"]
    assert (newer.ready, newer.reason) == (False, "LabelConflict")
    assert "EstClusterIssuer/z-old" in newer.message


def test_of_two_cluster_issuers_of_one_second_the_name_decides() -> None:
    registry = judge(cluster_issuer("b", "factory"), cluster_issuer("a", "factory"), SHARED)
    assert registry.by_label["factory"].name == "a"


@pytest.mark.parametrize("asked", ["factory", "est-system", "shop.factory"])
def test_a_tenant_never_gets_the_label_it_asks_for(asked: str) -> None:
    registry = judge(issuer(est={"label": asked}, created=NOW - timedelta(days=9)), ca_secret())
    assert set(registry.by_label) == {"devices.factory"}
    assert asked in registry.issuers[KEY].message


def test_a_tenant_never_takes_the_label_of_a_cluster_issuer() -> None:
    tenant = issuer(created=NOW - timedelta(days=9))
    registry = judge(tenant, cluster_issuer("everyone", "devices.factory"), ca_secret(), SHARED)
    assert registry.by_label["devices.factory"].kind == "EstClusterIssuer"
    assert registry.issuers[KEY].reason == "LabelConflict"


def test_the_administrators_map_gives_a_label_and_keeps_it_for_its_owner() -> None:
    mapped = RegistrySettings(labels={"factory": "devices/factory"}, cluster_namespace="est-system")
    registry = judge(
        issuer(est={"label": "factory"}), cluster_issuer("everyone", "factory", age_days=99), ca_secret(), SHARED, settings=mapped
    )
    assert registry.by_label["factory"].key == KEY
    assert registry.by_label["devices.factory"].key == KEY
    assert registry.issuers[KEY].label == "factory"
    assert registry.issuers["EstClusterIssuer/everyone"].reason == "LabelConflict"
    without_owner = judge(cluster_issuer("everyone", "factory"), SHARED, settings=mapped)
    assert without_owner.by_label == {}


def test_a_cluster_issuer_without_label_answers_at_its_name_unless_that_is_an_operation() -> None:
    registry = judge(cluster_issuer("everyone", None), cluster_issuer("cacerts", None), SHARED)
    assert set(registry.by_label) == {"everyone"}
    assert registry.issuers["EstClusterIssuer/cacerts"].reason == "LabelConflict"


def test_the_path_without_label_is_the_administrators_choice() -> None:
    chosen = RegistrySettings(default_issuer="devices/factory", cluster_namespace="est-system")
    assert judge(issuer(), ca_secret(), settings=chosen).default is not None
    assert judge(issuer("other"), ca_secret(), settings=chosen).default is None
    assert judge(issuer(), ca_secret()).default is None
    cluster = RegistrySettings(default_issuer="EstClusterIssuer/everyone", cluster_namespace="est-system")
    found = judge(cluster_issuer("everyone", None), SHARED, settings=cluster).default
    assert found is not None
    assert found.key == "EstClusterIssuer/everyone"


def test_from_a_directory_an_issuer_says_its_label_and_the_only_one_is_the_default() -> None:
    registry = judge(issuer(est={"label": "line-1"}), ca_secret(), settings=DIRECTORY)
    assert registry.by_label["line-1"] is registry.default
    two = judge(issuer(), issuer("second"), ca_secret(), settings=DIRECTORY)
    assert set(two.by_label) == {"factory", "second"}
    assert two.default is None


def test_a_snapshot_crosses_the_pipe_unchanged() -> None:
    problems = {("devices", "x"): SecretProblem("SecretForbidden", "no"), ("devices", "y"): SecretProblem("CAGenerating", "", absent=True)}
    sent = snapshot(issuer(est=BASIC), ca_secret(), PASSWORDS, problems=problems)
    line = snapshots.to_json(sent)
    assert "\n" not in line
    assert snapshots.from_json(line) == sent


@pytest.mark.spec("THREAT-33")
def test_nothing_is_signed_by_what_a_silent_source_said_too_long_ago() -> None:
    good = snapshot(issuer(), ca_secret())
    before = build(good, Registry(), CLUSTER, now=NOW)
    stale = build(replace(good, stale=True), before, CLUSTER, now=NOW)
    assert (stale.issuers[KEY].ready, stale.issuers[KEY].reason, stale.issuers[KEY].authority) == (False, "SourceStale", None)
    invalid = build(snapshot(issuer(est={"lable": "x"}), ca_secret()), stale, CLUSTER, now=NOW)
    assert invalid.issuers[KEY].authority is before.issuers[KEY].authority
    assert build(replace(snapshot(issuer(est={"lable": "x"})), stale=True), invalid, CLUSTER, now=NOW).issuers[KEY].authority is None
    again = build(good, stale, CLUSTER, now=NOW).issuers[KEY]
    assert again.ready
    assert again.authority is before.issuers[KEY].authority
    assert snapshots.from_json(snapshots.to_json(replace(good, stale=True))).stale


@pytest.mark.spec("THREAT-36")
def test_secret_data_is_not_in_a_repr() -> None:
    found = judge(issuer(est=BASIC), ca_secret(), PASSWORDS)
    assert "correct horse" not in repr(found) + repr(snapshot(PASSWORDS))
    assert "PRIVATE KEY" not in repr(found)


# ---- a key roll-over, further labels


@pytest.mark.spec("EST-KEYUPD-01", "EST-CACERTS-05")
def test_a_roll_over_set_in_the_secret_is_in_cacerts_from_the_next_registry_on() -> None:
    old_key, old_crt = ca_pem(begin=NOW - timedelta(days=3000), days=3300)
    new_key, new_crt = ca_pem(days=3650)
    old, new = x509.load_pem_x509_certificate(old_crt), x509.load_pem_x509_certificate(new_crt)
    keys = [serialization.load_pem_private_key(pem, None) for pem in (old_key, new_key)]
    links = roll_over.link_certificates(old, keys[0], new, keys[1], serials=(next_serial(), next_serial()))  # type: ignore[arg-type]  # EC keys
    rollover = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in (old, *links))
    before = build(snapshot(issuer(), secret("factory-ca", {"tls.crt": old_crt, "tls.key": old_key})), Registry(), CLUSTER, now=NOW)
    members = {"tls.crt": new_crt, "tls.key": new_key, "rollover.crt": rollover}
    after = build(snapshot(issuer(), secret("factory-ca", members)), before, CLUSTER, now=NOW)
    (made,) = after.issuers.values()
    assert made.ready
    assert set(certs_only.decode(transfer.decode_body(made.cacerts_body))) == {old, new, *links}


@pytest.mark.spec("EST-URI-04", "EST-URI-05")
def test_an_issuer_answers_at_each_of_its_labels_and_takes_none_of_anothers() -> None:
    first = issuer("first", est={"label": "ca:12", "labels": ["enrol", "renew"]}, created=NOW)
    second = issuer("second", est={"label": "second", "labels": ["renew", "third"]}, created=NOW + timedelta(days=1))
    registry = build(snapshot(first, second, ca_secret()), Registry(), RegistrySettings(directory=True), now=NOW)
    names = {label: judged.name for label, judged in registry.by_label.items()}
    assert names == {"ca:12": "first", "enrol": "first", "renew": "first", "second": "second", "third": "second"}
    assert "renew" in registry.issuers["EstIssuer/devices/second"].message
    assert registry.issuers["EstIssuer/devices/second"].ready


@pytest.mark.spec("EST-URI-04")
def test_in_a_cluster_a_namespaced_issuer_has_further_labels_only_where_they_are_mapped() -> None:
    tenant = issuer("factory", est={"labels": ["factory", "grabbed"]})
    settings = RegistrySettings(labels={"factory": "devices/factory"})
    registry = build(snapshot(tenant, ca_secret()), Registry(), settings, now=NOW)
    assert set(registry.by_label) == {"factory", "devices.factory"}
    assert "grabbed" in registry.issuers["EstIssuer/devices/factory"].message


def test_an_operation_is_no_further_label() -> None:
    registry = build(snapshot(issuer(est={"labels": ["csrattrs"]}), ca_secret()), Registry(), RegistrySettings(directory=True), now=NOW)
    (judged,) = registry.issuers.values()
    assert judged.reason == "InvalidSpec"
    assert "csrattrs is the name of an EST operation" in judged.message


# ---- no tenant's Secret ends what the others have


class _FailingOn(SecretKeyStore):
    """A store that fails on one Secret as no store should, and says what it holds."""

    def __init__(self, secret: SecretManifest) -> None:
        self._secret = secret

    def open(self, secret: SecretManifest, *, now: datetime, external: bool = False) -> Authority:
        if secret == self._secret:
            raise KeyError(secret.data["tls.key"])
        return super().open(secret, now=now, external=external)


class _Unanswerable(dict[tuple[str, str], SecretProblem]):
    """A mapping that fails on one issuer's Secret: what is judged fails elsewhere than in a loader."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        if key == ("devices", "odd-ca"):
            raise KeyError(key)
        return super().get(key, default)


@pytest.mark.spec("THREAT-27")
def test_a_secret_that_a_loader_fails_on_is_that_issuers_fault_alone_and_told_once_without_what_it_holds() -> None:
    hostile = ca_secret("Evil CA", name="hostile")
    found = snapshot(issuer(), ca_secret(), issuer("evil", ca="hostile"), hostile)
    with structlog.testing.capture_logs() as logged:
        first = build(found, Registry(), CLUSTER, now=NOW, key_store=_FailingOn(hostile))
        again = build(found, first, CLUSTER, now=NOW, key_store=_FailingOn(hostile))
    for registry in (first, again):
        assert registry.issuers[KEY].ready
        evil = registry.issuers["EstIssuer/devices/evil"]
        assert (evil.ready, evil.authority, evil.reason) == (False, None, "SecretInvalidData")
        assert evil.message == "Secret devices/hostile: it cannot be read (KeyError)"
    (line,) = logged
    assert (line["where"], line["error"]) == ("Secret devices/hostile", "KeyError")
    assert "test_issuers.py" in line["exception"]
    assert "PRIVATE KEY" not in repr(logged)


@pytest.mark.spec("THREAT-27")
def test_a_secret_that_a_loader_comes_to_fail_on_leaves_the_last_good_ca() -> None:
    before = judge(issuer(), ca_secret())
    changed = ca_secret("New CA")
    found = build(snapshot(issuer(), changed), before, CLUSTER, now=NOW, key_store=_FailingOn(changed)).issuers[KEY]
    assert found.ready
    assert found.authority is before.issuers[KEY].authority
    assert found.reason == "SecretInvalidData"


@pytest.mark.spec("THREAT-27")
def test_an_issuer_that_cannot_be_judged_signs_nothing_and_no_other_one_suffers() -> None:
    found_now = snapshot(issuer(), ca_secret(), issuer("odd", ca="odd-ca"), problems=_Unanswerable({("", ""): SecretProblem("", "")}))
    with structlog.testing.capture_logs() as logged:
        first = build(found_now, Registry(), CLUSTER, now=NOW)
        again = build(found_now, first, CLUSTER, now=NOW)
    for registry in (first, again):
        assert registry.issuers[KEY].ready
        found = registry.issuers["EstIssuer/devices/odd"]
        assert (found.ready, found.authority, found.reason) == (False, None, "InternalError")
    assert [line["issuer"] for line in logged] == ["EstIssuer/devices/odd"]
