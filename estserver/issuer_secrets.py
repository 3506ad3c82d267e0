"""Everything that one issuer reads from Secrets, and what of it is still the last good state.

What cannot be loaded keeps what was loaded before from the very same Secrets, and says so; of several Secrets of one use each does so
on its own, for who was taken out of one of them is out whatever is wrong with another. A Secret that was deleted keeps nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog
from cryptography import x509

from estcore import trust, wrapping_keys
from estcore.authority import Authority
from estcore.errors import ConfigurationError
from estcore.issuer_spec import IssuerSpec
from estcore.wrapping_keys import WrappingKeys
from estserver import digests, logs, one_time_passwords, passwords, shared_secrets
from estserver.digests import Digests
from estserver.keystore import KeyStore
from estserver.one_time_passwords import OneTimePasswords
from estserver.passwords import Passwords
from estserver.secret_uses import SecretReference, SecretUse, check_fits, references
from estserver.shared_secrets import SharedSecrets
from estserver.snapshot import SecretManifest, Snapshot

T = TypeVar("T")
log = structlog.get_logger(__name__)

Anchors = Mapping[str, tuple[x509.Certificate, ...]]
"""Name of a Secret → the trust anchors in it: one way to authenticate never trusts what another one names."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """Something read from Secrets: the last good value, what it was read from, and what is wrong with them now."""

    value: T | None = None
    secrets: tuple[SecretManifest, ...] = field(default=(), repr=False)
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSecrets:
    """What one issuer reads, by use. A use that the spec does not name has no value and no reason."""

    ca: Loaded[Authority] = Loaded()
    anchors: Loaded[Anchors] = Loaded()
    passwords: Loaded[Passwords] = Loaded()
    digests: Loaded[Digests] = Loaded()
    one_time_passwords: Loaded[OneTimePasswords] = Loaded()
    shared_secrets: Loaded[SharedSecrets] = Loaded()
    wrapping_keys: Loaded[WrappingKeys] = Loaded()

    @property
    def all(self) -> tuple[Loaded[Any], ...]:
        """Each use, the CA's first."""
        return (
            *(self.ca, self.anchors, self.passwords, self.digests, self.one_time_passwords),
            *(self.shared_secrets, self.wrapping_keys),
        )

    @property
    def reasons(self) -> tuple[tuple[str, str, bool], ...]:
        """Reason, message and whether nothing stands in, for each use that something is wrong with; the CA's is first."""
        return tuple((loaded.reason, loaded.message, loaded.value is None) for loaded in self.all if loaded.reason)


NO_SECRETS: Final = IssuerSecrets()


def load(spec: IssuerSpec, snapshot: Snapshot, previous: IssuerSecrets, store: KeyStore, *, namespace: str, now: datetime) -> IssuerSecrets:
    """Load what `spec` names in `namespace`, keeping from `previous` what did not change or is the last good state. Never raises."""
    needed = references(spec, namespace=namespace)
    external = spec.signer is not None
    former_ca = previous.ca if previous.ca.value is None or previous.ca.value.holds_key is not external else Loaded()

    def of(use: SecretUse, before: Loaded[T], read: Callable[[tuple[SecretManifest, ...]], T]) -> Loaded[T]:
        mine = [reference for reference in needed if reference.use is use]
        return _load(mine, snapshot, before, lambda secrets: _read(secrets, read, before.message))

    return IssuerSecrets(
        ca=of(SecretUse.CA, former_ca, lambda secrets: store.open(secrets[0], now=now, external=external)),
        anchors=of(SecretUse.ANCHORS, previous.anchors, _load_anchors),
        passwords=of(SecretUse.PASSWORDS, previous.passwords, passwords.load),
        digests=of(SecretUse.DIGESTS, previous.digests, digests.load),
        one_time_passwords=of(SecretUse.ONE_TIME_PASSWORDS, previous.one_time_passwords, one_time_passwords.load),
        shared_secrets=of(SecretUse.SHARED_SECRETS, previous.shared_secrets, shared_secrets.load),
        wrapping_keys=of(SecretUse.WRAPPING_KEYS, previous.wrapping_keys, _load_wrapping_keys),
    )


def _load(
    needed: list[SecretReference], snapshot: Snapshot, previous: Loaded[T], load: Callable[[tuple[SecretManifest, ...]], T]
) -> Loaded[T]:
    """Load from the Secrets, or from those that can be used and the last good state of the others."""
    if not needed:
        return Loaded()
    problem = next((found for reference in needed if (found := snapshot.secret_problems.get(reference.key))), None)
    try:
        secrets = tuple(_find(reference, snapshot) for reference in needed)
        value = previous.value if previous.value is not None and previous.secrets == secrets else load(secrets)
        if problem is None:
            return Loaded(value, secrets)
        return Loaded(value, secrets, problem.reason, f"{problem.message}; still using what was read before")
    except ConfigurationError as error:
        reason = "SecretInvalidData" if error.reason == ConfigurationError.reason else error.reason
        same_secrets = [(secret.namespace, secret.name) for secret in previous.secrets] == [reference.key for reference in needed]
        if previous.value is None or not same_secrets or any(_is_absent(reference, snapshot) for reference in needed):
            return Loaded(None, (), reason, error.message)
        kept = _each_on_its_own(needed, snapshot, previous, load)
        return replace(kept, reason=reason, message=f"{error.message}; still using the {needed[0].use} loaded before")


def _each_on_its_own(
    needed: list[SecretReference], snapshot: Snapshot, previous: Loaded[T], load: Callable[[tuple[SecretManifest, ...]], T]
) -> Loaded[T]:
    """Those of the Secrets that can be used, each of the others as it was last good."""
    usable = tuple(_usable(reference, snapshot, before, load) for reference, before in zip(needed, previous.secrets, strict=True))
    if usable == previous.secrets:
        return previous
    with suppress(ConfigurationError):
        return Loaded(load(usable), usable)
    kept = previous
    for index, secret in enumerate(usable):  # each is in order and together they are not: one user in two of them
        secrets = (*kept.secrets[:index], secret, *kept.secrets[index + 1 :])
        if secrets != kept.secrets:
            with suppress(ConfigurationError):
                kept = Loaded(load(secrets), secrets)
    return kept


def _usable(
    reference: SecretReference, snapshot: Snapshot, before: SecretManifest, load: Callable[[tuple[SecretManifest, ...]], T]
) -> SecretManifest:
    with suppress(ConfigurationError):
        secret = _find(reference, snapshot)
        if secret != before:
            load((secret,))
            return secret
    return before


def _read(secrets: tuple[SecretManifest, ...], load: Callable[[tuple[SecretManifest, ...]], T], told_before: str) -> T:
    """What is in the Secrets. Whatever a loader fails with on what a tenant wrote, that tenant's issuer fails and no other."""
    try:
        return load(secrets)
    except ConfigurationError:
        raise
    except Exception as error:
        where = ", ".join(f"Secret {secret.namespace}/{secret.name}" for secret in secrets)
        wrong = ConfigurationError(f"it cannot be read ({type(error).__name__})", where=where, reason="SecretInvalidData")
        if wrong.message not in told_before:
            log.error("a Secret could not be read", where=where, **logs.fault(error))  # noqa: TRY400
        raise wrong from error


def _is_absent(reference: SecretReference, snapshot: Snapshot) -> bool:
    problem = snapshot.secret_problems.get(reference.key)
    return reference.key not in snapshot.secrets and (problem is None or problem.absent)


def _find(reference: SecretReference, snapshot: Snapshot) -> SecretManifest:
    secret = snapshot.secrets.get(reference.key)
    if secret is None:
        problem = snapshot.secret_problems.get(reference.key)
        if problem is not None:
            raise ConfigurationError(problem.message, where=str(reference), reason=problem.reason)
        raise ConfigurationError(
            f"it does not exist, and {reference.use} should be read from it", where=str(reference), reason="SecretMissing"
        )
    check_fits(secret, reference.use)
    return secret


def _load_wrapping_keys(secrets: tuple[SecretManifest, ...]) -> WrappingKeys:
    (secret,) = secrets
    return wrapping_keys.load(secret.data, where=f"Secret {secret.namespace}/{secret.name}")


def _load_anchors(secrets: tuple[SecretManifest, ...]) -> Anchors:
    anchors: dict[str, tuple[x509.Certificate, ...]] = {}
    for secret in secrets:
        where = f"Secret {secret.namespace}/{secret.name}"
        if not secret.data.get("ca.crt", b"").strip():
            raise ConfigurationError("it is missing or empty", where=where, field="ca.crt", reason="SecretInvalidData")
        anchors[secret.name] = trust.load_anchors(secret.data["ca.crt"], where=where)
    return anchors
