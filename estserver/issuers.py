"""The issuers that this server answers for, judged from a Snapshot.

`build` is pure: snapshot and time in, Registry out. What cannot be loaded keeps what was loaded before, and says so:

* a broken, half-written or no longer readable Secret: the last good CA, passwords or anchors go on, the issuer stays Ready with
  the reason and a message (renewals are worth more than a tidy condition, and nothing is signed with what was not checked);
* a Secret that was deleted: not Ready, nothing goes on (taking the Secret away is how a person takes a CA out of use);
* an expired CA, or one below an expired certificate: not Ready and never signs, whatever else holds;
* a spec that does not parse: not Ready for the new generation, EST goes on by the spec before it and the Secrets as they are now;
* a source that was silent for too long: not Ready, nothing is signed by what may long have changed (threats row 33).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import certs_only, issuer_spec, transfer
from estcore.authority import Authority
from estcore.errors import ConfigurationError, IssuerNotReady
from estcore.issuer_spec import IssuerSpec
from estcore.recipient_info import DecryptionKey
from estcore.wrapping_keys import WrappingKeys
from estserver import issuer_secrets, logs
from estserver.digests import Digests
from estserver.issuer_secrets import NO_SECRETS, Anchors, IssuerSecrets
from estserver.keystore import KeyStore, SecretKeyStore
from estserver.labels import Given, RegistrySettings, assign_labels, default_key
from estserver.one_time_passwords import OneTimePasswords
from estserver.passwords import Passwords
from estserver.shared_secrets import SharedSecrets
from estserver.snapshot import IssuerManifest, Snapshot

log = structlog.get_logger(__name__)

__all__ = ["Issuer", "Issuers", "Registry", "RegistrySettings", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer, ready or not.

    `ready`, `reason` and `message` are what the operator publishes; the message is for administrators and never for anonymous
    clients. `authority` is what signs: EST answers wherever it is set, also while `ready` is false (a spec that does not parse, a
    password Secret that is not there yet); without it every operation is 503. Ask `usable_authority`, which also looks at the clock.
    """

    key: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    label: str | None
    spec: IssuerSpec | None
    authority: Authority | None
    ready: bool
    reason: str
    message: str
    cacerts_body: bytes = b""
    cacerts_body_wrapped: bytes = b""
    manifest: IssuerManifest
    parsed_from: Mapping[str, Any] | None = None
    """The manifest's spec that `spec` is: an earlier one while the manifest's does not parse."""
    refusal: str = ""
    """Why the manifest's spec does not parse."""
    secrets: IssuerSecrets = NO_SECRETS

    @property
    def anchors(self) -> Anchors:
        """Trust anchors of third parties' certificates, by the Secret that they are in."""
        return self.secrets.anchors.value or {}

    @property
    def passwords(self) -> Passwords | None:
        """Users of HTTP Basic; None where the spec names none, or nothing could be loaded."""
        return self.secrets.passwords.value

    @property
    def digests(self) -> Digests | None:
        """Users of HTTP Digest, likewise."""
        return self.secrets.digests.value

    @property
    def one_time_passwords(self) -> OneTimePasswords | None:
        """Passwords of otpChallenge, likewise."""
        return self.secrets.one_time_passwords.value

    @property
    def shared_secrets(self) -> SharedSecrets | None:
        """Secrets that prove identity in Full PKI Requests, likewise."""
        return self.secrets.shared_secrets.value

    @property
    def wrapping_keys(self) -> WrappingKeys | None:
        """What server-generated keys are encrypted with, likewise."""
        return self.secrets.wrapping_keys.value

    @property
    def decryption_keys(self) -> tuple[DecryptionKey, ...]:
        """What opens the envelope of a Full PKI Request. Never the CA's own key: it signs, and an oracle for it would sign too."""
        return tuple(self.wrapping_keys.symmetric.values()) if self.wrapping_keys is not None else ()

    def usable_authority(self, *, now: datetime) -> Authority:
        """The CA, where it may sign at `now`; raises IssuerNotReady, whose text tells a client nothing of the inside."""
        if self.authority is None or now >= self.authority.first_to_end.not_valid_after_utc:
            raise IssuerNotReady("this issuer is not ready; try again later")
        return self.authority


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All issuers at one moment. `by_label` may hold two labels of one issuer; `default` answers at the path without label."""

    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    by_label: Mapping[str, Issuer] = field(default_factory=dict)
    default: Issuer | None = None


class Issuers:
    """The one place where the current Registry is; a source replaces it whole, a request reads it once."""

    def __init__(self, current: Registry | None = None) -> None:
        self.current = current if current is not None else Registry()


def build(
    snapshot: Snapshot, previous: Registry, settings: RegistrySettings, *, now: datetime, key_store: KeyStore | None = None
) -> Registry:
    """Judge every issuer of the snapshot at `now`, keeping from `previous` what is still the last good state.

    Never raises for a bad manifest or Secret: the issuer says what is wrong. Source: threats row 27.
    """
    store = key_store if key_store is not None else SecretKeyStore()
    judged = {
        manifest.key: _judge_alone(manifest, snapshot, _same_object(previous.issuers.get(manifest.key), manifest), settings, store, now)
        for manifest in snapshot.issuers
    }
    names = assign_labels([(issuer.manifest, issuer.spec) for issuer in judged.values()], settings)
    for key, given in names.items():
        judged[key] = _labelled(judged[key], given)
    by_label = {label: judged[key] for key, given in names.items() for label in given.answers_at}
    default = default_key(judged, settings)
    return Registry(issuers=judged, by_label=by_label, default=judged[default] if default is not None else None)


def _same_object(issuer: Issuer | None, manifest: IssuerManifest) -> Issuer | None:
    """An issuer that was deleted and made anew inherits nothing of the one before it."""
    return issuer if issuer is not None and issuer.uid == manifest.uid else None


def _judge_alone(
    manifest: IssuerManifest, snapshot: Snapshot, previous: Issuer | None, settings: RegistrySettings, store: KeyStore, now: datetime
) -> Issuer:
    """As _judge; whatever else goes wrong with what one tenant wrote, that issuer signs nothing, and every other one goes on."""
    try:
        return _judge(manifest, snapshot, previous, settings, store, now)
    except Exception as error:  # noqa: BLE001 - what it may be is not known
        if previous is None or previous.reason != "InternalError":
            log.error("an issuer could not be judged", issuer=manifest.key, **logs.fault(error))  # noqa: TRY400
        message = f"{manifest.key}: estserver failed to judge it ({type(error).__name__}); its log says where"
        return replace(_unread(manifest), reason="InternalError", message=message)


def _judge(
    manifest: IssuerManifest, snapshot: Snapshot, previous: Issuer | None, settings: RegistrySettings, store: KeyStore, now: datetime
) -> Issuer:
    try:
        spec = _parse(manifest, previous)
        _check_programs(spec, manifest, settings)
    except ConfigurationError as error:
        if previous is None or previous.spec is None:
            return replace(_unread(manifest), reason="InvalidSpec", message=error.message, refusal=error.message)
        by_former_spec = _judge_by(previous.spec, manifest, snapshot, previous, settings, store, now)
        return replace(_invalid_spec(by_former_spec, error), parsed_from=previous.parsed_from, refusal=error.message)
    return replace(_judge_by(spec, manifest, snapshot, previous, settings, store, now), parsed_from=manifest.spec)


def _judge_by(
    spec: IssuerSpec,
    manifest: IssuerManifest,
    snapshot: Snapshot,
    previous: Issuer | None,
    settings: RegistrySettings,
    store: KeyStore,
    now: datetime,
) -> Issuer:
    secrets = issuer_secrets.load(
        spec,
        snapshot,
        previous.secrets if previous else NO_SECRETS,
        store,
        namespace=manifest.namespace or settings.cluster_namespace,
        now=now,
    )
    return _issuer(manifest, spec, secrets, previous, now, stale=snapshot.stale)


def _parse(manifest: IssuerManifest, previous: Issuer | None) -> IssuerSpec:
    if previous is not None and previous.spec is not None and previous.parsed_from == manifest.spec:
        return previous.spec
    if previous is not None and previous.refusal and previous.manifest.spec == manifest.spec:
        raise ConfigurationError(previous.refusal, reason="InvalidSpec")  # the longest takes half a second, and everybody's judgement waits
    return issuer_spec.parse(manifest.spec, where=manifest.key)


def _check_programs(spec: IssuerSpec, manifest: IssuerManifest, settings: RegistrySettings) -> None:
    """In a cluster whoever may write a manifest must not run a program in this process's place; the CRD says the same."""
    named = [
        field
        for field, program in (("signer", spec.signer), ("authorization", spec.authorization and spec.authorization.exec_))
        if program is not None
    ]
    if named and not settings.directory:
        raise ConfigurationError(
            "a program runs for a directory of manifests only; use authorization.webhook, or leave it out",
            where=manifest.key,
            field=f"spec.{named[0]}.exec",
            reason="InvalidSpec",
        )


def _issuer(
    manifest: IssuerManifest, spec: IssuerSpec, secrets: IssuerSecrets, previous: Issuer | None, now: datetime, *, stale: bool
) -> Issuer:
    expired = _expiry(secrets.ca.value, now)
    authority = None if expired or stale else secrets.ca.value
    problems = secrets.reasons
    missing = authority is None or any(nothing for _, _, nothing in problems)
    reason, message = "Checked", "the CA and every Secret that the issuer names are in order"
    if problems:
        reason, message = problems[0][0], "; ".join(text for _, text, _ in problems)
    if expired:
        reason, message = "CAExpired", expired
    if stale:
        reason, message = "SourceStale", "the Kubernetes API was silent for too long; nothing is signed until it answers"
    unchanged = previous is not None and previous.authority is authority
    plain, wrapped = (previous.cacerts_body, previous.cacerts_body_wrapped) if previous and unchanged else _cacerts_bodies(authority)
    return replace(
        _unread(manifest),
        spec=spec,
        authority=authority,
        ready=not missing,
        reason=reason,
        message=message,
        cacerts_body=plain,
        cacerts_body_wrapped=wrapped,
        secrets=secrets,
    )


def _invalid_spec(by_former_spec: Issuer, error: ConfigurationError) -> Issuer:
    """The issuer of a spec that does not parse, from what its Secrets make of the spec before it: those may change all the same."""
    answered = "are still answered by the spec before it" if by_former_spec.authority is not None else "are not answered"
    told = (f"{error.message}; EST clients {answered}", by_former_spec.message if by_former_spec.reason != "Checked" else "")
    return replace(by_former_spec, ready=False, reason="InvalidSpec", message="; ".join(part for part in told if part))


def _unread(manifest: IssuerManifest) -> Issuer:
    """The issuer of a manifest of which only the metadata was looked at."""
    return Issuer(
        key=manifest.key,
        kind=manifest.kind,
        namespace=manifest.namespace,
        name=manifest.name,
        uid=manifest.uid,
        generation=manifest.generation,
        label=None,
        spec=None,
        authority=None,
        ready=False,
        reason="",
        message="",
        manifest=manifest,
    )


def _expiry(authority: Authority | None, now: datetime) -> str:
    if authority is None or now < (end := authority.first_to_end.not_valid_after_utc):
        return ""
    which = "the CA certificate" if authority.first_to_end is authority.certificate else "a certificate above the CA's"
    return f"{which} expired at {end.isoformat()}; put a valid one into its Secret"


def _cacerts_bodies(authority: Authority | None) -> tuple[bytes, bytes]:
    """Body of /cacerts: the issuing CA, its chain and the root if known, and the roll-over set (RFC 7030 section 4.1.3)."""
    if authority is None:
        return b"", b""
    der = certs_only.encode([certificate.public_bytes(Encoding.DER) for certificate in authority.certificates])
    return transfer.encode_body(der), transfer.encode_body(der, wrap=True)


def _labelled(issuer: Issuer, given: Given) -> Issuer:
    """The issuer with its label, and told what its labels have to do with: those that it did not get, realms of Digest that are none."""
    if given.conflict and issuer.reason == "InvalidSpec":  # whoever mends it must know of both
        return replace(issuer, label=given.label, message=f"{issuer.message}; {given.conflict}")
    if given.conflict:
        return replace(issuer, label=given.label, ready=False, reason="LabelConflict", message=given.conflict)
    unusable = issuer.digests.unusable(labels=given.answers_at, md5=_takes_md5(issuer)) if issuer.digests and given.answers_at else ""
    return replace(issuer, label=given.label, message="; ".join(part for part in (issuer.message, given.note, unusable) if part))


def _takes_md5(issuer: Issuer) -> bool:
    return issuer.spec is not None and any(way.digest is not None and way.digest.md5 for way in issuer.spec.est.authentication)
