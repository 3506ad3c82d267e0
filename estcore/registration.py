"""Who may have a certificate for which names: the only place that makes an `Authorized`.

`Authorized` is what `authority.issue` takes, and nothing else can be signed: a CSR that took another path has no such value (threats
row 9: step-ca CVE-2025-44005, EJBCA CVE-2020-28942). Called for EST by estserver where the requester was authenticated, for the
Kubernetes doors by the operator. Pure: no IO, no clock.

Covers RFC 7030 sections 3.5 (linking identity and proof of possession), 3.7 and 4.2.1 (authorization), 4.2.2 (re-enrolment).
"""

import base64
import hmac
from dataclasses import InitVar, dataclass, field, replace
from datetime import timedelta
from typing import Final, Never, final

from cryptography import x509
from cryptography.x509.oid import NameOID

from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, BindingMismatch, Forbidden, SignerError
from estcore.issuer_spec import POSSIBLE_KEY_USAGES, ChannelBinding, KeyAlgorithm, KeyReuse, NameChange, Policy
from estcore.keys import spki_der
from estcore.names import describe_general_name, same_general_names, same_name
from estcore.requester import AuthenticatedBy, Requester
from estcore.rules import check_may_exist, check_names, check_type_is_permitted, describe, is_same_text, rule_for
from estcore.usages import CONSISTENT_KEY_USAGES, ENCIPHERMENT, KEY_USAGES, Usage

_SEAL: Final = object()  # who has it may make an Authorized; it never leaves this module


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Authorized:
    """A request that registration let pass: the permission to sign one certificate, once.

    It cannot be made, copied, changed or subclassed outside this module (TypeError), and `authority.issue` redeems it.
    """

    requester: Requester
    csr: CertificationRequest
    subject: x509.Name
    """As it will stand in the certificate."""
    sans: tuple[x509.GeneralName, ...]
    usages: frozenset[Usage]
    """What was asked for, or the policy's default; profile leaves out what the key cannot do."""
    cmc_ra: bool
    """The certificate is a registration authority's own (RFC 6402 section 2.10)."""
    policy: Policy
    """That it was judged by."""
    seal: InitVar[object]
    _unredeemed: list[None] = field(default_factory=lambda: [None], init=False, repr=False)

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("an Authorized comes from estcore.registration only")

    def __init_subclass__(cls) -> Never:
        raise TypeError("Authorized has no subclasses")

    def __reduce__(self) -> Never:  # what copy, deepcopy and pickle call
        raise TypeError("an Authorized cannot be copied: it is good for one certificate")

    def redeem(self) -> None:
        """Use it up. Raises SignerError the second time, also when two threads race."""
        try:
            self._unredeemed.pop()
        except IndexError:
            raise SignerError("an authorization was used twice; each is good for one certificate") from None


def authorize(requester: Requester, csr: CertificationRequest, policy: Policy) -> Authorized:
    """Let a requester enrol for the names of its CSR, or refuse.

    A registration authority vouches for names, so no rule is looked for; they must still be names that may be certified at all,
    otherNames of types that a rule has.
    With ChangeSubjectName the CSR's own names must be those of the requester's certificate, and the rules judge the new ones.
    Who shows a certificate of this issuer gets none for its key where the policy forbids that, by whichever operation.
    Raises Forbidden (NoRule, NameNotPermitted, UsageNotPermitted, KeyReused, …), BadCsr for names that are malformed or missing.
    """
    _check_key_is_new(requester, csr, policy)
    if csr.name_change is not None:
        _check_old_names(requester, csr, policy)
        return _by_rules(requester, csr, csr.name_change.subject, csr.name_change.sans, policy)
    return _by_rules(requester, csr, csr.subject, csr.sans, policy)


def authorize_renewal(requester: Requester, csr: CertificationRequest, policy: Policy) -> Authorized:
    """Let the holder of a certificate of this issuer renew or rekey it (RFC 7030 section 4.2.2).

    Subject and subjectAltName must be those of the certificate by RFC 5280 section 7.1; the new certificate has the old one's, not the
    CSR's. The rules are asked for new names only (ChangeSubjectName): the old ones were granted when the certificate was issued. Whether
    the certificate is this issuer's, valid and not revoked was checked where the requester was authenticated. A registration authority
    vouches for the names, as it does at enrolment; what it renews is for whoever has the ledger to look up. Raises Forbidden.
    """
    certificate = requester.certificate
    if requester.registration_authority:
        return authorize(requester, csr, policy)
    if requester.authenticated_by is not AuthenticatedBy.CERTIFICATE or certificate is None:
        raise Forbidden(
            f"simplereenroll is for the holder of a certificate of this issuer, not for {describe(requester)}: use simpleenroll",
            reason="NotRenewable",
        )
    _check_key_is_new(requester, csr, policy)
    if csr.name_change is not None:
        return authorize(requester, csr, policy)
    _check_same_names(certificate, csr)
    return _authorized(requester, csr, certificate.subject, subject_alternative_names(certificate), policy)


def _check_key_is_new(requester: Requester, csr: CertificationRequest, policy: Policy) -> None:
    """What a registration authority asks for is others'; what keys those have had is for whoever has the ledger to look up."""
    certificate = requester.certificate
    if policy.key_reuse is not KeyReuse.FORBIDDEN or requester.registration_authority or certificate is None:
        return
    own = AuthenticatedBy.CERTIFICATE in (requester.authenticated_by, requester.with_certificate)
    if own and csr.spki_der == spki_der(certificate.public_key()):
        raise key_reused()


def key_reused() -> Forbidden:
    """What a renewal with the key of the certificate is answered where the policy forbids that."""
    return Forbidden("this issuer renews no certificate with the key that it has: make a new key", reason="KeyReused")


def _by_rules(
    requester: Requester, csr: CertificationRequest, subject: x509.Name, sans: tuple[x509.GeneralName, ...], policy: Policy
) -> Authorized:
    if requester.registration_authority:
        for san in sans:
            check_may_exist(san)
            check_type_is_permitted(san, policy)
    else:
        found = rule_for(requester, policy)
        if found is None:
            raise Forbidden(f"No rule of this issuer's policy is for {describe(requester)}", reason="NoRule")
        check_names(requester, *found, subject, sans)
    return _authorized(requester, csr, subject, sans, policy)


def _check_old_names(requester: Requester, csr: CertificationRequest, policy: Policy) -> None:
    """RFC 6402 section 2.8: who asks for other names says by the CSR's own ones which certificate they are to replace."""
    if policy.name_change is NameChange.FORBIDDEN:
        raise Forbidden("this issuer changes no names: leave ChangeSubjectName out (RFC 6402 section 2.8)", reason="NameChangeForbidden")
    if requester.registration_authority:
        return
    if requester.certificate is None:
        raise Forbidden(
            "ChangeSubjectName needs TLS with the client certificate that has the old names (RFC 6402 section 2.8)",
            reason="NoClientCertificate",
        )
    _check_same_names(requester.certificate, csr)


def _check_same_names(certificate: x509.Certificate, csr: CertificationRequest) -> None:
    if not same_name(certificate.subject, csr.subject):
        raise Forbidden("the CSR's subject is not that of the certificate to renew (RFC 7030 section 4.2.2)", reason="RenewalNamesDiffer")
    if not same_general_names(subject_alternative_names(certificate), csr.sans):
        raise Forbidden(
            "the CSR's subjectAltName is not that of the certificate to renew (RFC 7030 section 4.2.2)", reason="RenewalNamesDiffer"
        )


def narrowed(
    authorized: Authorized, *, sans: tuple[x509.GeneralName, ...], usages: frozenset[Usage], duration: timedelta | None
) -> Authorized:
    """The same authorization for less: some of its names and usages, a shorter life. Uses the wider one up.

    The subject stays whole. Raises SignerError where anything is not within what was authorized, or nothing is left to certify, Forbidden
    (NameNotPermitted) where a name goes that is the commonName too.
    """
    wider = authorized.csr.duration
    if not set(sans) <= set(authorized.sans) or not usages <= authorized.usages or (duration and wider and duration > wider):
        raise SignerError("an authorization can be narrowed only")
    if not sans and not authorized.subject.rdns:
        raise SignerError("an authorization was narrowed to no name at all")
    _check_common_name_stays(authorized, sans)
    authorized.redeem()
    return Authorized(
        requester=authorized.requester,
        csr=replace(authorized.csr, duration=duration, ends_at=authorized.csr.ends_at if duration == wider else None),
        subject=authorized.subject,
        sans=sans,
        usages=usages,
        cmc_ra=authorized.cmc_ra,
        policy=authorized.policy,
        seal=_SEAL,
    )


def _check_common_name_stays(authorized: Authorized, sans: tuple[x509.GeneralName, ...]) -> None:
    """A commonName is a name to old clients. That it repeats may be all that permitted it, so it does not outlast the name."""
    for name in authorized.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        said = [san for san in authorized.sans if is_same_text(name.value, san)]
        if said and not any(san in sans for san in said):
            raise Forbidden(
                f"{describe_general_name(said[0])} is not permitted by whom this issuer asks, and the subject has it as commonName: ask "
                "without it, in both places",
                reason="NameNotPermitted",
            )


def subject_alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """The names in its subjectAltName; empty when it has none."""
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _authorized(
    requester: Requester, csr: CertificationRequest, subject: x509.Name, sans: tuple[x509.GeneralName, ...], policy: Policy
) -> Authorized:
    if not sans and not subject.rdns:
        raise BadCsr("the CSR names nobody: give it a subject or a subjectAltName (RFC 5280 section 4.1.2.6)", reason="NoName")
    if not csr.proven:
        raise BadCsr("the request does not prove that its sender has the private key (RFC 5272 section 6.7)", reason="NotProven")
    if csr.one_time_password is not None and requester.single_use is None:  # nobody looked at it
        raise BadCsr(
            "otpChallenge is taken by issuers that list oneTimePassword, and where it is the only password: leave it out "
            "(RFC 7894 section 3.1)",
            reason="OneTimePasswordNotTaken",
        )
    if csr.cmc_ra:
        _check_becomes_ra(requester, sans)
    return Authorized(
        requester=requester,
        csr=csr,
        subject=subject,
        sans=tuple(dict.fromkeys(sans)),
        usages=_RA_USAGES if csr.cmc_ra else permitted_usages(csr, policy),
        cmc_ra=csr.cmc_ra,
        policy=policy,
        seal=_SEAL,
    )


_RA_USAGES: Final = frozenset({Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH})


def _check_becomes_ra(requester: Requester, sans: tuple[x509.GeneralName, ...]) -> None:
    """id-kp-cmcRA goes to a registration authority that a ServiceAccount token showed to be one, and to nobody else."""
    if not requester.registration_authority or requester.authenticated_by is not AuthenticatedBy.SERVICE_ACCOUNT_TOKEN:
        raise Forbidden(
            "the extended key usage cmcRA is given to the registration authorities of this server only: ask without it",
            reason="CmcRaRequested",
        )
    if sans:
        raise BadCsr("the certificate of a registration authority has no subjectAltName: ask without it", reason="CmcRaRequested")


def binding_required(requester: Requester, policy: Policy) -> bool:
    """Whether the rule for this requester demands channel binding; the issuer's own `est.channelBinding` comes on top of it."""
    if requester.registration_authority or not policy.binds_some:
        return False
    found = rule_for(requester, policy)
    return found is not None and found[1].channel_binding is ChannelBinding.REQUIRED


def check_binding(csr: CertificationRequest, *, channel_binding: bytes, required: bool) -> None:
    """Check that the CSR was made for this TLS connection (RFC 7030 section 3.5, RFC 9148 section 3).

    `channel_binding` is tls-unique or tls-exporter as raw octets. A challengePassword is always taken for its base64, never for a
    password, and is checked whether required or not; so is estIdentityLinking, each on its own (RFC 7894 section 3.3). Raises
    BindingMismatch.
    """
    if csr.challenge_password is None and csr.identity_linking is None:
        if required:
            raise BindingMismatch(
                "linking of identity and proof of possession is required: put the base64 of the TLS channel binding (tls-unique on "
                "TLS 1.2, tls-exporter on TLS 1.3) into challengePassword or estIdentityLinking"
            )
        return
    expected = base64.b64encode(channel_binding)
    for attribute, text in (("challengePassword", csr.challenge_password), ("estIdentityLinking", csr.identity_linking)):
        if text is not None and not (channel_binding and hmac.compare_digest(text.encode(errors="replace"), expected)):
            raise BindingMismatch(f"{attribute} is not the channel binding of this TLS connection (RFC 7030 section 3.5)")


def permitted_usages(csr: CertificationRequest, policy: Policy) -> frozenset[Usage]:
    """The usages that a CSR asks for, or the policy's when it asks for none.

    A CSR with extended key usages only gets those of the policy's key usages that go with them: a certificate without keyUsage would
    be good for everything. Raises Forbidden (UsageNotPermitted) for one that the policy does not list.
    """
    asked, allowed = csr.usages, policy.allowed_usages
    if asked is None:
        return allowed
    if asked - allowed:
        refused = ", ".join(sorted(asked - allowed))
        raise Forbidden(
            f"usage {refused} is not permitted: this issuer's policy lists {', '.join(policy.usages)}", reason="UsageNotPermitted"
        )
    if asked & KEY_USAGES:
        return asked
    return asked | allowed & frozenset[Usage]().union(*(CONSISTENT_KEY_USAGES[usage] for usage in asked))


def without_encipherment(usages: frozenset[Usage], key_algorithm: KeyAlgorithm) -> tuple[frozenset[Usage], frozenset[Usage]]:
    """Usages split into those that are granted and those left out because the key cannot encipher (RFC 8813, RFC 8410)."""
    left_out = usages & ENCIPHERMENT - POSSIBLE_KEY_USAGES[key_algorithm]
    return usages - left_out, left_out
