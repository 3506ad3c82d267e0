"""Snapshots for tests: issuers and CA Secrets as a source would have read them."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from estcore import authority
from estcore.issuer_spec import Generate, KeyAlgorithm
from estserver.snapshot import TYPE_TLS, IssuerKind, IssuerManifest, SecretManifest, SecretProblem, Snapshot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_serials = itertools.count(1 << 128)


def next_serial() -> int:
    return next(_serials)


def ca_pem(
    common_name: str = "Factory CA", *, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, begin: datetime = NOW, days: int = 3650
) -> tuple[bytes, bytes]:
    """(key PEM, certificate PEM) of a root, the same for the same arguments."""
    return _ca_pem(common_name, algorithm, begin, days)


@cache
def _ca_pem(common_name: str, algorithm: KeyAlgorithm, begin: datetime, days: int) -> tuple[bytes, bytes]:
    spec = Generate(common_name=common_name, key_algorithm=algorithm, duration=timedelta(days=days))
    return authority.generate_ca(spec, now=begin, serial=next_serial())


def ca_secret(common_name: str = "Factory CA", *, name: str = "factory-ca", namespace: str = "devices", **more: Any) -> SecretManifest:
    key_pem, certificate_pem = ca_pem(common_name, **more)
    return secret(name, {"tls.crt": certificate_pem, "tls.key": key_pem, "ca.crt": certificate_pem}, namespace=namespace)


def secret(name: str, data: Mapping[str, bytes], *, namespace: str = "devices", kind: str = TYPE_TLS) -> SecretManifest:
    return SecretManifest(namespace=namespace, name=name, type=kind, data=data)


def issuer(
    name: str = "factory",
    *,
    kind: IssuerKind = "EstIssuer",
    namespace: str = "devices",
    generation: int = 1,
    uid: str = "",
    created: datetime = NOW,
    ca: str = "factory-ca",
    **spec: Any,
) -> IssuerManifest:
    return IssuerManifest(
        kind=kind,
        namespace="" if kind == "EstClusterIssuer" else namespace,
        name=name,
        uid=uid or f"uid-of-{name}",
        generation=generation,
        created=created,
        spec={"ca": {"secretName": ca}, **spec},
    )


def snapshot(*things: IssuerManifest | SecretManifest, problems: Mapping[tuple[str, str], SecretProblem] | None = None) -> Snapshot:
    return Snapshot(
        issuers=tuple(thing for thing in things if isinstance(thing, IssuerManifest)),
        secrets={(thing.namespace, thing.name): thing for thing in things if isinstance(thing, SecretManifest)},
        secret_problems=problems or {},
    )
