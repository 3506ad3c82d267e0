"""The `spec` of an EstIssuer or EstClusterIssuer, parsed strictly.

The same shape comes from a YAML file and from the Kubernetes API, and crds/ holds it as a schema: a test keeps the two equal.
Pydantic does the parsing, and is imported nowhere else in this package; nothing here reads a Secret.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from estcore.errors import BadCsr, ConfigurationError
from estcore.names import check_name
from estcore.patterns import DnsPattern, EmailPattern, TextPattern, UriPattern, parse_ip_pattern
from estcore.rule_patterns import RulePatterns
from estcore.usages import ENCIPHERMENT, KEY_USAGES, Usage

OPERATIONS = frozenset({"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"})
"""Operation segments of RFC 7030 section 3.2.2: never a label."""

MIN_LIFE = timedelta(minutes=5)
"""Shortest life that a policy may name: backdating (profile.BACKDATE) and clock skew would eat a shorter one."""

MIN_CA_LIFE = timedelta(hours=1)

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


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )


class KeyAlgorithm(StrEnum):
    """Key types of a CA and of a leaf."""

    ECDSA_P256 = "ECDSA-P256"
    ECDSA_P384 = "ECDSA-P384"
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


def _ca_common_name(text: str) -> str:
    try:
        check_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]))
    except BadCsr as error:
        raise ValueError(f"{text!r} cannot name a CA: {error}") from error
    return text


class Generate(_Part):
    """The CA that is made when the Secret is absent."""

    common_name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_ca_common_name)]
    key_algorithm: Annotated[KeyAlgorithm, Field(strict=False)] = KeyAlgorithm.ECDSA_P256
    duration: Duration = timedelta(hours=87600)

    @model_validator(mode="after")
    def _lives(self) -> Self:
        if self.duration < MIN_CA_LIFE:
            raise ValueError("duration: a CA lives at least 1h")
        return self


class Ca(_Part):
    """Where the CA key is: a kubernetes.io/tls Secret with the issuing CA first in tls.crt, then its chain."""

    secret_name: SecretName
    generate: Generate | None = None


class CertificateAuthentication(_Part):
    """TLS client certificates: this issuer's own (`issuedBy: this`), or those under the anchors in a Secret."""

    issued_by: Literal["this"] | None = None
    ca_secret_name: SecretName | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.issued_by is None) == (self.ca_secret_name is None):
            raise ValueError("set exactly one of issuedBy and caSecretName")
        return self


class BasicAuthentication(_Part):
    """HTTP Basic: a kubernetes.io/basic-auth Secret, or one with an htpasswd file under `auth`."""

    secret_name: SecretName


class ServiceAccountTokenAuthentication(_Part):
    """A Kubernetes ServiceAccount token, checked by TokenReview with this audience."""

    audience: ShortText = "est-issuer"


class Authentication(_Part):
    """One way to authenticate; exactly one member is set."""

    certificate: CertificateAuthentication | None = None
    basic: BasicAuthentication | None = None
    service_account_token: ServiceAccountTokenAuthentication | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("set exactly one of certificate, basic and serviceAccountToken")
        return self


class Est(_Part):
    """How the issuer is reached over EST."""

    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:]{0,61}[A-Za-z0-9])?$")] | None = None
    authentication: Annotated[tuple[Authentication, ...], Field(max_length=16, strict=False)] = ()
    channel_binding: Annotated[ChannelBinding, Field(strict=False)] = ChannelBinding.OPTIONAL

    @model_validator(mode="after")
    def _label_is_no_operation(self) -> Self:
        if self.label in OPERATIONS:
            raise ValueError(f"label: {self.label} is the name of an EST operation (RFC 7030 section 3.2.2); choose another")
        return self


class DurationPolicy(_Part):
    """Life of a certificate: what a request without a duration gets, and the longest."""

    default: Duration = timedelta(hours=2160)
    max: Duration = timedelta(hours=8760)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.default > self.max:
            raise ValueError("default is longer than max")
        if self.default < MIN_LIFE:
            raise ValueError("default: a certificate lives at least 5m")
        return self


Names = Annotated[tuple[ShortText, ...], Field(max_length=64, strict=False)]


class RuleFrom(_Part):
    """Whom a rule is for: every member that is set must match. Patterns: `*` at any place stands for any run of characters.

    `users` are those of HTTP Basic and of third-party certificates; `serviceAccounts` are names without the namespace.
    """

    authentication: Literal["certificate", "thirdPartyCertificate", "basic", "serviceAccountToken"] | None = None
    namespaces: Names = ()
    service_accounts: Names = ()
    users: Names = ()
    groups: Names = ()

    @model_validator(mode="after")
    def _nobody_is_not_everybody(self) -> Self:
        for name in self.model_fields_set:
            if getattr(self, name) == ():
                raise ValueError(f"{to_camel(name)} is empty: list somebody, or leave the field out to match everybody")
        return self


def _text_pattern(text: str) -> str:
    TextPattern.parse(text)
    return text


SubjectText = Annotated[ShortText, AfterValidator(_text_pattern)]


class SubjectRule(_Part):
    """Subject attributes a request may have; what is not listed must be absent. Values are patterns or templates."""

    common_name: SubjectText | None = None
    organization: SubjectText | None = None
    organizational_unit: SubjectText | None = None
    country: SubjectText | None = None
    serial_number: SubjectText | None = None


def _dns_pattern(text: str) -> str:
    DnsPattern.parse(text)
    return text


def _uri_pattern(text: str) -> str:
    UriPattern.parse(text)
    return text


def _ip_pattern(text: str) -> str:
    parse_ip_pattern(text)
    return text


def _email_pattern(text: str) -> str:
    EmailPattern.parse(text)
    return text


class Rule(_Part):
    """Which names a requester may have. `*` is exactly one DNS label or the last path segment of a URI.

    A rule that lists no names permits none: put first, it shuts a requester out. Without `subject` a request's subject is empty or
    has a commonName only, equal to one of its permitted subject alternative names.
    """

    from_: Annotated[RuleFrom, Field(alias="from")] = RuleFrom()
    subject: SubjectRule | None = None
    dns_names: Annotated[tuple[Annotated[ShortText, AfterValidator(_dns_pattern)], ...], Field(max_length=64, strict=False)] = ()
    uris: Annotated[tuple[Annotated[ShortText, AfterValidator(_uri_pattern)], ...], Field(max_length=64, strict=False)] = ()
    ip_addresses: Annotated[tuple[Annotated[ShortText, AfterValidator(_ip_pattern)], ...], Field(max_length=64, strict=False)] = ()
    email_addresses: Annotated[tuple[Annotated[ShortText, AfterValidator(_email_pattern)], ...], Field(max_length=64, strict=False)] = ()
    wildcards: bool = False
    channel_binding: Annotated[ChannelBinding, Field(strict=False)] | None = None

    @cached_property
    def patterns(self) -> RulePatterns:
        """The names, parsed once: the hot path only matches."""
        return RulePatterns.parse(
            dns_names=self.dns_names,
            uris=self.uris,
            ip_addresses=self.ip_addresses,
            email_addresses=self.email_addresses,
            subject=self.subject.model_dump(by_alias=True, exclude_none=True) if self.subject else None,
        )


class Policy(_Part):
    """What may be issued, to whom. `usages` are the most that a certificate may have, and what a CSR that names none gets."""

    duration: DurationPolicy = DurationPolicy()
    keys: Annotated[tuple[Annotated[KeyAlgorithm, Field(strict=False)], ...], Field(min_length=1, max_length=6, strict=False)] = tuple(
        KeyAlgorithm
    )
    usages: Annotated[tuple[Annotated[Usage, Field(strict=False)], ...], Field(min_length=1, max_length=16, strict=False)] = (
        Usage.DIGITAL_SIGNATURE,
        Usage.KEY_ENCIPHERMENT,
        Usage.SERVER_AUTH,
        Usage.CLIENT_AUTH,
    )
    rules: Annotated[tuple[Rule, ...], Field(max_length=64, strict=False)] = ()

    @model_validator(mode="after")
    def _every_key_has_a_use(self) -> Self:
        if not KEY_USAGES & self.allowed_usages:
            raise ValueError("usages: list at least one key usage, such as digital signature")
        for key in self.keys:
            if not POSSIBLE_KEY_USAGES[key] & self.allowed_usages:
                raise ValueError(f"usages: none is possible for {key} keys; list digital signature too, or leave {key} out of keys")
        return self

    @cached_property
    def allowed_usages(self) -> frozenset[Usage]:
        """`usages` as a set."""
        return frozenset(self.usages)


class IssuerSpec(_Part):
    """`spec` of an EstIssuer or EstClusterIssuer."""

    ca: Ca
    est: Est = Est()
    policy: Policy = Policy()


_PLAIN_WORDS = {
    "extra_forbidden": "this field is unknown",
    "missing": "this field is required",
    "model_type": "expected an object",
    "tuple_type": "expected a list",
}
_PATTERNS_IN_WORDS = {
    "secretName": "the name of a Secret: lower-case letters, digits, - and ., at most 253",
    "caSecretName": "the name of a Secret: lower-case letters, digits, - and ., at most 253",
    "label": "a label is 1 to 63 letters, digits, -, ., _ and :, and begins and ends with a letter or digit",
}


def _say(error: ErrorDetails) -> str:
    """Put pydantic's finding into a sentence that says what to write."""
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS_IN_WORDS.get(str(error["loc"][-1]), error["msg"])
    return _PLAIN_WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))


def parse(spec: Mapping[str, Any], *, where: str) -> IssuerSpec:
    """Parse a spec as JSON or YAML gave it.

    `where` names the file or object in the error. Raises ConfigurationError with the path of the first wrong field and what to write.
    """
    try:
        return IssuerSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        raise ConfigurationError(_say(first), where=where, field=field, reason="InvalidSpec") from error
