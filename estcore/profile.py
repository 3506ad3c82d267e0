"""What any certificate of an issuer may look like, whoever asks: keys, usages, life. Its output is all that the signer sees.

A `Plan` has no place for a CA flag, a path length or an extension of the CSR's choice: what the profile did not allow cannot be
written (threats rows 1 and 2). Registration decides names; nothing here asks who the requester is.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from estcore.certification_request import CertificationRequest
from estcore.errors import Forbidden, IssuerNotReady, SignerError
from estcore.issuer_spec import MIN_LIFE, POSSIBLE_KEY_USAGES, Policy
from estcore.registration import Authorized, without_encipherment
from estcore.spec_part import KeyAlgorithm
from estcore.usages import KEY_USAGES, Usage
from estcore.value import value

BACKDATE: Final = timedelta(minutes=1)
"""How far notBefore lies back, for clients whose clock is slow; threats row 30 allows 5 minutes, kube-apiserver's signer takes 5."""

LONGEST_RA_LIFE: Final = timedelta(hours=24)
"""A registration authority's certificate vouches for anybody, so it is short and renewed."""

EARLIEST_NOW: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""A clock before this was never set (a board without a battery): nothing is signed by it."""


@value(frozen=True, slots=True, kw_only=True)
class Plan:
    """A certificate to be signed: an end entity's, unless a registration authority asked for a CA's. Times are whole seconds, UTC."""

    subject: x509.Name
    sans: tuple[x509.GeneralName, ...]
    spki_der: bytes
    usages: frozenset[Usage]
    """At least one of them is a key usage; none for a CA, whose usages are its own."""
    left_out: frozenset[Usage]
    """Asked for, and not granted because the key cannot do it."""
    not_before: datetime
    not_after: datetime
    cmc_ra: bool = False
    """With the extended key usage id-kp-cmcRA."""
    ca: bool = False
    """A subordinate CA that issues end entities only."""


def check_csr(csr: CertificationRequest, policy: Policy) -> None:
    """Check what a CSR says beside its names and usages. Raises Forbidden (CaRequested, KeyNotPermitted, DurationNotPermitted)."""
    if csr.ca and not policy.is_ca:
        raise Forbidden("the CSR asks for a CA certificate (basicConstraints CA:TRUE); this issuer issues none", reason="CaRequested")
    # A registration authority of this server chooses no key: its own kind is good enough for every issuer, whatever that gives to others.
    if csr.key_algorithm not in policy.keys and not (csr.cmc_ra and csr.key_algorithm is KeyAlgorithm.ECDSA_P256):
        raise Forbidden(
            f"{csr.key_algorithm} keys are not permitted: this issuer's policy lists {', '.join(policy.keys)}", reason="KeyNotPermitted"
        )
    if csr.duration is not None and not MIN_LIFE <= csr.duration <= policy.duration.max:
        raise Forbidden(
            f"a life of {csr.duration} was asked for: this issuer's policy permits {MIN_LIFE} to {policy.duration.max}",
            reason="DurationNotPermitted",
        )


def plan(authorized: Authorized, policy: Policy, *, now: datetime, ca_certificate: x509.Certificate) -> Plan:
    """Lay down the certificate for an authorized request. Raises Forbidden for what the profile does not allow, IssuerNotReady."""
    csr = authorized.csr
    check_csr(csr, policy)
    if csr.ca:
        _check_may_issue_cas(authorized, ca_certificate)
    usages, left_out = (frozenset[Usage](), frozenset[Usage]()) if csr.ca else _granted(authorized.usages, csr)
    duration = csr.duration or policy.duration.default
    if authorized.cmc_ra:
        duration = min(duration, LONGEST_RA_LIFE)
    not_before, not_after = validity(duration, now=now, ca_certificate=ca_certificate)
    return Plan(
        subject=authorized.subject,
        sans=authorized.sans,
        spki_der=csr.spki_der,
        usages=usages,
        left_out=left_out,
        not_before=not_before,
        not_after=not_after,
        cmc_ra=authorized.cmc_ra,
        ca=csr.ca,
    )


def _check_may_issue_cas(authorized: Authorized, ca_certificate: x509.Certificate) -> None:
    """Only a registration authority asks for a CA, and the CA above must not be the last of its path (RFC 5280 section 4.2.1.9)."""
    if not authorized.requester.registration_authority:
        raise Forbidden("a CA certificate is issued at the request of a registration authority only", reason="CaRequested")
    constraints = ca_certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if constraints.path_length == 0:
        raise Forbidden("this issuer's own CA certificate lets it issue end entities only (pathLenConstraint 0)", reason="CaRequested")


def _granted(usages: frozenset[Usage], csr: CertificationRequest) -> tuple[frozenset[Usage], frozenset[Usage]]:
    granted, left_out = without_encipherment(usages, csr.key_algorithm)
    impossible = (granted & KEY_USAGES) - POSSIBLE_KEY_USAGES[csr.key_algorithm]
    if impossible and csr.usages is not None and csr.usages & impossible:
        raise Forbidden(
            f"{csr.key_algorithm} keys have no usage {', '.join(sorted(impossible))} (RFC 3279, RFC 8410): ask without it",
            reason="UsageNotPermitted",
        )
    granted -= impossible
    if not granted & KEY_USAGES:
        raise Forbidden(
            f"the usages asked for leave no key usage that {csr.key_algorithm} keys can have: ask for digital signature",
            reason="UsageNotPermitted",
        )
    if Usage.TIMESTAMPING in granted and len(granted - KEY_USAGES) > 1:
        raise Forbidden(
            "timestamping is the only extended key usage of its certificate (RFC 3161 section 2.3): name the usages in the CSR",
            reason="UsageNotPermitted",
        )
    return granted, left_out


def validity(duration: timedelta, *, now: datetime, ca_certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """Return notBefore and notAfter, `duration` apart and inside the CA's own validity.

    Backdating shortens what is left and never lengthens a life (contract 20: the whole is the duration, to the second).

    Raises IssuerNotReady when the CA is not valid now, SignerError for a clock that was never set.
    """
    if now.tzinfo is None or now < EARLIEST_NOW:
        raise SignerError("the clock is not set: nothing can be signed")
    check_validity(ca_certificate, now=now)
    not_before = max(now.astimezone(UTC).replace(microsecond=0) - BACKDATE, ca_certificate.not_valid_before_utc)
    return not_before, min(not_before + duration, ca_certificate.not_valid_after_utc)


def check_validity(ca_certificate: x509.Certificate, *, now: datetime) -> None:
    """An expired CA never signs, nor one that is not valid yet. Raises IssuerNotReady."""
    if now > ca_certificate.not_valid_after_utc:
        raise IssuerNotReady(f"this issuer's CA expired on {ca_certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC", reason="CAExpired")
    if now < ca_certificate.not_valid_before_utc:
        raise IssuerNotReady(
            f"this issuer's CA is not valid before {ca_certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC", reason="CANotYetValid"
        )
