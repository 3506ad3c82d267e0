"""A label selector in an issuer's spec, as Kubernetes has it (apimachinery, LabelSelector)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from estcore.spec_part import SpecPart

LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=317)
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$", max_length=63)]


class Operator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(SpecPart):
    """One condition on one label."""

    key: LabelKey
    operator: Annotated[Operator, Field(strict=False)]
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64, strict=False)] = ()

    @model_validator(mode="after")
    def _values(self) -> Self:
        if (self.operator in {Operator.IN, Operator.NOT_IN}) != bool(self.values):
            raise ValueError("values goes with In and NotIn, and only with them")
        return self


class LabelSelector(SpecPart):
    """All of it must hold; one without anything selects everything."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = None
    match_expressions: Annotated[tuple[Requirement, ...], Field(max_length=32, strict=False)] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected; NotIn and DoesNotExist hold for one without the label."""
        if any(labels.get(key) != value for key, value in (self.match_labels or {}).items()):
            return False
        return all(_holds(requirement, labels) for requirement in self.match_expressions)

    @property
    def query(self) -> str:
        """As the API takes it in `labelSelector`."""
        return ",".join([*(f"{key}={value}" for key, value in (self.match_labels or {}).items()), *map(_query, self.match_expressions)])


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
        case Operator.IN:
            return value in requirement.values
        case Operator.NOT_IN:
            return value not in requirement.values


def _query(requirement: Requirement) -> str:
    match requirement.operator:
        case Operator.EXISTS:
            return requirement.key
        case Operator.DOES_NOT_EXIST:
            return f"!{requirement.key}"
        case Operator.IN:
            return f"{requirement.key} in ({','.join(requirement.values)})"
        case Operator.NOT_IN:
            return f"{requirement.key} notin ({','.join(requirement.values)})"
