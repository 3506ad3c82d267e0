"""`spec.est` of an issuer: its labels, who may authenticate how, and what its EST operations do.

Nothing here reads a Secret: the models name them.
"""

from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from estcore import csr_wishes, csrattrs
from estcore.csrattrs import CsrAttrs
from estcore.spec_part import OPERATIONS, ChannelBinding, Duration, KeyAlgorithm, SecretName, ShortText, SpecPart


class CertificateAuthentication(SpecPart):
    """TLS client certificates: this issuer's own (`issuedBy: this`), or those under the anchors in a Secret.

    `expiredFor`: how long ago one of this issuer's own may have expired and still renew itself; absent is not at all.
    """

    issued_by: Literal["this"] | None = None
    ca_secret_name: SecretName | None = None
    expired_for: Duration | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.issued_by is None) == (self.ca_secret_name is None):
            raise ValueError("set exactly one of issuedBy and caSecretName")
        if self.expired_for is not None and self.issued_by is None:
            raise ValueError("expiredFor goes with issuedBy: this")
        return self


class BasicAuthentication(SpecPart):
    """HTTP Basic: a kubernetes.io/basic-auth Secret, or one with an htpasswd file under `auth`."""

    secret_name: SecretName


class DigestAuthentication(SpecPart):
    """HTTP Digest (RFC 7616): a Secret with lines user:realm:algorithm:HA1 under `digest`. MD5 is for clients that know no other."""

    secret_name: SecretName
    md5: bool = False


class OneTimePasswordAuthentication(SpecPart):
    """A password in the CSR's otpChallenge (RFC 7894), good for one enrolment: a Secret with lines user:hash under `otp`."""

    secret_name: SecretName


class CmcSharedSecretAuthentication(SpecPart):
    """A secret that proves identity in a Full PKI Request (RFC 5272 section 6.2): a Secret with an entry a name."""

    secret_name: SecretName


class ServiceAccountTokenAuthentication(SpecPart):
    """A Kubernetes ServiceAccount token, checked by TokenReview with this audience."""

    audience: ShortText = "est-issuer"


_PASSWORDS = frozenset({"basic", "digest", "one_time_password"})


class Authentication(SpecPart):
    """One way to authenticate: one member, or `certificate` and a password together, which are then both needed."""

    certificate: CertificateAuthentication | None = None
    basic: BasicAuthentication | None = None
    digest: DigestAuthentication | None = None
    one_time_password: OneTimePasswordAuthentication | None = None
    cmc_shared_secret: CmcSharedSecretAuthentication | None = None
    service_account_token: ServiceAccountTokenAuthentication | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        named = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if len(named) == 2 and "certificate" in named and named & _PASSWORDS:
            return self
        if len(named) != 1 or named != self.model_fields_set:
            raise ValueError(
                "set exactly one of certificate, basic, digest, oneTimePassword, cmcSharedSecret and serviceAccountToken, "
                "or certificate with basic, digest or oneTimePassword where both are needed"
            )
        return self


class Approval(StrEnum):
    """Whether a person says yes to each request that came by EST."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class CsrAttributes(StrEnum):
    """What /csrattrs is for: wishes, demands, or nothing."""

    ADVISED = "Advised"
    ENFORCED = "Enforced"
    NONE = "None"


class Encryption(StrEnum):
    """Whether a server-generated key must be encrypted beyond TLS."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"


class RaChannelBinding(StrEnum):
    """Whether the channel binding in a CSR that a registration authority sends on is looked at (RFC 7030 section 3.7)."""

    EXEMPT = "Exempt"
    VERIFIED = "Verified"


class WrappingKeys(SpecPart):
    """The keys that server-generated keys are encrypted for."""

    secret_name: SecretName


class ServerKeyGeneration(SpecPart):
    """/serverkeygen (RFC 7030 section 4.4)."""

    enabled: bool = False
    encryption: Annotated[Encryption, Field(strict=False)] = Encryption.REQUIRED
    key_algorithm: Annotated[KeyAlgorithm, Field(strict=False)] = KeyAlgorithm.ECDSA_P256
    wrapping_keys: WrappingKeys | None = None

    @model_validator(mode="after")
    def _can_encrypt(self) -> Self:
        if self.enabled and self.encryption is Encryption.REQUIRED and self.wrapping_keys is None:
            raise ValueError("encryption: Required needs wrappingKeys; name their Secret, or set encryption: Optional")
        return self


MAX_WRITTEN_ITEMS = 64
"""Fewer than a CsrAttrs may have: what the issuer must list is added to them."""


class WrittenCsrAttributes(SpecPart):
    """CSR attributes written by hand: a whole CsrAttrs as base64 of DER, or the OIDs of attributes."""

    der: Annotated[str, Field(min_length=1, max_length=16384)] | None = None
    oids: Annotated[tuple[ShortText, ...], Field(max_length=64, strict=False)] = ()

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.der is None) == (not self.oids):
            raise ValueError("set exactly one of der and oids")
        csrattrs.check_well_formed(self.items)
        if len(self.items) > MAX_WRITTEN_ITEMS:
            raise ValueError(f"they are {len(self.items)} items, more than {MAX_WRITTEN_ITEMS}")
        return self

    @cached_property
    def items(self) -> CsrAttrs:
        """What was written; raises ValueError."""
        return csrattrs.parse_oids(self.oids) if self.der is None else csrattrs.parse_base64(self.der)


Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:]{0,61}[A-Za-z0-9])?$", max_length=63)]


class Est(SpecPart):
    """How the issuer is reached over EST. `labels` are further ones it answers at, beside `label`."""

    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:]{0,61}[A-Za-z0-9])?$")] | None = None
    labels: Annotated[tuple[Label, ...], Field(max_length=8, strict=False)] = ()
    authentication: Annotated[tuple[Authentication, ...], Field(max_length=16, strict=False)] = ()
    channel_binding: Annotated[ChannelBinding, Field(strict=False)] = ChannelBinding.OPTIONAL
    ra_channel_binding: Annotated[RaChannelBinding, Field(strict=False)] = RaChannelBinding.EXEMPT
    approval: Annotated[Approval, Field(strict=False)] = Approval.AUTOMATIC
    approval_within: Duration = timedelta(hours=168)
    csr_attributes: Annotated[CsrAttributes, Field(strict=False)] = CsrAttributes.ADVISED
    written_csr_attributes: WrittenCsrAttributes | None = None
    server_key_generation: ServerKeyGeneration = ServerKeyGeneration()
    accept_pem: bool = False
    accept_sha1_proofs: bool = False

    @model_validator(mode="after")
    def _label_is_no_operation(self) -> Self:
        for label in (self.label, *self.labels):
            if label in OPERATIONS:
                raise ValueError(f"label: {label} is the name of an EST operation (RFC 7030 section 3.2.2); choose another")
        return self

    @model_validator(mode="after")
    def _written_csr_attributes_have_a_use(self) -> Self:
        if self.written_csr_attributes is not None:
            if self.csr_attributes is CsrAttributes.NONE:
                raise ValueError("writtenCsrAttributes: nobody is told them while csrAttributes is None; leave one of the two out")
            if self.csr_attributes is CsrAttributes.ENFORCED:
                try:
                    csr_wishes.check_can_be_followed(csr_wishes.read(self.written_csr_attributes.items))
                except ValueError as error:
                    raise ValueError(f"writtenCsrAttributes: {error}") from error
        return self
