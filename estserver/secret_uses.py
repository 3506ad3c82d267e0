"""Which Secrets an issuer names, what for, and which members of them are read.

A namespaced issuer names Secrets of its own namespace, a cluster issuer those of the install namespace; no manifest has a field
for another namespace. A Secret is read only if its type fits its use, so an issuer cannot be pointed at somebody's token or
registry password to learn of it (threats row 21): of any other Secret nothing is kept but its type.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from estcore.errors import ConfigurationError
from estcore.issuer_spec import Generate, IssuerSpec
from estserver.snapshot import TYPE_BASIC_AUTH, TYPE_OPAQUE, TYPE_TLS, SecretKey, SecretManifest

MAX_SECRET_OCTETS = 1024 * 1024  # what the Kubernetes API itself permits


class SecretUse(StrEnum):
    """What an issuer needs a Secret for."""

    CA = "CA"
    ANCHORS = "trust anchors"
    PASSWORDS = "passwords"
    DIGESTS = "digests"
    ONE_TIME_PASSWORDS = "one-time passwords"
    SHARED_SECRETS = "shared secrets"
    WRAPPING_KEYS = "wrapping keys"


MEMBERS: Mapping[tuple[SecretUse, str], frozenset[str] | None] = {
    (SecretUse.CA, TYPE_TLS): frozenset({"tls.crt", "tls.key", "ca.crt", "rollover.crt"}),
    (SecretUse.ANCHORS, TYPE_OPAQUE): frozenset({"ca.crt"}),
    (SecretUse.ANCHORS, TYPE_TLS): frozenset({"ca.crt"}),
    (SecretUse.PASSWORDS, TYPE_BASIC_AUTH): frozenset({"username", "password"}),
    (SecretUse.PASSWORDS, TYPE_OPAQUE): frozenset({"auth"}),
    (SecretUse.DIGESTS, TYPE_OPAQUE): frozenset({"digest"}),
    (SecretUse.ONE_TIME_PASSWORDS, TYPE_OPAQUE): frozenset({"otp"}),
    (SecretUse.SHARED_SECRETS, TYPE_OPAQUE): None,
    (SecretUse.WRAPPING_KEYS, TYPE_OPAQUE): None,
}
"""(use, type of the Secret) → the members read, None for all of them. A pair that is absent does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    """One Secret that an issuer names. `generate` is set for a CA that is to be made where the Secret is absent."""

    namespace: str
    name: str
    use: SecretUse
    generate: Generate | None = None

    @property
    def key(self) -> SecretKey:
        """(namespace, name)."""
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}"


def references(spec: IssuerSpec, *, namespace: str) -> tuple[SecretReference, ...]:
    """The Secrets that `spec` names, all in `namespace`, in the order of the manifest; the CA's is first."""
    found = [SecretReference(namespace=namespace, name=spec.ca.secret_name, use=SecretUse.CA, generate=spec.ca.generate)]
    for way in spec.est.authentication:
        if way.certificate is not None and way.certificate.ca_secret_name is not None:
            found.append(SecretReference(namespace=namespace, name=way.certificate.ca_secret_name, use=SecretUse.ANCHORS))
        for use, named in (
            (SecretUse.PASSWORDS, way.basic),
            (SecretUse.DIGESTS, way.digest),
            (SecretUse.ONE_TIME_PASSWORDS, way.one_time_password),
            (SecretUse.SHARED_SECRETS, way.cmc_shared_secret),
        ):
            if named is not None:
                found.append(SecretReference(namespace=namespace, name=named.secret_name, use=use))
    wrapping_keys = spec.est.server_key_generation.wrapping_keys
    if wrapping_keys is not None:
        found.append(SecretReference(namespace=namespace, name=wrapping_keys.secret_name, use=SecretUse.WRAPPING_KEYS))
    return tuple(dict.fromkeys(found))


def check_fits(secret: SecretManifest, use: SecretUse) -> None:
    """Raise ConfigurationError when the type of the Secret does not fit its use; says which types do."""
    if (use, secret.type) not in MEMBERS:
        types = " or ".join(kind for fitting, kind in MEMBERS if fitting is use)
        raise ConfigurationError(
            f"its type is {secret.type[:64]}, {use} are read from {types} only",
            where=f"Secret {secret.namespace}/{secret.name}",
            field="type",
            reason="SecretInvalidData",
        )


def trim(secret: SecretManifest, uses: Iterable[SecretUse]) -> SecretManifest:
    """The Secret with the members that `uses` read and nothing else: none at all where its type fits no use."""
    read = [MEMBERS.get((use, secret.type), frozenset()) for use in uses]
    if None in read:
        return secret
    kept = frozenset[str]().union(*(members for members in read if members is not None))
    return replace(secret, data={member: value for member, value in secret.data.items() if member in kept})
