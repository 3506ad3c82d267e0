"""`spec.policy` of an issuer: what may be issued, to whom.

The patterns of names are parsed once, when a rule is first used.
"""

from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from estcore.label_selector import LabelSelector
from estcore.other_name_patterns import OtherNamePattern
from estcore.patterns import DnsPattern, EmailPattern, TextPattern, UriPattern, parse_ip_pattern
from estcore.requester import Door
from estcore.rule_patterns import RulePatterns
from estcore.spec_part import POSSIBLE_KEY_USAGES, ChannelBinding, Duration, KeyAlgorithm, ShortText, SpecPart
from estcore.usages import KEY_USAGES, Usage

MIN_LIFE = timedelta(minutes=5)
"""Shortest life that a policy may name: backdating (profile.BACKDATE) and clock skew would eat a shorter one."""


class DurationPolicy(SpecPart):
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


Proof = Literal["certificate", "thirdPartyCertificate", "basic", "digest", "oneTimePassword", "cmcSharedSecret", "serviceAccountToken"]
"""What proved a requester's identity: members of requester.AuthenticatedBy."""


class RuleFrom(SpecPart):
    """Whom a rule is for: every member that is set must match. Patterns: `*` at any place stands for any run of characters.

    `users` are those of passwords and shared secrets; `serviceAccounts` are names without the namespace. `withCertificate` asks
    for a TLS client certificate beside what `authentication` names: this issuer's own, or a third party's. `namespaceSelector` selects
    by the labels of the namespace, which only the operator knows: it matches nobody who comes by EST. `doors` are ways in.
    """

    authentication: (
        Literal["certificate", "thirdPartyCertificate", "basic", "digest", "oneTimePassword", "cmcSharedSecret", "serviceAccountToken"]
        | None
    ) = None
    with_certificate: Literal["certificate", "thirdPartyCertificate"] | None = None
    doors: Annotated[tuple[Annotated[Door, Field(strict=False)], ...], Field(max_length=8, strict=False)] = ()
    namespaces: Names = ()
    namespace_selector: LabelSelector | None = None
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


SubjectTexts = Annotated[tuple[SubjectText, ...], Field(min_length=1, max_length=64, strict=False)]

_ATTRIBUTES_OF_LISTS = {"organizations": "organization", "organizationalUnits": "organizationalUnit", "domainComponents": "domainComponent"}
"""Fields that list several patterns, and those for one of the same attribute."""


class SubjectRule(SpecPart):
    """Subject attributes a request may have; what is not listed must be absent. Values are patterns or templates.

    Of a list (`organizations`) each value of the attribute fits one pattern; neither their number nor their order is fixed.
    """

    common_name: SubjectText | None = None
    organization: SubjectText | None = None
    organizations: SubjectTexts = ()
    organizational_unit: SubjectText | None = None
    organizational_units: SubjectTexts = ()
    country: SubjectText | None = None
    state_or_province: SubjectText | None = None
    locality: SubjectText | None = None
    street_address: SubjectText | None = None
    postal_code: SubjectText | None = None
    domain_component: SubjectText | None = None
    domain_components: SubjectTexts = ()
    user_id: SubjectText | None = None
    serial_number: SubjectText | None = None

    @model_validator(mode="after")
    def _one_field_for_an_attribute(self) -> Self:
        given = self._given()
        for several, one in _ATTRIBUTES_OF_LISTS.items():
            if several in given and one in given:
                raise ValueError(f"{one} and {several} are both set: put all patterns into {several}, and leave {one} out")
        return self

    def by_attribute(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """The field of each attribute and its patterns, by the name of the field for one (`organization`)."""
        return {
            _ATTRIBUTES_OF_LISTS.get(field, field): (field, (texts,) if isinstance(texts, str) else texts)
            for field, texts in self._given().items()
        }

    def _given(self) -> dict[str, str | tuple[str, ...]]:
        return {field: texts for field, texts in self.model_dump(by_alias=True).items() if texts}


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


class OtherName(SpecPart):
    """An otherName, as a Certificate of cert-manager has it: a dotted OID, and a pattern of the UTF8String that is its value."""

    oid: Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=128)]
    utf8_value: ShortText

    @model_validator(mode="after")
    def _pattern(self) -> Self:
        OtherNamePattern.parse(self.oid, self.utf8_value)
        return self


class Rule(SpecPart):
    """Which names a requester may have. `*` is exactly one DNS label, the last path segment of a URI, or all that is before an `@`.

    A rule that lists no names permits none: put first, it shuts a requester out. Without `subject` a request's subject is empty or
    has a commonName only, equal to one of its permitted subject alternative names.
    """

    from_: Annotated[RuleFrom, Field(alias="from")] = RuleFrom()
    subject: SubjectRule | None = None
    dns_names: Annotated[tuple[Annotated[ShortText, AfterValidator(_dns_pattern)], ...], Field(max_length=64, strict=False)] = ()
    uris: Annotated[tuple[Annotated[ShortText, AfterValidator(_uri_pattern)], ...], Field(max_length=64, strict=False)] = ()
    ip_addresses: Annotated[tuple[Annotated[ShortText, AfterValidator(_ip_pattern)], ...], Field(max_length=64, strict=False)] = ()
    email_addresses: Annotated[tuple[Annotated[ShortText, AfterValidator(_email_pattern)], ...], Field(max_length=64, strict=False)] = ()
    other_names: Annotated[tuple[OtherName, ...], Field(max_length=64, strict=False)] = ()
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
            other_names=((name.oid, name.utf8_value) for name in self.other_names),
            subject=self.subject.by_attribute() if self.subject else None,
        )


class KeyReuse(StrEnum):
    """Whether a certificate may be renewed with the key that it has (RFC 7030 section 4.2.2: renew, or rekey)."""

    ALLOWED = "Allowed"
    FORBIDDEN = "Forbidden"


class NameChange(StrEnum):
    """Whether ChangeSubjectName (RFC 6402 section 2.8) is honoured: never, or where the rules permit the new names."""

    FORBIDDEN = "Forbidden"
    BY_RULES = "ByRules"


USUAL_KEYS = tuple(algorithm for algorithm in KeyAlgorithm if algorithm is not KeyAlgorithm.ECDSA_P521)
"""P-521 is for who lists it: some TLS stacks and trust programmes do not take it, and P-384 serves where P-256 does not."""


class Policy(SpecPart):
    """What may be issued, to whom. `usages` are the most that a certificate may have, and what a CSR that names none gets.

    `isCA` lets a registration authority ask for the certificate of a subordinate CA, which issues end entities only.
    """

    duration: DurationPolicy = DurationPolicy()
    keys: Annotated[tuple[Annotated[KeyAlgorithm, Field(strict=False)], ...], Field(min_length=1, max_length=7, strict=False)] = USUAL_KEYS
    usages: Annotated[tuple[Annotated[Usage, Field(strict=False)], ...], Field(min_length=1, max_length=16, strict=False)] = (
        Usage.DIGITAL_SIGNATURE,
        Usage.KEY_ENCIPHERMENT,
        Usage.SERVER_AUTH,
        Usage.CLIENT_AUTH,
    )
    is_ca: Annotated[bool, Field(alias="isCA")] = False
    key_reuse: Annotated[KeyReuse, Field(strict=False)] = KeyReuse.ALLOWED
    name_change: Annotated[NameChange, Field(strict=False)] = NameChange.FORBIDDEN
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

    @cached_property
    def other_name_types(self) -> frozenset[str]:
        """The dotted types of otherNames that any rule permits."""
        return frozenset(name.oid for rule in self.rules for name in rule.other_names)

    @cached_property
    def binds_some(self) -> bool:
        """Whether a rule demands channel binding of those that it is for."""
        return any(rule.channel_binding is ChannelBinding.REQUIRED for rule in self.rules)
