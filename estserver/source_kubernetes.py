"""Issuers and Secrets from the Kubernetes API: EstIssuers and EstClusterIssuers, and exactly the Secrets that they name.

Each collection, and each Secret by its name, is listed once and then watched; a watch that ends, breaks, falls silent or is too old
is begun anew. While the API is away the last state stands: nothing is published then, so nobody forgets anything (threats row 33).
"""

import asyncio
import base64
import binascii
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from estcore import authority
from estserver.background import beside, stop, until
from estserver.followed_issuers import FollowedIssuers
from estserver.kubernetes_api import ApiError, KubernetesApi, Object
from estserver.reflector import Reflector
from estserver.secret_uses import MEMBERS, SecretReference, SecretUse, trim
from estserver.snapshot import TYPE_OPAQUE, TYPE_TLS, IssuerKind, IssuerManifest, SecretKey, SecretManifest, SecretProblem, Snapshot

GROUP = "/apis/est-issuer.io/v1alpha1"
COLLECTIONS: Mapping[IssuerKind, str] = {"EstIssuer": f"{GROUP}/estissuers", "EstClusterIssuer": f"{GROUP}/estclusterissuers"}
SETTLE_SECONDS = 0.05  # one change of a Secret is often several events; judging them once costs less
LOOK_SECONDS = 5.0  # how late an outage that lasts too long may be noticed
LOOK_OFTEN_SECONDS = 1.0  # while some issuer is held back
LONGEST_OUTAGE = timedelta(hours=1)

log = structlog.get_logger(__name__)
_jitter = random.SystemRandom()


@dataclass(slots=True)
class _SecretWatch:
    """One Secret, for as long as some issuer names it."""

    reference: SecretReference
    uses: frozenset[SecretUse]
    reflector: Reflector
    task: asyncio.Task[None]
    making: asyncio.Task[None] | None = None
    not_made: SecretProblem | None = None

    @property
    def answered(self) -> bool:
        return self.reflector.synced or self.reflector.problem is not None

    @property
    def absent(self) -> bool:
        return self.reflector.synced and not self.reflector.objects

    def problem(self) -> SecretProblem | None:
        """What to tell of it: that we may not, or that it was never read. A mere outage after that says nothing of the Secret."""
        error = self.reflector.problem
        if error is not None and error.forbidden:
            return forbidden(self.reference, "read", error)
        if not self.reflector.synced:
            return SecretProblem("SecretGetError", f"it could not be read yet: {error or 'no answer so far'}")
        if self.reference.generate is None or not self.absent:
            return None
        return self.not_made or SecretProblem("CAGenerating", "it does not exist yet, and its CA is being generated", absent=True)


@dataclass(slots=True)
class KubernetesSource:
    """Watches the API and hands out snapshots. `namespace` is the install namespace, where cluster issuers' Secrets are.

    `longest_outage`: after so much silence of the API the snapshot is stale; zero is never.
    """

    api: KubernetesApi
    namespace: str
    clock: Callable[[], datetime]
    serial: Callable[[], int]
    longest_outage: timedelta = LONGEST_OUTAGE
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _secrets: dict[SecretKey, _SecretWatch] = field(default_factory=dict)

    async def watch(self, publish: Callable[[Snapshot], None]) -> None:
        """Until cancelled. The first snapshot leaves when both kinds were listed and every Secret that was named then has answered."""
        collections = {kind: Reflector(self.api, path, changed=self._changed.set) for kind, path in COLLECTIONS.items()}
        issuers = FollowedIssuers(self.namespace, changed=self._changed.set)
        async with beside(*(reflector.run() for reflector in collections.values()), issuers.run()):
            published: Snapshot | None = None
            try:
                while True:
                    await self._wait(LOOK_OFTEN_SECONDS if issuers.waiting else LOOK_SECONDS)
                    if not all(reflector.synced for reflector in collections.values()):
                        continue
                    issuers.see(
                        manifest
                        for kind, reflector in collections.items()
                        for item in reflector.objects.values()
                        if (manifest := _issuer(kind, item))
                    )
                    self._follow_secrets(issuers)
                    if issuers.settle(self._answered, now=asyncio.get_running_loop().time()):
                        self._follow_secrets(issuers)
                    if not issuers.complete():
                        continue
                    snapshot = self._snapshot(issuers.manifests, stale=self._stale(collections.values()))
                    if snapshot != published:
                        published = snapshot
                        publish(snapshot)
            finally:
                for watch in self._secrets.values():
                    await _stop(watch)

    async def _wait(self, seconds: float) -> None:
        """Until something changed and kept still for a moment, or it is time to look at the clock."""
        await until(self._changed, seconds=seconds)
        await asyncio.sleep(SETTLE_SECONDS)
        self._changed.clear()

    def _stale(self, collections: Iterable[Reflector]) -> bool:
        now, limit = asyncio.get_running_loop().time(), self.longest_outage.total_seconds()
        return limit > 0 and any(reflector.heard_at is None or now - reflector.heard_at > limit for reflector in collections)

    def _answered(self, key: SecretKey) -> bool:
        watch = self._secrets.get(key)
        return watch is not None and watch.answered

    def _follow_secrets(self, issuers: FollowedIssuers) -> None:
        """Watch each Secret that an issuer names, and none that no issuer names any more."""
        wanted: dict[SecretKey, list[SecretReference]] = {}
        for reference in issuers.references():
            wanted.setdefault(reference.key, []).append(reference)
        for key in self._secrets.keys() - wanted.keys():
            watch = self._secrets.pop(key)
            watch.task.cancel()
            if watch.making is not None:
                watch.making.cancel()
        for key, named in wanted.items():
            reference = next((one for one in named if one.generate is not None), named[0])
            known = self._secrets.get(key)
            if known is None:
                known = self._secrets[key] = self._begin(reference)
            known.reference, known.uses = reference, frozenset(one.use for one in named)
            if known.absent and reference.generate is not None and (known.making is None or known.making.done()):
                known.making = asyncio.create_task(self._make(known))

    def _begin(self, reference: SecretReference) -> _SecretWatch:
        # By name: RBAC may bind list and watch to resourceNames only for exactly this selector.
        reflector = Reflector(
            self.api, _path(reference), field_selector=f"metadata.name={reference.name}", changed=self._changed.set, keep=_keep
        )
        return _SecretWatch(reference, frozenset({reference.use}), reflector, asyncio.create_task(reflector.run()))

    async def _make(self, watch: _SecretWatch) -> None:
        """Create the CA Secret that is absent, by the spec as it is now: a typing error in it must not become a CA after it was mended.

        Somebody else's Secret (409) is as good; nobody owns it, so deleting the issuer leaves it.
        """
        backoff = 1.0
        while watch.absent and (generate := watch.reference.generate) is not None:
            reference = watch.reference
            key_pem, certificate_pem = await asyncio.to_thread(authority.generate_ca, generate, now=self.clock(), serial=self.serial())
            if watch.reference != reference:
                continue
            try:
                await self.api.create(_path(reference), _ca_secret(reference, key_pem, certificate_pem))
                log.info("generated a CA", secret=str(reference), common_name=generate.common_name)
                watch.not_made = None
            except ApiError as error:
                if not error.conflict:
                    watch.not_made = (
                        forbidden(reference, "create", error, absent=True)
                        if error.lacks_right
                        else SecretProblem("SecretMissing", f"it does not exist and could not be made: {error}", absent=True)
                    )
                    self._changed.set()
            await asyncio.sleep(backoff)  # the watch brings what was made
            backoff = min(2 * backoff, 30.0) * (0.75 + _jitter.random() / 4)

    def _snapshot(self, issuers: tuple[IssuerManifest, ...], *, stale: bool) -> Snapshot:
        secrets = {
            key: trim(secret, watch.uses)
            for key, watch in self._secrets.items()
            for item in watch.reflector.objects.values()
            if (secret := _secret(item)) is not None
        }
        problems = {key: problem for key, watch in self._secrets.items() if (problem := watch.problem()) is not None}
        return Snapshot(issuers=issuers, secrets=secrets, secret_problems=problems, stale=stale)


async def _stop(watch: _SecretWatch) -> None:
    await stop(task for task in (watch.task, watch.making) if task is not None)


def _path(reference: SecretReference) -> str:
    return f"/api/v1/namespaces/{reference.namespace}/secrets"


def forbidden(reference: SecretReference, verb: str, error: ApiError, *, absent: bool = False) -> SecretProblem:
    """What to tell of a Secret that we may not read or create; how to mend it only where a grant is what is missing."""
    remedy = f"add {reference.namespace} to the chart value secretNamespaces" if error.lacks_right else str(error)
    return SecretProblem("SecretForbidden", f"estserver may not {verb} {reference}: {remedy}", absent=absent)


def _issuer(kind: IssuerKind, item: Object) -> IssuerManifest | None:
    metadata = item["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    return IssuerManifest(
        kind=kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 1),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        spec=item.get("spec") or {},
    )


def _keep(secret: Object) -> Object:
    """Of a Secret whose type fits no use, not even memory holds the data."""
    metadata = secret["metadata"]
    kind = secret.get("type", TYPE_OPAQUE)
    return {
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
        "type": kind,
        "data": secret.get("data") if any(kind == fitting for _, fitting in MEMBERS) else {},
    }


def _secret(item: Object) -> SecretManifest | None:
    try:
        data = {member: base64.b64decode(value or "") for member, value in (item.get("data") or {}).items()}
    except (binascii.Error, ValueError):
        return None  # the API server never stores such a Secret
    metadata = item["metadata"]
    return SecretManifest(namespace=metadata["namespace"], name=metadata["name"], type=item.get("type", TYPE_OPAQUE), data=data)


def _ca_secret(reference: SecretReference, key_pem: bytes, certificate_pem: bytes) -> Object:
    members = {"tls.crt": certificate_pem, "tls.key": key_pem, "ca.crt": certificate_pem}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": reference.name,
            "namespace": reference.namespace,
            "labels": {"app.kubernetes.io/managed-by": "est-issuer"},
        },
        "type": TYPE_TLS,
        "data": {member: base64.b64encode(pem).decode() for member, pem in members.items()},
    }
