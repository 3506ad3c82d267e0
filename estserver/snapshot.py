"""What an issuer source saw at one moment: issuers and the Secrets they name, as plain values.

A source (directory, Kubernetes, pipe) makes a Snapshot; `issuers.build` judges it. Nothing here judges anything, and nothing
here is shown to a client or written to a log: Secret data is in it, so `repr` leaves the bytes out.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

IssuerKind = Literal["EstIssuer", "EstClusterIssuer"]
ISSUER_KINDS: tuple[IssuerKind, ...] = ("EstIssuer", "EstClusterIssuer")

SecretKey = tuple[str, str]
"""(namespace, name) of a Secret."""

TYPE_TLS = "kubernetes.io/tls"
TYPE_BASIC_AUTH = "kubernetes.io/basic-auth"
TYPE_OPAQUE = "Opaque"

NEVER_CREATED = datetime(1970, 1, 1, tzinfo=UTC)
"""`created` of a manifest that a person keeps in a file: no API server stamped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerManifest:
    """One EstIssuer or EstClusterIssuer as it was read, its spec not yet parsed.

    `namespace` is empty for an EstClusterIssuer. `created` is aware UTC.
    """

    kind: IssuerKind
    namespace: str
    name: str
    uid: str
    generation: int
    created: datetime
    spec: Mapping[str, Any]

    @property
    def key(self) -> str:
        """`EstIssuer/devices/factory`, `EstClusterIssuer/factory`: what the ledger calls the issuer."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretManifest:
    """One Secret: `data` decoded, and of a Secret from the Kubernetes API only the members that its use needs."""

    namespace: str
    name: str
    type: str
    data: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretProblem:
    """Why a Secret cannot be read: `reason` of the condition and a sentence for a person.

    `absent`: it is known not to exist, so nothing that was read from it before goes on.
    """

    reason: str
    message: str
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a source knows at one moment.

    A Secret may be in both maps: then it is the last one read, and can no longer be read. In neither means that it does not exist.
    `stale`: nothing was heard of the source for longer than the administrator permits, so nothing may be signed by it.
    """

    issuers: tuple[IssuerManifest, ...] = ()
    secrets: Mapping[SecretKey, SecretManifest] = field(default_factory=dict)
    secret_problems: Mapping[SecretKey, SecretProblem] = field(default_factory=dict)
    stale: bool = False


EMPTY = Snapshot()


def to_json(snapshot: Snapshot) -> str:
    """One line of JSON for the pipe between the watching process and its workers; `from_json` reads it back equal."""
    return json.dumps(
        {
            "issuers": [
                {
                    "kind": issuer.kind,
                    "namespace": issuer.namespace,
                    "name": issuer.name,
                    "uid": issuer.uid,
                    "generation": issuer.generation,
                    "created": issuer.created.isoformat(),
                    "spec": issuer.spec,
                }
                for issuer in snapshot.issuers
            ],
            "stale": snapshot.stale,
            "secrets": [
                {
                    "namespace": secret.namespace,
                    "name": secret.name,
                    "type": secret.type,
                    "data": {member: base64.b64encode(value).decode() for member, value in secret.data.items()},
                }
                for secret in snapshot.secrets.values()
            ],
            "problems": [
                [namespace, name, problem.reason, problem.message, problem.absent]
                for (namespace, name), problem in snapshot.secret_problems.items()
            ],
        }
    )


def from_json(line: str | bytes) -> Snapshot:
    """The inverse of `to_json`; only ever reads what another process of the same program wrote."""
    raw = json.loads(line)
    secrets = [
        SecretManifest(
            namespace=secret["namespace"],
            name=secret["name"],
            type=secret["type"],
            data={member: base64.b64decode(value) for member, value in secret["data"].items()},
        )
        for secret in raw["secrets"]
    ]
    return Snapshot(
        stale=raw["stale"],
        issuers=tuple(IssuerManifest(**{**issuer, "created": datetime.fromisoformat(issuer["created"])}) for issuer in raw["issuers"]),
        secrets={(secret.namespace, secret.name): secret for secret in secrets},
        secret_problems={(namespace, name): SecretProblem(*problem) for namespace, name, *problem in raw["problems"]},
    )
