"""The CRDs hold exactly what estcore.issuer_spec parses, and a request kind of cert-manager's shape."""

import copy
import types
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from estcore import issuer_spec
from estcore.issuer_spec import OPERATIONS, IssuerSpec

CRDS = Path(__file__).parents[2] / "crds"
CERT_MANAGER = Path(__file__).parents[1] / "vectors" / "cert-manager.io_certificaterequests.yaml"
OURS = ["estissuers", "estclusterissuers", "certificaterequests"]


def crd(plural: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((CRDS / f"est-issuer.io_{plural}.yaml").read_text(), Loader=yaml.CSafeLoader)
    return loaded


def schema(plural: str) -> dict[str, Any]:
    (version,) = crd(plural)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def json_default(value: object) -> object:
    """A default of the model as a manifest writes it."""
    if isinstance(value, timedelta):
        hours, rest = divmod(value, timedelta(hours=1))
        return f"{hours}h" if not rest else f"{value // timedelta(seconds=1)}s"
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value


def element(annotation: Any) -> Any:
    """The type inside Annotated, Optional and tuple[X, ...]."""
    while True:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            annotation = arguments[0]
        elif origin in {typing.Union, types.UnionType}:
            annotation = next(argument for argument in arguments if argument is not type(None))
        elif origin is tuple:
            annotation = arguments[0]
        else:
            return annotation


def compare(model: type[BaseModel], written: dict[str, Any], path: str) -> None:
    assert written["type"] == "object", path
    assert {field.alias for field in model.model_fields.values()} == set(written["properties"]), path
    assert {field.alias for field in model.model_fields.values() if field.is_required()} == set(written.get("required", ())), path
    for field in model.model_fields.values():
        compare_field(field, written["properties"][field.alias], f"{path}.{field.alias}")


def compare_field(field: FieldInfo, written: dict[str, Any], path: str) -> None:
    bounds = {type(item).__name__: item for item in field.metadata}
    inner = element(field.annotation)
    if written["type"] == "array":
        assert written.get("maxItems") == bounds["MaxLen"].max_length, path
        assert written.get("minItems") == (bounds["MinLen"].min_length if "MinLen" in bounds else None), path
        compare_scalar(inner, written["items"], path)
    else:
        compare_scalar(inner, written, path)
        pattern = next((item.pattern for item in field.metadata if getattr(item, "pattern", None)), None)
        if pattern:
            assert written["pattern"] == pattern, path
        if "MaxLen" in bounds and typing.get_origin(inner) is not dict:
            assert written["maxLength"] == bounds["MaxLen"].max_length, path
    default = field.get_default(call_default_factory=True)
    if field.is_required() or default is None or default == () or isinstance(default, BaseModel):
        assert isinstance(written.get("default", {}), dict), path
    else:
        assert written["default"] == json_default(default), path


def compare_scalar(inner: Any, written: dict[str, Any], path: str) -> None:
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        compare(inner, written, path)
    elif typing.get_origin(inner) is dict:
        key, value = typing.get_args(inner)
        assert written["type"] == "object", path
        assert element(key) is str, path
        compare_scalar(element(value), written["additionalProperties"], path)
    elif typing.get_origin(inner) is typing.Literal:
        assert written["enum"] == list(typing.get_args(inner)), path
    elif hasattr(inner, "__members__"):
        assert written["enum"] == [str(member) for member in inner], path
    elif inner is bool:
        assert written["type"] == "boolean", path
    else:
        assert inner in {str, timedelta}, path
        assert written["type"] == "string", path


@pytest.mark.parametrize("plural", ["estissuers", "estclusterissuers"])
def test_the_schema_has_exactly_the_fields_bounds_and_defaults_of_the_issuer_spec(plural: str) -> None:
    compare(IssuerSpec, schema(plural)["spec"], "spec")


def rule_of_config_map(spec: dict[str, Any]) -> str:
    """Take the one rule out that differs, and return it."""
    (version,) = spec["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    (rule,) = properties["trust"]["properties"]["configMap"].pop("x-kubernetes-validations")
    return str(rule["rule"])


def rule_of_the_namespaced_kind(spec: dict[str, Any]) -> str:
    """Take the rule out that an EstClusterIssuer has not, and return it."""
    (version,) = spec["versions"]
    rules = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]
    return str(rules.pop(0)["rule"])


def test_both_issuer_kinds_differ_in_nothing_but_name_scope_and_descriptions() -> None:
    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key != "description" or not isinstance(item, str)}
        return [bare(item) for item in value] if isinstance(value, list) else value

    one, other = (copy.deepcopy(crd(plural))["spec"] for plural in ("estissuers", "estclusterissuers"))
    assert (one.pop("scope"), other.pop("scope")) == ("Namespaced", "Cluster")
    one.pop("names"), other.pop("names")
    # Whose namespaces get the trust: an EstIssuer's own alone, an EstClusterIssuer's those that it must say.
    assert [rule_of_config_map(spec) for spec in (one, other)] == ["!has(self.namespaceSelector)", "has(self.namespaceSelector)"]
    # Whose objects may name it: those of its own namespace, or those that it must say.
    assert rule_of_the_namespaced_kind(one) == "!has(self.allowedNamespaces)"
    assert bare(one) == bare(other)


@pytest.mark.parametrize("plural", ["estissuers", "estclusterissuers"])
def test_every_operation_is_refused_as_a_label_with_a_message(plural: str) -> None:
    (rule,) = schema(plural)["spec"]["properties"]["est"]["properties"]["label"]["x-kubernetes-validations"]
    assert all(f"'{operation}'" in rule["rule"] for operation in OPERATIONS)
    assert "RFC 7030" in rule["message"]


@pytest.mark.parametrize("plural", OURS)
def test_every_rule_has_a_message_and_conditions_are_a_map_by_type(plural: str) -> None:
    def rules(value: Any) -> list[dict[str, str]]:
        if isinstance(value, dict):
            return [*value.get("x-kubernetes-validations", []), *(rule for item in value.values() for rule in rules(item))]
        return [rule for item in value for rule in rules(item)] if isinstance(value, list) else []

    assert all(rule.get("message") for rule in rules(schema(plural)))
    conditions = schema(plural)["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("plural", OURS)
def test_the_schema_is_structural_and_keeps_nothing_unknown(plural: str) -> None:
    text = (CRDS / f"est-issuer.io_{plural}.yaml").read_text()
    assert "preserve-unknown-fields" not in text
    assert "conditions[0]" not in text


def test_the_request_kind_has_the_shape_of_cert_managers() -> None:
    """One code path reads both, so every field of ours is one of theirs, of the same type; origin and time to live are ours."""
    (version,) = yaml.load(CERT_MANAGER.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    theirs = version["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        ours = {
            name: field
            for name, field in schema("certificaterequests")[part]["properties"].items()
            if name not in {"origin", "ttlSecondsAfterFinished"}
        }
        assert set(ours) == set(theirs[part]["properties"])
        for name, field in ours.items():
            assert field["type"] == theirs[part]["properties"][name]["type"], name
            assert field.get("format") == theirs[part]["properties"][name].get("format"), name
    assert (
        schema("certificaterequests")["spec"]["properties"]["usages"]["items"]["enum"]
        == theirs["spec"]["properties"]["usages"]["items"]["enum"]
    )


def test_the_request_kind_takes_none_of_cert_managers_short_names() -> None:
    assert crd("certificaterequests")["spec"]["names"]["shortNames"] == ["estcr"]


def test_the_defaults_of_the_schema_parse_as_the_models_own() -> None:
    def filled(written: dict[str, Any]) -> Any:
        if "properties" in written:
            return {
                name: filled(field)
                for name, field in written["properties"].items()
                if "default" in field or (field.get("type") == "object" and any("default" in item for item in field["properties"].values()))
            }
        return written["default"]

    spec = schema("estissuers")["spec"]["properties"]
    given = {"ca": {"secretName": "x"}, "est": filled(spec["est"]), "policy": filled(spec["policy"])}
    assert issuer_spec.parse(given, where="") == issuer_spec.parse({"ca": {"secretName": "x"}}, where="")
