"""Key usages by the names that Kubernetes gives them, and their X.509 form.

Names: certificates.k8s.io/v1 KeyUsage and cert-manager.io/v1 KeyUsage, which are the same list. Only those that an end
entity may have here: `cert sign`, `crl sign` and `any` are left out on purpose. X.509: RFC 5280 sections 4.2.1.3 and 4.2.1.12.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from estcore.errors import Forbidden


class Usage(StrEnum):
    """A usage that a policy may allow."""

    DIGITAL_SIGNATURE = "digital signature"
    CONTENT_COMMITMENT = "content commitment"
    KEY_ENCIPHERMENT = "key encipherment"
    DATA_ENCIPHERMENT = "data encipherment"
    KEY_AGREEMENT = "key agreement"
    SERVER_AUTH = "server auth"
    CLIENT_AUTH = "client auth"
    CODE_SIGNING = "code signing"
    EMAIL_PROTECTION = "email protection"
    TIMESTAMPING = "timestamping"
    IPSEC_END_SYSTEM = "ipsec end system"
    IPSEC_TUNNEL = "ipsec tunnel"
    IPSEC_USER = "ipsec user"


KEY_USAGE_BITS: dict[str, Usage] = {
    "digital_signature": Usage.DIGITAL_SIGNATURE,
    "content_commitment": Usage.CONTENT_COMMITMENT,
    "key_encipherment": Usage.KEY_ENCIPHERMENT,
    "data_encipherment": Usage.DATA_ENCIPHERMENT,
    "key_agreement": Usage.KEY_AGREEMENT,
}
"""Attribute of cryptography.x509.KeyUsage → usage."""

EXTENDED_KEY_USAGES: dict[ObjectIdentifier, Usage] = {
    ExtendedKeyUsageOID.SERVER_AUTH: Usage.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH: Usage.CLIENT_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING: Usage.CODE_SIGNING,
    ExtendedKeyUsageOID.EMAIL_PROTECTION: Usage.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.TIME_STAMPING: Usage.TIMESTAMPING,
    ObjectIdentifier("1.3.6.1.5.5.7.3.5"): Usage.IPSEC_END_SYSTEM,
    ObjectIdentifier("1.3.6.1.5.5.7.3.6"): Usage.IPSEC_TUNNEL,
    ObjectIdentifier("1.3.6.1.5.5.7.3.7"): Usage.IPSEC_USER,
}
"""Extended key usage OID → usage."""

ENCIPHERMENT = frozenset({Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT})
"""Left out for keys that cannot encipher: EC (RFC 8813 section 3) and Ed25519 (RFC 8410 section 5)."""

USAGE_ALIASES = {"signing": Usage.DIGITAL_SIGNATURE, "s/mime": Usage.EMAIL_PROTECTION}
"""Other names of the same usages in the two Kubernetes APIs."""

KEY_USAGES = frozenset(KEY_USAGE_BITS.values())
"""Usages that are bits of keyUsage; all others are extended key usages."""

_HANDSHAKE = frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.KEY_AGREEMENT})
CONSISTENT_KEY_USAGES: dict[Usage, frozenset[Usage]] = {
    Usage.SERVER_AUTH: _HANDSHAKE,
    Usage.CLIENT_AUTH: frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_AGREEMENT}),
    Usage.CODE_SIGNING: frozenset({Usage.DIGITAL_SIGNATURE}),
    Usage.EMAIL_PROTECTION: _HANDSHAKE | {Usage.CONTENT_COMMITMENT},
    Usage.TIMESTAMPING: frozenset({Usage.DIGITAL_SIGNATURE, Usage.CONTENT_COMMITMENT}),
    Usage.IPSEC_END_SYSTEM: _HANDSHAKE,
    Usage.IPSEC_TUNNEL: _HANDSHAKE,
    Usage.IPSEC_USER: _HANDSHAKE,
}
"""Extended key usage → key usages that go with it (RFC 5280 section 4.2.1.12)."""

REFUSED_USAGES = frozenset(
    {"cert sign", "crl sign", "encipher only", "decipher only", "any", "ocsp signing", "microsoft sgc", "netscape sgc"}
)
"""Names of the two Kubernetes APIs that no end entity gets here."""


def key_usage(usages: Collection[Usage]) -> x509.KeyUsage | None:
    """The keyUsage of these usages; None where none of them is one (RFC 5280 section 4.2.1.3 asks for a bit at least)."""
    bits = {bit: usage in usages for bit, usage in KEY_USAGE_BITS.items()}
    if not any(bits.values()):
        return None
    return x509.KeyUsage(**bits, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False)


def extended_key_usage(usages: Collection[Usage]) -> x509.ExtendedKeyUsage | None:
    """The extendedKeyUsage of these usages; None where none of them is one (RFC 5280 section 4.2.1.12)."""
    purposes = [oid for oid, usage in EXTENDED_KEY_USAGES.items() if usage in usages]
    return x509.ExtendedKeyUsage(purposes) if purposes else None


def parse_usage_names(names: Iterable[str]) -> frozenset[Usage]:
    """Usages from the names in `spec.usages` of a Kubernetes request, aliases included; none gives the empty set.

    Raises Forbidden (UsageNotPermitted) that names the first usage which no certificate of this project has, or which does not exist.
    """
    usages = set()
    for name in names:
        if name in REFUSED_USAGES:
            raise Forbidden(f"usage {name!r} is never given to an end entity", reason="UsageNotPermitted")
        try:
            usages.add(USAGE_ALIASES.get(name) or Usage(name))
        except ValueError:
            raise Forbidden(f"usage {name[:64]!r} is not one of {', '.join(Usage)}", reason="UsageNotPermitted") from None
    return frozenset(usages)
