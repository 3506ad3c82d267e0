"""What every part of an issuer's spec is made of: the strict base of the models, and the scalar types of their fields.

Pydantic does the parsing; the models are in est_spec, policy_spec, label_selector and issuer_spec, and nowhere else in this package.
"""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from estcore.usages import ENCIPHERMENT, Usage

OPERATIONS = frozenset({"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"})
"""Operation segments of RFC 7030 section 3.2.2: never a label."""

_DURATION_PART = re.compile(r"([0-9]+)(h|m|s)")
_DURATION = re.compile(r"([0-9]+(h|m|s))+")


def parse_duration(text: object) -> timedelta:
    """A Go duration of whole hours, minutes and seconds (`2160h`, `1h30m`), as Kubernetes writes it; raises ValueError."""
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or len(text) > 32 or not _DURATION.fullmatch(text):
        raise ValueError("a duration is written like 2160h, 90m or 1h30m")
    seconds = sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in _DURATION_PART.findall(text))
    if not 0 < seconds <= 100 * 366 * 86400:
        raise ValueError("a duration is more than nothing and at most 100 years")
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253)]
ShortText = Annotated[str, Field(min_length=1, max_length=253)]


class SpecPart(BaseModel):
    """Strict, immutable, no unknown field; camelCase in a manifest."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )


class KeyAlgorithm(StrEnum):
    """Key types of a CA and of a leaf."""

    ECDSA_P256 = "ECDSA-P256"
    ECDSA_P384 = "ECDSA-P384"
    ECDSA_P521 = "ECDSA-P521"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    ED25519 = "Ed25519"


_SIGNING = frozenset({Usage.DIGITAL_SIGNATURE, Usage.CONTENT_COMMITMENT})
POSSIBLE_KEY_USAGES: dict[KeyAlgorithm, frozenset[Usage]] = {
    algorithm: _SIGNING | ENCIPHERMENT
    if algorithm.startswith("RSA")
    else _SIGNING | {Usage.KEY_AGREEMENT}
    if algorithm.startswith("ECDSA")
    else _SIGNING
    for algorithm in KeyAlgorithm
}
"""keyUsage bits that a key can serve: RFC 3279 section 2.3.1 (RSA), RFC 5480 section 3 with RFC 8813 (EC), RFC 8410 section 5 (Ed25519)."""


class ChannelBinding(StrEnum):
    """Whether a CSR must carry the channel binding of its TLS connection (RFC 7030 section 3.5)."""

    OPTIONAL = "Optional"
    REQUIRED = "Required"
