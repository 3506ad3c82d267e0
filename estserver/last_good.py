"""The last good state of issuers, for a worker that starts while something is broken: what its brothers go on with, it goes on with too.

It is told as snapshots of what was good, one an issuer, and judged anew: nothing is taken over that would not be loaded now.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from estserver.issuers import Registry, RegistrySettings, build
from estserver.snapshot import Snapshot


def snapshots(registry: Registry) -> tuple[Snapshot, ...]:
    """Of each issuer that may go on by more than its manifest and Secrets say now, what it goes on by. Empty where all is in order."""
    return tuple(
        Snapshot(
            issuers=(replace(issuer.manifest, spec=issuer.parsed_from),),
            secrets={(secret.namespace, secret.name): secret for loaded in issuer.secrets.all for secret in loaded.secrets},
        )
        for issuer in registry.issuers.values()
        if issuer.parsed_from is not None and (issuer.secrets.reasons or issuer.parsed_from != issuer.manifest.spec)
    )


def judge(former: Iterable[Snapshot], settings: RegistrySettings, *, now: datetime) -> Registry:
    """A registry to judge the newest snapshot against. Its labels mean nothing, for each issuer was judged on its own."""
    return Registry(
        issuers={key: issuer for snapshot in former for key, issuer in build(snapshot, Registry(), settings, now=now).issuers.items()}
    )
