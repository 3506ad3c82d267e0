"""YAML text → the manifests of a directory: EstIssuer, EstClusterIssuer, Secret. Pure; strict; bounded.

A file is somebody's mistake sooner or later, so every error says file, document, field and reason, and nothing is guessed: no unknown
kind, no unknown field, no key given twice (YAML would take the last), no alias (a few lines of them expand without bound).
"""

import base64
import binascii
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from estcore import issuer_spec
from estcore.errors import ConfigurationError
from estserver.secret_uses import MAX_SECRET_OCTETS
from estserver.snapshot import NEVER_CREATED, TYPE_OPAQUE, IssuerManifest, SecretManifest

MAX_FILE_OCTETS = 3 * MAX_SECRET_OCTETS  # one Secret of the largest size in base64, and the rest
MAX_DEPTH = 32
DEFAULT_NAMESPACE = "default"

Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, hide_input_in_errors=True)


class _Metadata(_Part):
    """`metadata`; what only an API server fills in is accepted and ignored, so that `kubectl get -o yaml` may be kept in a file."""

    name: DnsName
    namespace: DnsLabel = DEFAULT_NAMESPACE
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: Any = None
    generation: Any = None
    resource_version: Any = None
    creation_timestamp: Any = None
    managed_fields: Any = None


def _decode(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("write base64 text (or put the value under stringData)")  # noqa: TRY004 - pydantic wants ValueError
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64 (or put the value under stringData)") from None


class _Issuer(_Part):
    api_version: Literal["est-issuer.io/v1alpha1"]
    kind: Literal["EstIssuer", "EstClusterIssuer"]
    metadata: _Metadata
    spec: dict[str, Any]
    status: Any = None


class _Secret(_Part):
    api_version: Literal["v1"]
    kind: Literal["Secret"]
    metadata: _Metadata
    type: Annotated[str, Field(min_length=1, max_length=253)] = TYPE_OPAQUE
    data: dict[str, Annotated[bytes, BeforeValidator(_decode)]] = {}
    string_data: dict[str, str] = {}
    immutable: bool = False


_PLAIN_WORDS = {
    "extra_forbidden": "this field is unknown",
    "missing": "this field is required",
    "string_pattern_mismatch": "a name is lower-case letters, digits and -, as Kubernetes has it",
    "string_type": "write a string, in quotes",
    "dict_type": "expected a mapping",
}

_MANIFEST: TypeAdapter[_Issuer | _Secret] = TypeAdapter(Annotated[_Issuer | _Secret, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What one file holds, in its order."""

    issuers: tuple[IssuerManifest, ...] = ()
    secrets: tuple[SecretManifest, ...] = ()


def parse(text: bytes, *, where: str) -> Manifests:
    """Parse a file of one or more YAML documents; empty documents are passed over.

    `where` is the file's name for errors. Raises ConfigurationError with file, field and reason for the first thing that does not fit.
    """
    if len(text) > MAX_FILE_OCTETS:
        raise ConfigurationError(f"larger than {MAX_FILE_OCTETS} octets", where=where)
    issuers: list[IssuerManifest] = []
    secrets: list[SecretManifest] = []
    for number, document in enumerate(_documents(text, where), start=1):
        if document is None:
            continue
        match _validate(document, f"{where}: document {number}"):
            case _Issuer() as issuer:
                issuers.append(_issuer(issuer, where))
            case _Secret() as secret:
                secrets.append(_secret(secret, where))
    return Manifests(issuers=tuple(issuers), secrets=tuple(secrets))


class _StrictLoader(Loader):  # type: ignore[misc, valid-type]  # which of the two base classes there is depends on libyaml
    """The safe loader, without its habit of letting the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {str(key.value)[:64]} is there twice", key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _documents(text: bytes, where: str) -> Iterator[object]:
    try:
        _check_shape(text, where)
        yield from yaml.load_all(text, Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(f"not YAML: {getattr(error, 'problem', None) or error}", where=where, field=place) from error


def _check_shape(text: bytes, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        place = f"line {event.start_mark.line + 1}" if event.start_mark is not None else ""
        if isinstance(event, yaml.AliasEvent):
            raise ConfigurationError("aliases (*name) are not taken; write the value out", where=where, field=place)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ConfigurationError(f"nested deeper than {MAX_DEPTH}", where=where, field=place)


def _validate(document: object, where: str) -> _Issuer | _Secret:
    if not isinstance(document, Mapping):
        raise ConfigurationError("a manifest is a mapping with apiVersion, kind and metadata", where=where)
    kind = str(document.get("kind"))[:64]
    if kind not in {"EstIssuer", "EstClusterIssuer", "Secret"}:
        raise ConfigurationError(f"{kind} is none of EstIssuer, EstClusterIssuer, Secret", where=where, field="kind")
    try:
        return _MANIFEST.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"][1:])
        words = _PLAIN_WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise ConfigurationError(words, where=where, field=field) from error


def _issuer(issuer: _Issuer, where: str) -> IssuerManifest:
    namespace = "" if issuer.kind == "EstClusterIssuer" else issuer.metadata.namespace
    issuer_spec.parse(issuer.spec, where=f"{where}: {issuer.kind} {issuer.metadata.name}")
    return IssuerManifest(
        kind=issuer.kind,
        namespace=namespace,
        name=issuer.metadata.name,
        uid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{issuer.kind}/{namespace}/{issuer.metadata.name}")),
        generation=1,
        created=NEVER_CREATED,
        spec=issuer.spec,
    )


def _secret(secret: _Secret, where: str) -> SecretManifest:
    data = {**secret.data, **{member: value.encode() for member, value in secret.string_data.items()}}
    if sum(map(len, data.values())) > MAX_SECRET_OCTETS:
        raise ConfigurationError(f"larger than {MAX_SECRET_OCTETS} octets", where=f"{where}: Secret {secret.metadata.name}", field="data")
    return SecretManifest(namespace=secret.metadata.namespace, name=secret.metadata.name, type=secret.type, data=data)
