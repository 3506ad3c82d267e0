"""Who may have a certificate for which names: the only place that makes an `Authorized`.

`Authorized` is what `authority.issue` takes, and nothing else can be signed: a CSR that took another path has no such value (threats
row 9: step-ca CVE-2025-44005, EJBCA CVE-2020-28942). Called for EST by estserver where the requester was authenticated, for the
Kubernetes doors by the operator. Pure: no IO, no clock.

Covers RFC 7030 sections 3.5 (linking identity and proof of possession), 3.7 and 4.2.1 (authorization), 4.2.2 (re-enrolment).
"""

import base64
import hmac
from dataclasses import InitVar, dataclass, field
from typing import Final, Never, final

from cryptography import x509

from estcore.errors import BadCsr, BindingMismatch, Forbidden, SignerError
from estcore.issuer_spec import POSSIBLE_KEY_USAGES, ChannelBinding, KeyAlgorithm, Policy
from estcore.names import same_general_names, same_name
from estcore.pkcs10 import Pkcs10
from estcore.requester import AuthenticatedBy, Requester
from estcore.rules import check_may_exist, check_names, describe, rule_for
from estcore.usages import CONSISTENT_KEY_USAGES, ENCIPHERMENT, KEY_USAGES, Usage

_SEAL: Final = object()  # who has it may make an Authorized; it never leaves this module


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Authorized:
    """A request that registration let pass: the permission to sign one certificate, once.

    It cannot be made, copied, changed or subclassed outside this module (TypeError), and `authority.issue` redeems it.
    """

    requester: Requester
    csr: Pkcs10
    subject: x509.Name
    """As it will stand in the certificate."""
    sans: tuple[x509.GeneralName, ...]
    usages: frozenset[Usage]
    """What was asked for, or the policy's default; profile leaves out what the key cannot do."""
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


def authorize(requester: Requester, csr: Pkcs10, policy: Policy) -> Authorized:
    """Let a requester enrol for the names of its CSR, or refuse.

    A registration authority vouches for names, so no rule is looked for; they must still be names that may be certified at all.
    Raises Forbidden (NoRule, NameNotPermitted, UsageNotPermitted), BadCsr for names that are malformed or missing.
    """
    if requester.registration_authority:
        for san in csr.sans:
            check_may_exist(san)
    else:
        found = rule_for(requester, policy)
        if found is None:
            raise Forbidden(f"No rule of this issuer's policy is for {describe(requester)}", reason="NoRule")
        check_names(requester, *found, csr.subject, csr.sans)
    return _authorized(requester, csr, _encoded_anew(csr.subject), csr.sans, policy)


def authorize_renewal(requester: Requester, csr: Pkcs10, policy: Policy) -> Authorized:
    """Let the holder of a certificate of this issuer renew or rekey it (RFC 7030 section 4.2.2).

    Subject and subjectAltName must be those of the certificate by RFC 5280 section 7.1; the new certificate has the old one's, not the
    CSR's. The rules are not asked again: the names were granted when the certificate was issued. Whether the certificate is this
    issuer's, valid and not revoked was checked where the requester was authenticated. Raises Forbidden.
    """
    certificate = requester.certificate
    if requester.authenticated_by is not AuthenticatedBy.CERTIFICATE or certificate is None:
        raise Forbidden(
            f"simplereenroll is for the holder of a certificate of this issuer, not for {describe(requester)}: use simpleenroll",
            reason="NotRenewable",
        )
    sans = subject_alternative_names(certificate)
    if not same_name(certificate.subject, csr.subject):
        raise Forbidden("the CSR's subject is not that of the certificate to renew (RFC 7030 section 4.2.2)", reason="RenewalNamesDiffer")
    if not same_general_names(sans, csr.sans):
        raise Forbidden(
            "the CSR's subjectAltName is not that of the certificate to renew (RFC 7030 section 4.2.2)", reason="RenewalNamesDiffer"
        )
    return _authorized(requester, csr, certificate.subject, sans, policy)


def subject_alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """The names in its subjectAltName; empty when it has none."""
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _encoded_anew(subject: x509.Name) -> x509.Name:
    """The same name in our string types: PrintableString for country and serialNumber, UTF8String for text (RFC 5280 section 4.1.2.4)."""
    try:
        return x509.Name([x509.NameAttribute(attribute.oid, attribute.value) for attribute in subject])
    except ValueError as error:
        raise BadCsr(f"the subject cannot be certified: {error}") from error


def _authorized(requester: Requester, csr: Pkcs10, subject: x509.Name, sans: tuple[x509.GeneralName, ...], policy: Policy) -> Authorized:
    if not sans and not subject.rdns:
        raise BadCsr("the CSR names nobody: give it a subject or a subjectAltName (RFC 5280 section 4.1.2.6)", reason="NoName")
    return Authorized(
        requester=requester,
        csr=csr,
        subject=subject,
        sans=tuple(dict.fromkeys(sans)),
        usages=permitted_usages(csr, policy),
        policy=policy,
        seal=_SEAL,
    )


def binding_required(requester: Requester, policy: Policy) -> bool:
    """Whether the rule for this requester demands channel binding; the issuer's own `est.channelBinding` comes on top of it."""
    if requester.registration_authority:
        return False
    found = rule_for(requester, policy)
    return found is not None and found[1].channel_binding is ChannelBinding.REQUIRED


def check_binding(csr: Pkcs10, *, channel_binding: bytes, required: bool) -> None:
    """Check that the CSR was made for this TLS connection (RFC 7030 section 3.5, RFC 9148 section 3).

    `channel_binding` is tls-unique or tls-exporter as raw octets. A challengePassword is always taken for its base64, never for a
    password, and is checked whether required or not. Raises BindingMismatch.
    """
    if csr.challenge_password is None:
        if required:
            raise BindingMismatch(
                "linking of identity and proof of possession is required: put the base64 of the TLS channel binding (tls-unique on "
                "TLS 1.2, tls-exporter on TLS 1.3) into challengePassword"
            )
        return
    expected = base64.b64encode(channel_binding)
    if not channel_binding or not hmac.compare_digest(csr.challenge_password.encode(errors="replace"), expected):
        raise BindingMismatch("challengePassword is not the channel binding of this TLS connection (RFC 7030 section 3.5)")


def permitted_usages(csr: Pkcs10, policy: Policy) -> frozenset[Usage]:
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
