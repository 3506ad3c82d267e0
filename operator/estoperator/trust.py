"""What goes out of an issuer's trust, and what is to be done about what is out already. Pure.

Trust anchors only: roots, old and new while a CA's key rolls over, or the highest certificate that is known where the root is not. The
links of a roll-over and the intermediates are in status.ca.bundle and /cacerts; an anchor that is one of those would weaken the path.

Everything published says by a label whose it is: a cluster-scoped object cannot be owned by a namespaced one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.issuer_spec import TrustConfigMap
from estoperator.chain import Chain
from estoperator.doors import GROUP, ISSUER_PLURALS
from estoperator.kept_roots import Anchors
from estoperator.resources import IssuerRef, Object

UID_LABEL = f"{GROUP}/issuer-uid"
LIVE_LABEL = f"{GROUP}/trust"
LIVE = "live"
"""Value of LIVE_LABEL, and the free part of a bundle's name: what is trusted now, as against a canary (KEP-3257)."""

MANAGED_BY = {"app.kubernetes.io/managed-by": "est-issuer"}
ANCHORS_KEY = "ca.crt"
CERTIFICATES_GROUP = "certificates.k8s.io"


class Place(NamedTuple):
    """Where an object is; `namespace` is empty for a cluster-scoped one."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What one issuer gives out: its trust anchors as PEM."""

    ref: IssuerRef
    uid: str
    anchors_pem: str = field(repr=False)
    config_map: TrustConfigMap | None = None
    max_life: timedelta = timedelta(0)
    """How long a certificate of the issuer lives at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do so that the objects say what they should.

    `orphans` are whose issuer nobody knows: to be removed once it is certain that it is gone.
    """

    create: tuple[Object, ...] = ()
    replace: tuple[Object, ...] = ()
    remove: tuple[Object, ...] = ()
    orphans: tuple[Object, ...] = ()


def signer_name(ref: IssuerRef) -> str:
    """The signer that the issuer is, as in a CertificateSigningRequest."""
    scoped = f"{ref.namespace}.{ref.name}" if ref.namespace else ref.name
    return f"{ISSUER_PLURALS[ref.kind]}.{GROUP}/{scoped}"


def bundle_name(ref: IssuerRef) -> str:
    """The name of its ClusterTrustBundle: the API demands the signer name, with `:` for `/`, before a free part."""
    return f"{signer_name(ref).replace('/', ':')}:{LIVE}"


def anchors_pem(chains: Sequence[Chain], *, now: datetime) -> str:
    """The trust anchors of an issuer's CA certificates that have not expired, each once, that of the signing CA first; PEM.

    The root of each, or what is highest where the root is not known: an old root does not stand for a CA that another root now certifies.
    Empty where all have expired.
    """
    tops = [x509.load_pem_x509_certificate(pem) for pem in dict.fromkeys(chain.ca_pem for chain in chains)]
    return "".join(top.public_bytes(Encoding.PEM).decode("ascii") for top in tops if now <= top.not_valid_after_utc)


def cluster_trust_bundle(trust: Trust, *, version: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The ClusterTrustBundle of an issuer, in a version of certificates.k8s.io."""
    return {
        "apiVersion": f"{CERTIFICATES_GROUP}/{version}",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": bundle_name(trust.ref), "labels": labels(trust), "annotations": dict(annotations or {})},
        "spec": {"signerName": signer_name(trust.ref), "trustBundle": trust.anchors_pem},
    }


def anchors_of_bundle(body: Object) -> Anchors:
    """What a ClusterTrustBundle holds."""
    return Anchors(pem=(body.get("spec") or {}).get("trustBundle") or "", annotations=body["metadata"].get("annotations") or {})


def anchors_of_config_map(body: Object) -> Anchors:
    """What a ConfigMap holds."""
    return Anchors(pem=(body.get("data") or {}).get(ANCHORS_KEY) or "", annotations=body["metadata"].get("annotations") or {})


def memory_name(uid: str) -> str:
    """The name of the ConfigMap that remembers an issuer's roots where no bundle does."""
    return f"est-issuer-roots-{uid}"


def config_map(trust: Trust, at: Place, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The ConfigMap of an issuer in one namespace."""
    metadata: dict[str, Any] = {"namespace": at.namespace, "name": at.name, "labels": labels(trust)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {ANCHORS_KEY: trust.anchors_pem}}


def config_maps(trusts: Iterable[Trust], namespaces: Mapping[str, Sequence[str]]) -> tuple[dict[Place, Object], dict[Place, Trust]]:
    """The ConfigMaps that there should be, and the places that a second issuer asks for, by what that one gives out.

    `namespaces` has the names for each selector's query. An EstIssuer's is in its own namespace whatever it selects; where two ask for one
    place, an EstClusterIssuer comes first.
    """
    made: dict[Place, Object] = {}
    disputed: dict[Place, Trust] = {}
    for trust in sorted(trusts, key=lambda trust: trust.ref):
        if trust.config_map is None:
            continue
        selector = trust.config_map.namespace_selector
        selected = namespaces[selector.query] if selector is not None and not trust.ref.namespace else ()
        for namespace in (trust.ref.namespace,) if trust.ref.namespace else selected:
            at = Place(namespace, trust.config_map.name)
            if at in made:
                disputed[at] = trust
            else:
                made[at] = config_map(trust, at)
    return made, disputed


def labels(trust: Trust) -> dict[str, str]:
    """The labels of all that is published of an issuer."""
    return {**MANAGED_BY, LIVE_LABEL: LIVE, UID_LABEL: trust.uid}


def plan(listed: Iterable[Object], wanted: Iterable[Object], *, known_uids: Callable[[str], bool], settled_uids: frozenset[str]) -> Plan:
    """Compare what is there, under our label, with what should be.

    `known_uids` says whether there is an issuer with a uid; `settled_uids` are those whose trust is known, so that what is not wanted
    of them is to go. What there is of an issuer whose trust is not known at the moment stays as it is.
    """
    there = {place(body): body for body in listed}
    due = {place(body): body for body in wanted}
    uids = {at: body["metadata"]["labels"][UID_LABEL] for at, body in there.items() if at not in due}
    return Plan(
        create=tuple(body for at, body in due.items() if at not in there),
        replace=tuple(_replaced(there[at], body) for at, body in due.items() if at in there and not _says(there[at], body)),
        remove=tuple(there[at] for at, uid in uids.items() if uid in settled_uids),
        orphans=tuple(there[at] for at, uid in uids.items() if uid not in settled_uids and not known_uids(uid)),
    )


def place(body: Object) -> Place:
    """Where an object is."""
    return Place(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def collection_in(collection: str, namespace: str) -> str:
    """The path of a collection in one namespace; empty for a cluster-scoped one."""
    root, _, plural = collection.rpartition("/")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else collection


def _says(there: Object, wanted: Object) -> bool:
    said = all(
        (there["metadata"].get(part) or {}).get(name) == value
        for part in ("labels", "annotations")
        for name, value in (wanted["metadata"].get(part) or {}).items()
    )
    return said and _content(there) == _content(wanted)


def _content(body: Object) -> Mapping[str, Any]:
    return {name: body[name] for name in ("spec", "data", "binaryData") if body.get(name)}


def _replaced(there: Object, wanted: Object) -> Object:
    """What is there with our content and labels; other people's labels and annotations stay."""
    merged = {part: {**(there["metadata"].get(part) or {}), **(wanted["metadata"].get(part) or {})} for part in ("labels", "annotations")}
    return {**wanted, "metadata": {**there["metadata"], **merged}}
