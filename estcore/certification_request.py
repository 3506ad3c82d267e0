"""What is asked for, in whichever form it came: a PKCS#10 CSR, a CRMF message, or either with what a registration authority changed.

RFC 5272 calls both forms certification requests. Whoever makes one has checked signature, key and names; nothing in it has been permitted.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509

from estcore.keys import PublicKey
from estcore.spec_part import KeyAlgorithm
from estcore.usages import Usage
from estcore.value import value


class RequestForm(StrEnum):
    """The forms that a certification request comes in (RFC 5272 section 3.2.1.2)."""

    PKCS10 = "PKCS#10"
    CRMF = "CRMF"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSubjectName:
    """The names that the new certificate shall have instead of the old ones (RFC 6402 section 2.8).

    `subject` is empty where it was absent, and so is `sans`: absence removes.
    """

    subject: x509.Name
    sans: tuple[x509.GeneralName, ...]


@value(frozen=True, slots=True, kw_only=True)
class CertificationRequest:
    """A request whose signature, key and names have been checked; nothing in it has been permitted.

    `usages` are those of the requested keyUsage and extendedKeyUsage, None where it carries neither; `sans` is empty where it
    carries no subjectAltName. `challenge_password` and `identity_linking` are the texts of those attributes: channel binding, or
    nothing (RFC 7030 section 3.5, RFC 7894 section 3.3).
    """

    csr_der: bytes = field(repr=False)
    """As it was sent: a CertificationRequest, or a CertReqMsg (RFC 4211), which `form` says."""
    public_key: PublicKey
    spki_der: bytes
    key_algorithm: KeyAlgorithm
    subject: x509.Name
    subject_der: bytes
    sans: tuple[x509.GeneralName, ...] = ()
    usages: frozenset[Usage] | None = None
    duration: timedelta | None = None
    """The life asked for; None asks for the policy's default."""
    ends_at: datetime | None = None
    """Where an end was asked for and no beginning (RFC 4211 section 5): `duration` is what was left of it, less each time it is asked."""
    ca: bool = False
    """A CA certificate is asked for: never true of what a requester sends, for parsing refuses that; a registration authority may ask."""
    cmc_ra: bool = False
    """The extended key usage id-kp-cmcRA is asked for (RFC 6402 section 2.10)."""
    proven: bool = True
    """The sender showed that it has the private key. False for id-alg-noSignature, until a proof of RFC 5272 section 6.7 or 6.8."""
    subject_key_identifier: bytes | None = None
    challenge_password: str | None = None
    identity_linking: str | None = None
    one_time_password: str | None = field(default=None, repr=False)
    revocation_challenge: str | None = field(default=None, repr=False)
    name_change: ChangeSubjectName | None = None
    smime_capabilities_der: bytes | None = None
    decrypt_key_id: bytes | None = None
    asymmetric_decrypt_key_id: bytes | None = None
    pop_link_witness: bytes | None = None
    pop_link_witness_v2_der: bytes | None = None
    attribute_types: frozenset[bytes] = frozenset()
    """DER of the object identifiers of all its attributes, those of no meaning here too."""
    signature_algorithm_der: bytes = b""
    form: RequestForm = RequestForm.PKCS10
