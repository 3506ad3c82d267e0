"""The `spec` of an EstIssuer or EstClusterIssuer, parsed strictly.

The same shape comes from a YAML file and from the Kubernetes API, and crds/ holds it as a schema: a test keeps the two equal.
Pydantic does the parsing, here and in spec_part, est_spec, policy_spec and label_selector; nothing here reads a Secret.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from estcore.errors import BadCsr, ConfigurationError
from estcore.est_spec import Approval, Authentication, CsrAttributes, Encryption, Est, RaChannelBinding
from estcore.label_selector import LabelSelector
from estcore.names import check_name
from estcore.policy_spec import MIN_LIFE, KeyReuse, NameChange, Policy, Rule, RuleFrom
from estcore.spec_part import (
    OPERATIONS,
    POSSIBLE_KEY_USAGES,
    ChannelBinding,
    Duration,
    KeyAlgorithm,
    SecretName,
    SpecPart,
    parse_duration,
)

__all__ = [
    "MIN_LIFE",
    "OPERATIONS",
    "POSSIBLE_KEY_USAGES",
    "Approval",
    "Authentication",
    "Ca",
    "ChannelBinding",
    "CsrAttributes",
    "Duration",
    "Encryption",
    "Est",
    "Generate",
    "IssuerSpec",
    "KeyAlgorithm",
    "KeyReuse",
    "NameChange",
    "Policy",
    "RaChannelBinding",
    "Rule",
    "RuleFrom",
    "TrustConfigMap",
    "TrustOut",
    "parse",
    "parse_duration",
]

MIN_CA_LIFE = timedelta(hours=1)


def _ca_common_name(text: str) -> str:
    try:
        check_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]))
    except BadCsr as error:
        raise ValueError(f"{text!r} cannot name a CA: {error}") from error
    return text


class Generate(SpecPart):
    """The CA that is made when the Secret is absent."""

    common_name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_ca_common_name)]
    key_algorithm: Annotated[KeyAlgorithm, Field(strict=False)] = KeyAlgorithm.ECDSA_P256
    duration: Duration = timedelta(hours=87600)

    @model_validator(mode="after")
    def _lives(self) -> Self:
        if self.duration < MIN_CA_LIFE:
            raise ValueError("duration: a CA lives at least 1h")
        return self


class Ca(SpecPart):
    """Where the CA key is: a kubernetes.io/tls Secret with the issuing CA first in tls.crt, then its chain."""

    secret_name: SecretName
    generate: Generate | None = None


class Exec(SpecPart):
    """A program that is asked, with its arguments; no shell. In directory mode only: a manifest of the cluster names no program."""

    command: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(min_length=1, max_length=64, strict=False)]
    timeout: Duration = timedelta(seconds=10)


class Webhook(SpecPart):
    """An HTTPS server that is asked, trusted by the certificates in `caBundle` (PEM)."""

    url: Annotated[str, Field(pattern=r"^https://[^\s?#]+$", max_length=2048)]
    ca_bundle: Annotated[str, Field(min_length=1, max_length=65536)]
    timeout: Duration = timedelta(seconds=10)


class Authorization(SpecPart):
    """Who is asked after policy whether a certificate may be issued; exactly one member is set."""

    exec_: Annotated[Exec | None, Field(alias="exec")] = None
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.exec_ is None) == (self.webhook is None):
            raise ValueError("set exactly one of exec and webhook")
        return self


class Signer(SpecPart):
    """Who signs instead of the key in the CA Secret, which then needs none."""

    exec_: Annotated[Exec, Field(alias="exec")]


class TrustConfigMap(SpecPart):
    """A ConfigMap with the trust anchors under `ca.crt`; for an EstClusterIssuer in each namespace that the selector selects."""

    name: SecretName
    namespace_selector: LabelSelector | None = None


class TrustOut(SpecPart):
    """Where the trust anchors go, beside the ClusterTrustBundle that every issuer has."""

    config_map: TrustConfigMap | None = None


class IssuerSpec(SpecPart):
    """`spec` of an EstIssuer or EstClusterIssuer.

    `allowedNamespaces` selects the namespaces whose objects may name an EstClusterIssuer: absent is none, `{}` is all.
    """

    ca: Ca
    allowed_namespaces: LabelSelector | None = None
    signer: Signer | None = None
    authorization: Authorization | None = None
    est: Est = Est()
    policy: Policy = Policy()
    trust: TrustOut = TrustOut()

    @model_validator(mode="after")
    def _signer_signs_requests_only(self) -> Self:
        if self.signer is not None and self.ca.generate is not None:
            raise ValueError("signer: a CA whose key is elsewhere is not generated; leave ca.generate out")
        if self.signer is not None and self.est.server_key_generation.enabled:
            raise ValueError("signer: server-generated keys are signed for by the CA's own key; leave est.serverKeyGeneration out")
        return self

    @model_validator(mode="after")
    def _makes_keys_that_may_be_certified(self) -> Self:
        keygen = self.est.server_key_generation
        if keygen.enabled and keygen.key_algorithm not in self.policy.keys:
            raise ValueError(
                f"est.serverKeyGeneration.keyAlgorithm: policy.keys has no {keygen.key_algorithm}, so no key gets a certificate"
            )
        return self


_PLAIN_WORDS = {
    "extra_forbidden": "this field is unknown",
    "missing": "this field is required",
    "model_type": "expected an object",
    "tuple_type": "expected a list",
}
_PATTERNS_IN_WORDS = {
    "secretName": "the name of a Secret: lower-case letters, digits, - and ., at most 253",
    "caSecretName": "the name of a Secret: lower-case letters, digits, - and ., at most 253",
    "name": "a name of lower-case letters, digits, - and ., at most 253",
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
