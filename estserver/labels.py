"""Which issuer answers at which label of `/.well-known/est/<label>/…`.

Whose word counts: first the administrator's map, then EstClusterIssuers (made by administrators), then namespaced issuers, which
get `<namespace>.<name>` and nothing else: a namespace has no dot, so no tenant can name another's label. Among equals the older
issuer keeps the label. From a directory of manifests one person speaks for all, so there every issuer says its label itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from estcore.issuer_spec import OPERATIONS, IssuerSpec
from estserver.snapshot import IssuerManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """What the administrator says about issuers, outside of any issuer.

    `labels`: label → `namespace/name` of an EstIssuer. `default_issuer`: `EstClusterIssuer/name` or `namespace/name`.
    `cluster_namespace`: where the Secrets of EstClusterIssuers are. `directory`: the manifests are one person's files.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    default_issuer: str | None = None
    cluster_namespace: str = "default"
    directory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one issuer got: its label, every label it answers at, and why not the one it asked for."""

    label: str | None = None
    answers_at: tuple[str, ...] = ()
    conflict: str = ""
    note: str = ""


def assign_labels(claims: Sequence[tuple[IssuerManifest, IssuerSpec | None]], settings: RegistrySettings) -> dict[str, Given]:
    """Give each issuer (by key) its label. An issuer whose spec never parsed claims nothing it would have to say itself."""
    taken = {label: f"EstIssuer/{issuer}" for label, issuer in settings.labels.items()}
    ordered = sorted(claims, key=lambda claim: (_rank(claim[0], settings), claim[0].created, claim[0].namespace, claim[0].name))
    return {manifest.key: _give(manifest, spec, settings, taken) for manifest, spec in ordered}


def _rank(manifest: IssuerManifest, settings: RegistrySettings) -> int:
    return 0 if settings.directory or manifest.kind == "EstClusterIssuer" else 1


def _give(manifest: IssuerManifest, spec: IssuerSpec | None, settings: RegistrySettings, taken: dict[str, str]) -> Given:
    mapped = tuple(label for label, holder in taken.items() if holder == manifest.key)
    own, note = _own_label(manifest, spec, settings, mapped)
    if own is None and not mapped:
        return Given()
    label = mapped[0] if mapped else own
    holder = taken.setdefault(own, manifest.key) if own is not None else manifest.key
    if label in OPERATIONS:
        return Given(label=None, conflict=f"the label {label} is the name of an EST operation; set spec.est.label to another")
    if mapped:
        also = (own,) if own is not None and holder == manifest.key and own not in OPERATIONS else ()
        return _with_further(
            Given(label=label, answers_at=tuple(dict.fromkeys((*mapped, *also))), note=note), manifest, spec, settings, taken
        )
    if holder != manifest.key:
        return Given(label=None, conflict=_conflict(label, holder, settings))
    assert label is not None  # noqa: S101 - `mapped` is empty, so it is `own`
    return _with_further(Given(label=label, answers_at=(label,), note=note), manifest, spec, settings, taken)


def _with_further(
    given: Given, manifest: IssuerManifest, spec: IssuerSpec | None, settings: RegistrySettings, taken: dict[str, str]
) -> Given:
    """Add the labels of `spec.est.labels`; one that another issuer holds is left out and told, for the issuer has its own all the same."""
    answers_at, notes = list(given.answers_at), [given.note] if given.note else []
    free = settings.directory or manifest.kind == "EstClusterIssuer"
    for label in spec.est.labels if spec is not None else ():
        holder = taken.setdefault(label, manifest.key) if free else taken.get(label, "")
        if holder == manifest.key:
            answers_at.append(label)
        elif free:
            notes.append(f"the label {label} of spec.est.labels is held by {holder}, so this issuer does not answer there")
        else:
            notes.append(f"the label {label} of spec.est.labels is not mapped to this issuer by the administrator")
    return replace(given, answers_at=tuple(dict.fromkeys(answers_at)), note="; ".join(notes))


def _own_label(
    manifest: IssuerManifest, spec: IssuerSpec | None, settings: RegistrySettings, mapped: tuple[str, ...]
) -> tuple[str | None, str]:
    """The label that an issuer has without the administrator's map, and what to say of one it asked for in vain."""
    asked = spec.est.label if spec is not None else None
    if settings.directory or manifest.kind == "EstClusterIssuer":
        return (asked or manifest.name) if spec is not None else None, ""
    label = f"{manifest.namespace}.{manifest.name}"
    if asked is None or asked == label or asked in mapped:
        return label, ""
    return (
        label,
        f"spec.est.label {asked} is not mapped to this issuer by the administrator, so its label is {mapped[0] if mapped else label}",
    )


def _conflict(label: str | None, holder: str, settings: RegistrySettings) -> str:
    if label in settings.labels:
        return f"the label {label} is mapped to {holder} by the administrator; set spec.est.label to another"
    return f"the label {label} is held by {holder}, which is older or goes first; set spec.est.label to another"


def default_key(keys: Collection[str], settings: RegistrySettings) -> str | None:
    """The issuer at the path without label: the administrator's choice, from a directory the only one there is."""
    if settings.default_issuer is not None:
        chosen = settings.default_issuer
        key = chosen if chosen.startswith("EstClusterIssuer/") else f"EstIssuer/{chosen.removeprefix('EstIssuer/')}"
        return key if key in keys else None
    return next(iter(keys)) if settings.directory and len(keys) == 1 else None
