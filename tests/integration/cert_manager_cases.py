"""cert-manager's conformance cases as data: what each Certificate or CertificateSigningRequest asks for, and whether it is issued.

Restated from test/e2e/suite/conformance of cert-manager/cert-manager, whose tests compile inside that repository only. The features are
its names (test/e2e/framework/helper/featureset). tests/integration/test_cert_manager_conformance.py holds each row on a real API server;
docs/conformance-cert-manager.md is written from here.
"""

from dataclasses import dataclass
from pathlib import Path

from estcore.issuer_spec import KeyAlgorithm

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance-cert-manager.md"
RSA, ECDSA, ED25519 = KeyAlgorithm.RSA_2048, KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ED25519
DOMAIN = "conformance.example.com"
SPIFFE = "spiffe://cluster.local/ns/sandbox/sa/foo"
ADDRESS = "127.0.0.1"
UPN = "1.3.6.1.4.1.311.20.2.3"
FEATURES = (
    *("IPAddresses", "Duration", "Wildcards", "ECDSA", "ReusePrivateKey", "URISANs", "EmailSANs", "CommonName", "KeyUsages"),
    *("OnlySAN", "SaveCAToSecret", "SaveRootCAToSecret", "Ed25519", "IssueCA", "LongDomain", "LiteralCertificateSubject", "OtherNames"),
    "ACMEUseARI",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row. `refused` is what the refusal says, None where a certificate comes; `why` is the reason, for the document.

    `annotations` are cert-manager's on a CertificateSigningRequest: duration and isCA; `expiration_seconds` is its spec's.
    """

    case: str
    features: tuple[str, ...]
    key: KeyAlgorithm = RSA
    common_name: str | None = None
    organization: str | None = None
    organizational_units: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    email_addresses: tuple[str, ...] = ()
    other_names: tuple[tuple[str, str], ...] = ()
    usages: tuple[str, ...] = ()
    duration: str | None = None
    expiration_seconds: int | None = None
    is_ca: bool = False
    refused: str | None = None
    why: str = ""


def host(label: str) -> str:
    return f"{label}.{DOMAIN}"


_LITERAL = f"*.literal.{DOMAIN}"

CERTIFICATES = (
    Case(case="one DNS name, everything else by default", features=("OnlySAN",), dns_names=(host("basic"),)),
    Case(
        case="a CA certificate, CA in basicConstraints",
        features=("IssueCA",),
        dns_names=(host("ca"),),
        is_ca=True,
    ),
    Case(case="an ECDSA key, one DNS name", features=("ECDSA", "OnlySAN"), key=ECDSA, dns_names=(host("ecdsa"),)),
    Case(case="an Ed25519 key, one DNS name", features=("OnlySAN", "Ed25519"), key=ED25519, dns_names=(host("ed25519"),)),
    Case(case="one common name", features=("CommonName",), common_name="test-common-name-rsa"),
    Case(
        case="two otherNames (UPN), an e-mail address and a common name",
        features=("OtherNames",),
        common_name="someCN",
        email_addresses=("email@domain.test",),
        other_names=((UPN, "upn@domain.test"), (UPN, "upn@domain2.test")),
    ),
    Case(
        case="a literal subject, a wildcard DNS name",
        features=("LiteralCertificateSubject",),
        common_name=_LITERAL,
        organization="Corp.",
        organizational_units=("Dept.", "Baz", "Bar", "FooLong"),
        dns_names=(_LITERAL,),
    ),
    Case(case="an ECDSA key, one common name", features=("ECDSA", "CommonName"), key=ECDSA, common_name="test-common-name-ecdsa"),
    Case(case="an Ed25519 key, one common name", features=("Ed25519", "CommonName"), key=ED25519, common_name="test-common-name-ed25519"),
    Case(case="an IP address", features=("IPAddresses",), ip_addresses=(ADDRESS,)),
    Case(
        case="a DNS name and an IP address",
        features=("OnlySAN", "IPAddresses"),
        dns_names=(host("address"),),
        ip_addresses=(ADDRESS,),
    ),
    Case(
        case="a common name and an IP address",
        features=("CommonName", "IPAddresses"),
        common_name="test-common-name-address",
        ip_addresses=(ADDRESS,),
    ),
    Case(case="an e-mail address", features=("EmailSANs", "OnlySAN"), email_addresses=("alice@example.com",)),
    Case(case="a common name and a URI", features=("URISANs", "CommonName"), common_name="test-common-name-uri", uris=(SPIFFE,)),
    Case(
        case="two DNS names, one of them the common name too",
        features=("CommonName",),
        common_name=host("first"),
        dns_names=(host("first"), host("second")),
    ),
    Case(case="a DNS name and another common name", features=("CommonName",), common_name=host("named"), dns_names=(host("other"),)),
    Case(
        case="a DNS name and a duration of 896 h",
        features=("Duration", "OnlySAN"),
        dns_names=(host("duration"),),
        duration="896h0m0s",
    ),
    Case(case="a wildcard DNS name", features=("Wildcards", "OnlySAN"), dns_names=(f"*.{host('wild')}",)),
    Case(case="a URI alone", features=("URISANs", "OnlySAN"), uris=(SPIFFE,)),
    Case(
        case="usages: signing, data encipherment, server auth, client auth",
        features=("KeyUsages", "OnlySAN"),
        dns_names=(host("usages"),),
        usages=("signing", "data encipherment", "server auth", "client auth"),
    ),
    Case(case="a DNS label of 63 characters", features=("OnlySAN", "LongDomain"), dns_names=(host("l" * 63),)),
    Case(case="a wildcard DNS name and its apex", features=("Wildcards", "OnlySAN"), dns_names=(f"*.{host('apex')}", host("apex"))),
)
"""The 22 rows of the table of Certificates."""

_BASIC = ("digital signature", "key encipherment")

SIGNING_REQUESTS = (
    Case(case="an RSA key, one DNS name", features=("OnlySAN",), dns_names=(host("basic"),), usages=_BASIC),
    Case(case="an ECDSA key, one DNS name", features=("ECDSA", "OnlySAN"), key=ECDSA, dns_names=(host("ecdsa"),), usages=_BASIC),
    Case(case="an Ed25519 key, one DNS name", features=("Ed25519", "OnlySAN"), key=ED25519, dns_names=(host("ed25519"),), usages=_BASIC),
    Case(case="an RSA key, one common name", features=("CommonName",), common_name="test-common-name-rsa", usages=_BASIC),
    Case(
        case="an ECDSA key, one common name",
        features=("CommonName", "ECDSA"),
        key=ECDSA,
        common_name="test-common-name-ecdsa",
        usages=_BASIC,
    ),
    Case(
        case="an Ed25519 key, one common name",
        features=("CommonName", "Ed25519"),
        key=ED25519,
        common_name="test-common-name-ed25519",
        usages=_BASIC,
    ),
    Case(
        case="a common name and an IP address",
        features=("CommonName", "IPAddresses"),
        common_name="test-common-name-address",
        ip_addresses=(ADDRESS,),
        usages=_BASIC,
    ),
    Case(case="an IP address", features=("IPAddresses",), ip_addresses=(ADDRESS,), usages=_BASIC),
    Case(
        case="a DNS name and an IP address",
        features=("OnlySAN", "IPAddresses"),
        dns_names=(host("address"),),
        ip_addresses=(ADDRESS,),
        usages=_BASIC,
    ),
    Case(
        case="a CA certificate, by the annotation request-is-ca",
        features=("OnlySAN", "IssueCA"),
        dns_names=(host("ca"),),
        usages=_BASIC,
        is_ca=True,
    ),
    Case(
        case="two e-mail addresses",
        features=("OnlySAN", "EmailSANs"),
        email_addresses=("alice@example.com", "bob@cert-manager.io"),
        usages=_BASIC,
    ),
    Case(
        case="a common name and a URI",
        features=("CommonName", "URISANs"),
        common_name="test-common-name-uri",
        uris=(SPIFFE,),
        usages=_BASIC,
    ),
    Case(
        case="two DNS names, one of them the common name too",
        features=("CommonName",),
        common_name=host("first"),
        dns_names=(host("first"), host("second")),
        usages=_BASIC,
    ),
    Case(
        case="a DNS name and another common name",
        features=("CommonName",),
        common_name=host("named"),
        dns_names=(host("other"),),
        usages=_BASIC,
    ),
    Case(
        case="a common name, the same DNS name, 896 h by the annotation request-duration",
        features=("Duration",),
        common_name=host("annotated"),
        dns_names=(host("annotated"),),
        usages=_BASIC,
        duration="896h",
    ),
    Case(
        case="a common name, the same DNS name, expirationSeconds 3333",
        features=("Duration",),
        common_name=host("expiring"),
        dns_names=(host("expiring"),),
        usages=_BASIC,
        expiration_seconds=3333,
    ),
    Case(
        case="a DNS name, 896 h by the annotation request-duration",
        features=("OnlySAN", "Duration"),
        dns_names=(host("duration"),),
        usages=_BASIC,
        duration="896h",
    ),
    Case(case="a wildcard DNS name", features=("Wildcards", "OnlySAN"), dns_names=(f"*.{host('wild')}",), usages=_BASIC),
    Case(
        case="a wildcard DNS name and its apex",
        features=("Wildcards", "OnlySAN"),
        dns_names=(f"*.{host('apex')}", host("apex")),
        usages=_BASIC,
    ),
    Case(case="a URI alone", features=("URISANs", "OnlySAN"), uris=(SPIFFE,), usages=_BASIC),
    Case(
        case="usages: server auth, client auth, digital signature, data encipherment; a common name",
        features=("KeyUsages",),
        common_name=host("usages"),
        usages=("server auth", "client auth", "digital signature", "data encipherment"),
    ),
    Case(
        case="a signing CA: usage cert sign, 10000 h, both by annotations",
        features=("KeyUsages", "Duration", "CommonName"),
        common_name="cert-manager-ca",
        usages=(*_BASIC, "cert sign"),
        duration="10000h",
        is_ca=True,
    ),
    Case(case="a DNS label of 63 characters", features=("OnlySAN", "LongDomain"), dns_names=(host("l" * 63),), usages=_BASIC),
)
"""The 23 rows of the table of CertificateSigningRequests."""

FURTHER = (
    ("ReusePrivateKey", "another certificate for the same key, after certificate and CertificateRequest were deleted"),
    ("OnlySAN", "another certificate after a DNS name was added"),
)
"""The two that change a Certificate, beside the table."""


def document() -> str:
    """docs/conformance-cert-manager.md."""
    table = ("| feature | case | result |", "|---|---|---|")
    lines = [
        "# cert-manager's conformance suite",
        "",
        "Written by `python -m tests.integration.cert_manager_cases`; a test demands that it is current, and",
        "`tests/integration/test_cert_manager_conformance.py` that every row is as it says, with cert-manager's CRD on a real API",
        "server. The rows are those of cert-manager's own suite (test/e2e/suite/conformance), whose code compiles in its repository only.",
        "Its controller does not run there: each row creates the CertificateRequest that it makes of such a Certificate and checks what",
        "the suite checks: names, key, chain, `ca`, life, usages. Features have the suite's names; SaveCAToSecret and SaveRootCAToSecret",
        "are checked in every row (`ca` is the self-signed root). ACMEUseARI is about ACME issuers. OtherNames, Wildcards and",
        "LiteralCertificateSubject are by opt-in: the issuer's rule lists such names (docs/configuration.md), without it they are refused.",
        "",
        "## Certificates",
        "",
        *table,
        *map(_row, CERTIFICATES),
        *(f"| {feature} | {case} | issued |" for feature, case in FURTHER),
        "",
        "## CertificateSigningRequests",
        "",
        "Of certificates.k8s.io, approved, for signer `estissuers.est-issuer.io/<namespace>.<name>`.",
        "",
        *table,
        *map(_row, SIGNING_REQUESTS),
        "",
    ]
    return "\n".join(lines)


def _row(case: Case) -> str:
    return f"| {', '.join(case.features)} | {case.case} | {'issued' if case.refused is None else f'refused: {case.why}'} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
