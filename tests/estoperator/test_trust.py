"""What is published of an issuer's trust, and what is to be done about what is there."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from estcore import roll_over
from estcore.authority import load
from estcore.issuer_spec import TrustConfigMap
from estoperator import chain, trust
from estoperator.resources import IssuerRef
from estoperator.trust import LIVE_LABEL, UID_LABEL, Place, Trust
from tests import pki
from tests.estoperator.builders import FACTORY, NOW, authority

CLUSTER = IssuerRef("EstClusterIssuer", "", "fleet")


def anchors(*certificates: x509.Certificate, now: Any = NOW) -> list[x509.Certificate]:
    pem = trust.anchors_pem(chain.chains(pki.pem(*certificates)), now=now)
    return x509.load_pem_x509_certificates(pem.encode()) if pem else []


def published(pem: str = "A", *, uid: str = "u1", ref: IssuerRef = FACTORY, **metadata: Any) -> dict[str, Any]:
    body = trust.cluster_trust_bundle(Trust(ref=ref, uid=uid, anchors_pem=pem), version="v1")
    return {"spec": body["spec"], "metadata": {**body["metadata"], "uid": "o1", "resourceVersion": "3", **metadata}}


def wanted(pem: str = "A", *, uid: str = "u1", ref: IssuerRef = FACTORY) -> dict[str, Any]:
    return trust.cluster_trust_bundle(Trust(ref=ref, uid=uid, anchors_pem=pem), version="v1")


def planned(listed: list[Any], due: list[Any], *, known: tuple[str, ...] = (), settled: tuple[str, ...] = ()) -> trust.Plan:
    return trust.plan(listed, due, known_uids=known.__contains__, settled_uids=frozenset(settled))


@pytest.mark.parametrize(
    ("ref", "signer", "name"),
    [
        (FACTORY, "estissuers.est-issuer.io/devices.factory", "estissuers.est-issuer.io:devices.factory:live"),
        (CLUSTER, "estclusterissuers.est-issuer.io/fleet", "estclusterissuers.est-issuer.io:fleet:live"),
    ],
)
def test_a_bundle_is_the_signers_by_name_and_labelled_live_with_the_issuers_uid(ref: IssuerRef, signer: str, name: str) -> None:
    body = wanted(ref=ref)
    assert body["apiVersion"] == "certificates.k8s.io/v1"
    assert body["spec"] == {"signerName": signer, "trustBundle": "A"}
    assert body["metadata"]["name"] == name
    assert body["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "est-issuer", LIVE_LABEL: "live", UID_LABEL: "u1"}


def test_of_an_intermediate_ca_the_root_is_the_anchor_and_of_one_without_its_root_what_is_highest() -> None:
    root = pki.ca("Root")
    middle = pki.ca("Middle", issuer=root)
    low = pki.ca("Low", issuer=middle)
    assert anchors(low.certificate, middle.certificate, root.certificate) == [root.certificate]
    assert anchors(low.certificate, middle.certificate) == [middle.certificate]


@pytest.mark.spec("EST-KEYUPD-01")
def test_while_the_key_rolls_over_both_roots_are_anchors_and_no_link_is() -> None:
    old, new = pki.ca("Factory CA"), pki.ca("Factory CA", private_key=pki.key(owner="the new key"))
    assert isinstance(old.key, ec.EllipticCurvePrivateKey)
    assert isinstance(new.key, ec.EllipticCurvePrivateKey)
    links = roll_over.link_certificates(old.certificate, old.key, new.certificate, new.key, serials=(7, 8))
    assert anchors(new.certificate, old.certificate, *links) == [new.certificate, old.certificate]


@pytest.mark.spec("EST-KEYUPD-01")
@pytest.mark.parametrize("root_known", [False, True])
def test_a_root_that_became_an_intermediate_leaves_its_old_self_and_an_anchor_of_what_is_signed_now(*, root_known: bool) -> None:
    company = pki.ca("Company Root", private_key=pki.key(owner="company"))
    old = pki.ca("Factory CA")
    new = pki.ca("Factory CA", private_key=pki.key(owner="the new key"), issuer=company)
    loaded = load(
        certificate_chain_pem=pki.pem(new.certificate),
        private_key_pem=pki.key_pem(new.key),
        root_pem=pki.pem(company.certificate) if root_known else None,
        rollover_pem=pki.pem(old.certificate),
        now=NOW,
        where="Secret devices/factory-ca",
    )
    highest = company.certificate if root_known else new.certificate
    published = anchors(*loaded.certificates)
    assert published == [highest, old.certificate], "that of the signing CA is first"
    known = chain.chains(pki.pem(*loaded.certificates))
    for signer in (new, old):
        leaf = pki.leaf(signer, subject=pki.name("web"), sans=pki.dns("web.devices.svc"))
        written, _ = chain.deliver(leaf, spki_der=pki.spki_der(leaf.public_key()), known=known, now=NOW)
        presented = x509.load_pem_x509_certificates(written)
        verifier = verification.PolicyBuilder().store(verification.Store(published)).time(NOW).build_client_verifier()
        verifier.verify(presented[0], presented[1:])  # raises where what a workload mounts does not verify what another one shows


def test_an_anchor_that_has_expired_is_left_out_and_none_comes_twice() -> None:
    ca = authority().certificate
    assert anchors(ca, ca) == [ca]
    assert anchors(ca, now=ca.not_valid_after_utc + timedelta(seconds=1)) == []


def test_the_pem_has_nothing_but_certificates() -> None:
    pem = trust.anchors_pem(chain.chains(authority().pem), now=NOW)
    assert pem == authority().certificate.public_bytes(Encoding.PEM).decode()


def test_what_is_missing_is_created_and_what_says_so_already_is_left() -> None:
    assert planned([], [wanted()]).create == (wanted(),)
    assert planned([published(labels={**published()["metadata"]["labels"], "team": "pki"})], [wanted()], settled=("u1",)) == trust.Plan()


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(published("B"), id="another-ca"),
        pytest.param(published(uid="u0"), id="of-an-issuer-of-that-name-before"),
        pytest.param(published(labels={UID_LABEL: "u1", "team": "pki"}), id="a-label-removed"),
    ],
)
def test_what_says_something_else_is_replaced_for_the_version_that_was_seen(there: dict[str, Any]) -> None:
    (replaced,) = planned([there], [wanted()], settled=("u1",)).replace
    assert replaced["spec"] == wanted()["spec"]
    assert replaced["metadata"]["resourceVersion"] == "3"
    assert replaced["metadata"]["labels"] == {**there["metadata"]["labels"], **wanted()["metadata"]["labels"]}


def test_other_peoples_annotations_stay() -> None:
    (replaced,) = planned([published("B", annotations={"note": "x"})], [wanted()]).replace
    assert replaced["metadata"]["annotations"] == {"note": "x"}


def test_what_belongs_to_no_issuer_is_an_orphan_and_never_simply_removed() -> None:
    there = published(uid="gone")
    assert planned([there], []) == trust.Plan(orphans=(there,))


def test_what_an_issuer_has_whose_trust_is_not_known_now_stays() -> None:
    assert planned([published()], [], known=("u1",)) == trust.Plan()


def test_what_a_known_issuer_no_longer_wants_is_removed() -> None:
    there = published()
    assert planned([there], [], known=("u1",), settled=("u1",)) == trust.Plan(remove=(there,))


def asking(ref: IssuerRef, selector: dict[str, Any] | None = None, *, name: str = "roots", uid: str = "u1") -> Trust:
    config_map = TrustConfigMap.model_validate({"name": name, **({} if selector is None else {"namespaceSelector": selector})})
    return Trust(ref=ref, uid=uid, anchors_pem="A", config_map=config_map)


def test_an_est_issuers_config_map_is_in_its_own_namespace_whatever_it_selects() -> None:
    for selector in (None, {}, {"matchLabels": {"team": "x"}}):
        made, _ = trust.config_maps([asking(FACTORY, selector)], {"": ["devices", "lab"], "team=x": ["lab"]})
        assert set(made) == {Place("devices", "roots")}


def test_a_cluster_issuers_config_maps_are_in_the_namespaces_that_it_selects_and_without_a_selector_in_none() -> None:
    made, _ = trust.config_maps([asking(CLUSTER, {})], {"": ["apps", "lab"]})
    assert set(made) == {Place("apps", "roots"), Place("lab", "roots")}
    body = made[Place("apps", "roots")]
    assert body["data"] == {"ca.crt": "A"}
    assert body["metadata"]["labels"][UID_LABEL] == "u1"
    assert trust.config_maps([asking(CLUSTER)], {}) == ({}, {})


def test_of_two_that_ask_for_one_place_the_cluster_issuer_has_it_and_the_other_is_named() -> None:
    made, disputed = trust.config_maps([asking(FACTORY, uid="u2"), asking(CLUSTER, {})], {"": ["devices"]})
    assert made[Place("devices", "roots")]["metadata"]["labels"][UID_LABEL] == "u1"
    assert {at: one.ref for at, one in disputed.items()} == {Place("devices", "roots"): FACTORY}


def test_what_somebody_added_to_a_config_map_is_no_longer_what_we_say() -> None:
    (due,) = trust.config_maps([asking(FACTORY)], {})[0].values()
    there = {**due, "binaryData": {"x": "eA=="}, "metadata": {**due["metadata"], "uid": "o1", "resourceVersion": "3"}}
    (replaced,) = planned([there], [due], settled=("u1",)).replace
    assert "binaryData" not in replaced
