"""Certificates that somebody else signed for us: what the signer is told, and whether what it returns is what was planned.

The profile judged the request before the signer is asked, and judges the certificate afterwards, so a signer with its own ideas (another
key, one more name, a CA certificate, a longer life) yields nothing. Serial number and further extensions, such as where the CA's CRLs
are, are the signer's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estcore.authority import Authority, Issued, check_key
from estcore.certification_request import CertificationRequest
from estcore.errors import SignerError
from estcore.extension_request import CMC_RA
from estcore.foreign import foreign
from estcore.issuer_spec import Policy
from estcore.names import describe_general_name, describe_name, same_general_names, same_name
from estcore.profile import Plan, plan
from estcore.registration import Authorized, subject_alternative_names
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, Usage

MAX_CERTIFICATE_OCTETS: Final = 64 * 1024
SKEW: Final = timedelta(minutes=5)
"""How far the signer's clock may differ from ours (threats row 30)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningOrder:
    """What the signer is to sign, redeemed from an Authorized: nobody gets a second certificate for it."""

    plan: Plan
    csr: CertificationRequest


def order(authority: Authority, authorized: Authorized, policy: Policy, *, now: datetime) -> SigningOrder:
    """Lay down what is to be signed; redeems `authorized`. Raises as `authority.issue` does for what the profile does not allow."""
    authorized.redeem()
    check_key(authority, authorized)
    return SigningOrder(plan=plan(authorized, policy, now=now, ca_certificate=authority.certificate), csr=authorized.csr)


def describe(signing: SigningOrder) -> dict[str, Any]:
    """The order as a JSON object, the names as in an OpenSSL configuration (`DNS:a.example`), times in UTC."""
    planned = signing.plan
    return {
        "subject": describe_name(planned.subject),
        "sans": [describe_general_name(san) for san in planned.sans],
        "usages": sorted(planned.usages),
        "notBefore": f"{planned.not_before:%Y-%m-%dT%H:%M:%SZ}",
        "notAfter": f"{planned.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "isCA": planned.ca,
    }


def accept(authority: Authority, signing: SigningOrder, output: bytes, *, now: datetime) -> Issued:
    """Read the certificate that the signer returned (PEM, the first one counts) and check it against the order.

    Raises SignerError that names what differs; nothing is issued then.
    """
    if len(output) > MAX_CERTIFICATE_OCTETS:
        raise SignerError("the signer returned more than a certificate")
    certificate = foreign(
        lambda: x509.load_pem_x509_certificate(output),
        lambda: SignerError("the signer returned no certificate in PEM", reason="SignerFailed"),
    )
    fault = foreign(
        lambda: _difference(certificate, authority, signing.plan, now),
        lambda: SignerError("the signer returned a certificate that cannot be read", reason="SignerFailed"),
    )
    if fault:
        raise SignerError(f"the signer returned a certificate that was not ordered: {fault}", reason="SignerFailed")
    planned = signing.plan
    return Issued(
        certificate_der=certificate.public_bytes(Encoding.DER),
        serial=certificate.serial_number,
        subject=describe_name(certificate.subject),
        sans=tuple(map(describe_general_name, subject_alternative_names(certificate))),
        spki_sha256=sha256(planned.spki_der).hexdigest(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        left_out=planned.left_out,
    )


def _difference(certificate: x509.Certificate, authority: Authority, planned: Plan, now: datetime) -> str | None:
    """What of the certificate is not as ordered; raises whatever the library raises at a signature that is not the CA's."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate.verify_directly_issued_by(authority.certificate)
    if spki != planned.spki_der:
        return "it is for another key"
    if not same_name(certificate.subject, planned.subject):
        return "its subject differs"
    if not same_general_names(subject_alternative_names(certificate), planned.sans):
        return "its subjectAltName differs"
    if _is_ca(certificate) is not planned.ca:
        return "it is a CA certificate" if not planned.ca else "it is no CA certificate"
    if not planned.ca and (excess := _usages(certificate) - planned.usages):
        return f"it has a usage that was not asked for: {', '.join(sorted(excess))}"
    if not planned.cmc_ra and _names_cmc_ra(certificate):
        return "it has the extended key usage cmcRA"
    if certificate.not_valid_after_utc > planned.not_after + SKEW:
        return "it lives longer"
    if not certificate.not_valid_before_utc - SKEW <= now < certificate.not_valid_after_utc:
        return "it is not valid now"
    if certificate.serial_number.bit_length() > 159:
        return "its serial number has more than 20 octets"  # RFC 5280 section 4.1.2.2
    return None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _usages(certificate: x509.Certificate) -> frozenset[Usage | str]:
    """All usages, those that have no name here as dotted OIDs or bits."""
    found: set[Usage | str] = set()
    try:
        bits = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        found |= {usage for bit, usage in KEY_USAGE_BITS.items() if getattr(bits, bit)}
        found |= {bit for bit in ("key_cert_sign", "crl_sign") if getattr(bits, bit)}
    except x509.ExtensionNotFound:
        found.add("any key usage")
    try:
        for oid in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            if oid != CMC_RA:
                found.add(EXTENDED_KEY_USAGES.get(oid, oid.dotted_string))
    except x509.ExtensionNotFound:
        pass  # as our own: without extended key usages it is good for none that must be named
    return frozenset(found)


def _names_cmc_ra(certificate: x509.Certificate) -> bool:
    try:
        return CMC_RA in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
