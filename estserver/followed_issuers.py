"""The issuers of the Kubernetes API on their way into a snapshot: each spec read once, and its Secrets heard of first.

What one tenant writes holds up nobody else's news. Specs are read off the event loop, one after the other in the order in which they
came: one of the longest takes half a second. An issuer whose Secrets have not answered yet stays as it was, or out where it is new, for
a few seconds at most, and the others go on without it.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog

from estcore import issuer_spec
from estcore.errors import ConfigurationError
from estserver.secret_uses import SecretReference, references
from estserver.snapshot import IssuerManifest, SecretKey

FIRST_READ_SECONDS = 10.0  # longest wait for the first answers of an issuer's Secrets before it is judged without them

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A manifest and the Secrets that its spec names; None where it does not parse."""

    manifest: IssuerManifest
    named: tuple[SecretReference, ...] | None


@dataclass(slots=True)
class _Followed:
    """One issuer: what was seen of it last, what was read last, and what the snapshot has of it."""

    seen: IssuerManifest
    read: _Reading | None = None
    settled: _Reading | None = None
    until: float | None = None  # loop time until which the Secrets of `read` may hold it back

    @property
    def is_read(self) -> bool:
        return self.read is not None and self.read.manifest == self.seen

    @property
    def is_settled(self) -> bool:
        return self.read is not None and self.settled is not None and self.settled.manifest == self.read.manifest

    def wanted(self) -> tuple[SecretReference, ...]:
        """The Secrets of the spec that was read last; where it does not parse, those that the one before it goes on with."""
        if self.read is not None and self.read.named is not None:
            return self.read.named
        return self.kept()

    def kept(self) -> tuple[SecretReference, ...]:
        """The Secrets that the snapshot's manifest goes on with; no CA is made any more by a spec that is no longer there."""
        named = self.settled.named if self.settled is not None else None
        return tuple(replace(reference, generate=None) for reference in named or ())


class FollowedIssuers:
    """`see` what there is, `run` reads it, `settle` lets into `manifests` what is ready for it.

    `namespace` is the install namespace; `changed` is called when a spec was read.
    """

    def __init__(self, namespace: str, *, changed: Callable[[], None]) -> None:
        self._namespace = namespace
        self._changed = changed
        self._followed: dict[str, _Followed] = {}
        self._first: set[tuple[str, str]] | None = None  # key and uid
        self._unread = asyncio.Event()

    def see(self, manifests: Iterable[IssuerManifest]) -> None:
        """Take note of all issuers that there are now. One that was deleted and made anew inherits nothing."""
        found = {manifest.key: manifest for manifest in manifests}
        for key in self._followed.keys() - found.keys():
            del self._followed[key]
        for key, manifest in found.items():
            known = self._followed.get(key)
            if known is None or known.seen.uid != manifest.uid:
                self._followed[key] = _Followed(manifest)
            else:
                known.seen = manifest
        if self._first is None:
            self._first = {(key, manifest.uid) for key, manifest in found.items()}
        if any(not followed.is_read for followed in self._followed.values()):
            self._unread.set()

    async def run(self) -> None:
        """Read specs as they come, until cancelled."""
        while True:
            await self._unread.wait()
            self._unread.clear()
            for key in [key for key, followed in self._followed.items() if not followed.is_read]:
                followed = self._followed.get(key)
                if followed is None or followed.is_read:
                    continue
                manifest, former = followed.seen, followed.read
                if former is not None and former.manifest.spec == manifest.spec:
                    followed.read = _Reading(manifest, former.named)
                else:
                    followed.read = _Reading(manifest, await asyncio.to_thread(self._named, manifest))
                self._changed()

    def _named(self, manifest: IssuerManifest) -> tuple[SecretReference, ...] | None:
        try:
            spec = issuer_spec.parse(manifest.spec, where=manifest.key)
        except ConfigurationError:
            return None  # issuers.build says so on the issuer
        except Exception as error:
            log.error("a spec could not be read", issuer=manifest.key, error=type(error).__name__, exc_info=error)  # noqa: TRY400
            return None
        return references(spec, namespace=manifest.namespace or self._namespace)

    def references(self) -> Iterable[SecretReference]:
        """The Secrets to be watched: those of the specs as they are, and those that the snapshot still goes on with."""
        for followed in self._followed.values():
            yield from followed.wanted()
            if not followed.is_settled:
                yield from followed.kept()

    def settle(self, answered: Callable[[SecretKey], bool], *, now: float) -> bool:
        """Let in each issuer that was read and whose Secrets have answered, or were waited for long enough. True where there was one.

        `now` is loop time.
        """
        news = False
        for followed in self._followed.values():
            if followed.read is None or followed.is_settled:
                continue
            if followed.until is None:
                followed.until = now + FIRST_READ_SECONDS
            wanted = followed.wanted()
            if now >= followed.until or all(answered(reference.key) for reference in wanted):
                followed.settled, followed.until, news = _Reading(followed.read.manifest, wanted), None, True
        return news

    @property
    def waiting(self) -> bool:
        """Whether some issuer is held back."""
        return any(not (followed.is_read and followed.is_settled) for followed in self._followed.values())

    def complete(self) -> bool:
        """Whether each issuer of the first look was let in, or is gone."""
        held_back = {(key, known.seen.uid) for key, known in self._followed.items() if known.settled is None}
        self._first = (self._first or set()) & held_back
        return not self._first

    @property
    def manifests(self) -> tuple[IssuerManifest, ...]:
        """Those that were let in, each as it was then."""
        return tuple(followed.settled.manifest for followed in self._followed.values() if followed.settled is not None)
