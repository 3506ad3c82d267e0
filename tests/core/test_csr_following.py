"""An issuer that enforces its CSR attributes refuses a CSR that lacks any, and names it."""

import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estcore import csr_wishes, csrattrs, der, pkcs10, transfer
from estcore.attribute import Attribute
from estcore.certification_request import CertificationRequest
from estcore.csr_advice import CsrAdvice, Proofs
from estcore.csr_following import MAX_NAMED, check_follows
from estcore.csr_template import ANY_DIRECTORY_NAME, ANY_IP_ADDRESS, ExtensionTemplate, NameComponent
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    OTP_CHALLENGE,
    REVOCATION_CHALLENGE,
    SUBJECT_ALT_NAME,
    SUBJECT_KEY_IDENTIFIER,
)
from estcore.csr_wishes import Wishes, check_can_be_followed, key_wish
from estcore.errors import BadCsr
from estcore.spec_part import KeyAlgorithm
from tests import pki
from tests.core import vectors
from tests.core.requests import basic, policy

FRIENDLY_NAME = "1.2.840.113549.1.9.20"


def name(**attributes: str) -> x509.Name:
    oids = {"cn": NameOID.COMMON_NAME, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME, "serial": NameOID.SERIAL_NUMBER}
    return x509.Name([x509.NameAttribute(oids[of_type], text) for of_type, text in attributes.items()])


def request(
    subject: x509.Name | None = None,
    *extensions: x509.ExtensionType,
    attributes: Sequence[tuple[str, bytes]] = (),
    digest: HashAlgorithm | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
) -> CertificationRequest:
    """A CSR as it comes from outside."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject if subject is not None else x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    for oid, value in attributes:
        builder = builder.add_attribute(x509.ObjectIdentifier(oid), value)
    key = pki.key(algorithm)
    if digest is None and algorithm is not KeyAlgorithm.ED25519:
        digest = SHA256()
    return pkcs10.parse(builder.sign(key, digest).public_bytes(Encoding.DER))  # type: ignore[arg-type]  # any hash


def lacks(csr: CertificationRequest, wishes: Wishes) -> str:
    with pytest.raises(BadCsr) as raised:
        check_follows(csr, wishes)
    assert raised.value.reason == "CsrAttributesIgnored"
    assert "\n" not in raised.value.message
    return raised.value.message.partition("it lacks ")[2]


def san(*names: bytes) -> Wishes:
    return Wishes(extensions=(ExtensionTemplate(oid=SUBJECT_ALT_NAME, value=der.tlv(0x30, b"".join(names))),))


def dns(text: str) -> bytes:
    return der.tlv(0x82, text.encode())


def names(*found: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(found)


DNS_A = x509.DNSName("A.example.com")
ADDRESS = x509.IPAddress(ipaddress.ip_address("10.0.0.1"))
SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
BOTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


def wants(oid: str, value: bytes | None = None) -> Wishes:
    return Wishes(extensions=(ExtensionTemplate(oid=oid, value=value),))


def subject_wish(oid: str, value: bytes | None = None) -> Wishes:
    return Wishes(subject=((NameComponent(type=oid, value=value),),))


CASES = {
    "a key of another curve": (request(), Wishes(key=key_wish([KeyAlgorithm.ECDSA_P384])), "a key of EC P-384"),
    "a key of another kind": (request(), Wishes(key=key_wish([KeyAlgorithm.RSA_4096])), "a key of RSA 4096 bits"),
    "another hash": (request(), Wishes(signature="2.16.840.1.101.3.4.2.2"), "a signature by SHA-384"),
    "another signature algorithm": (request(), Wishes(signature="1.2.840.10045.4.3.3"), "a signature by ECDSA with SHA-384"),
    "no commonName": (request(), subject_wish("2.5.4.3"), "the subject's commonName"),
    "another commonName": (
        request(name(cn="device-8")),
        subject_wish("2.5.4.3", b"\x0c\x08device-7"),
        "the subject's commonName (CN=device-7)",
    ),
    "no subjectAltName": (request(), wants(SUBJECT_ALT_NAME), "the extension subjectAltName"),
    "another name": (request(None, names(DNS_A)), san(dns("b.example.com")), "DNS:b.example.com in subjectAltName"),
    "one name of two": (
        request(None, names(DNS_A)),
        san(dns("a.example.com"), dns("b.example.com")),
        "DNS:b.example.com in subjectAltName",
    ),
    "no address": (request(None, names(DNS_A)), san(ANY_IP_ADDRESS), "an IP address in subjectAltName"),
    "no directoryName": (request(None, names(DNS_A)), san(ANY_DIRECTORY_NAME), "a directoryName in subjectAltName"),
    "a name that is never issued": (request(None, names(DNS_A)), san(b"\x88\x01\x2a"), "a subjectAltName of another kind"),
    "no keyUsage": (request(None, CLIENT), wants(KEY_USAGE), "the extension keyUsage"),
    "another keyUsage": (request(None, SIGNING), wants(KEY_USAGE, b"\x03\x02\x05\xa0"), "the extension keyUsage with the given value"),
    "no extendedKeyUsage": (request(None, SIGNING), wants(EXTENDED_KEY_USAGE), "the extension extendedKeyUsage"),
    "one purpose of two": (
        request(None, CLIENT),
        wants(EXTENDED_KEY_USAGE, BOTH.public_bytes()),
        "the extension extendedKeyUsage with the given value",
    ),
    "a purpose too many": (
        request(None, BOTH),
        wants(EXTENDED_KEY_USAGE, CLIENT.public_bytes()),
        "the extension extendedKeyUsage with the given value",
    ),
    "an extendedKeyUsage that is none": (
        request(None, CLIENT),
        wants(EXTENDED_KEY_USAGE, b"\x05\x00"),
        "the extension extendedKeyUsage with the given value",
    ),
    "no subjectKeyIdentifier": (request(), wants(SUBJECT_KEY_IDENTIFIER), "the extension subjectKeyIdentifier"),
    "an extension that is never issued": (request(), wants("2.5.29.32"), "the extension certificatePolicies"),
    "no channel binding": (
        request(),
        Wishes(supplied=(CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)),
        "the channel binding in challengePassword or estIdentityLinking",
    ),
    "an attribute": (request(), Wishes(supplied=(FRIENDLY_NAME,)), "the attribute friendlyName"),
    "an attribute with a value": (
        request(),
        Wishes(attributes=(Attribute(type="2.999.1", values=(b"\x05\x00",)),)),
        "the attribute 2.999.1",
    ),
}


@pytest.mark.spec("EST-ATTR-18")
@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_refused_by_name(case: str) -> None:
    csr, wishes, missing = CASES[case]
    assert lacks(csr, wishes) == missing


FOLLOWING = {
    "a key of one of two curves": (request(), Wishes(key=key_wish([KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P256]))),
    "the hash": (request(digest=SHA384()), Wishes(signature="2.16.840.1.101.3.4.2.2")),
    "the signature algorithm": (request(), Wishes(signature="1.2.840.10045.4.3.2")),
    "a hash, with a key that signs without": (request(algorithm=KeyAlgorithm.ED25519), Wishes(signature="2.16.840.1.101.3.4.2.2")),
    "any commonName": (request(name(cn="x")), subject_wish("2.5.4.3")),
    "the commonName in another case and string type": (request(name(cn="Device-7")), subject_wish("2.5.4.3", b"\x13\x08device-7")),
    "a serialNumber": (request(name(serial="7")), subject_wish("2.5.4.5")),
    "two units": (
        request(x509.Name([*name(ou="myDept"), *name(ou="myGroup")])),
        Wishes(
            subject=(
                (NameComponent(type="2.5.4.11", value=b"\x0c\x06myDept"),),
                (NameComponent(type="2.5.4.11", value=b"\x0c\x07myGroup"),),
            )
        ),
    ),
    "any name": (request(None, names(DNS_A)), wants(SUBJECT_ALT_NAME)),
    "the name, and more": (request(None, names(ADDRESS, DNS_A)), san(dns("a.example.com"))),
    "an address of its own": (request(None, names(ADDRESS, DNS_A)), san(ANY_IP_ADDRESS, dns("a.example.com"))),
    "the usages": (
        request(None, SIGNING, BOTH),
        Wishes(
            extensions=(
                ExtensionTemplate(oid=KEY_USAGE, value=SIGNING.public_bytes()),
                ExtensionTemplate(
                    oid=EXTENDED_KEY_USAGE,
                    value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]).public_bytes(),
                ),
            )
        ),
    ),
    "any usages": (
        request(None, SIGNING, CLIENT),
        Wishes(extensions=(ExtensionTemplate(oid=KEY_USAGE), ExtensionTemplate(oid=EXTENDED_KEY_USAGE))),
    ),
    "the binding in one of two attributes": (
        request(attributes=[(EST_IDENTITY_LINKING, b"abcd")]),
        Wishes(supplied=(CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)),
    ),
    "the binding in the other": (
        request(attributes=[(CHALLENGE_PASSWORD, b"abcd")]),
        Wishes(supplied=(CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)),
    ),
    "no secrets, which a client may not have": (request(), Wishes(supplied=(OTP_CHALLENGE, REVOCATION_CHALLENGE))),
    "an attribute": (request(attributes=[(FRIENDLY_NAME, b"press")]), Wishes(supplied=(FRIENDLY_NAME,))),
}


@pytest.mark.spec("EST-ATTR-18")
@pytest.mark.parametrize("case", FOLLOWING)
def test_a_csr_that_follows_is_let_pass(case: str) -> None:
    check_follows(*FOLLOWING[case])


@pytest.mark.spec("EST-ATTR-18")
def test_the_hash_of_a_pss_signature_is_seen() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = pki.key(KeyAlgorithm.RSA_2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    pss = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
    csr = pkcs10.parse(builder.sign(key, SHA384(), rsa_padding=pss).public_bytes(Encoding.DER))
    check_follows(csr, Wishes(signature="2.16.840.1.101.3.4.2.2"))
    assert lacks(csr, Wishes(signature="2.16.840.1.101.3.4.2.1")) == "a signature by SHA-256"
    assert lacks(csr, Wishes(signature="1.2.840.113549.1.1.12")) == "a signature by RSA with SHA-384"


@pytest.mark.spec("EST-ATTR-18")
def test_all_that_is_missing_is_named_at_once_and_briefly() -> None:
    many = Wishes(supplied=tuple(f"2.999.{number}" for number in range(MAX_NAMED + 2)))
    assert lacks(request(), many).endswith("the attribute 2.999.7 and 2 more")


@pytest.mark.spec("EST-ATTR-16", "EST-ATTR-18")
def test_the_template_of_rfc_9908_can_be_enforced() -> None:
    wishes = csr_wishes.read(csrattrs.decode(transfer.decode_body(vectors.body("derived-rfc9908-3.4-template-csrattrs"))))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    subject = x509.Name([*name(cn="own name"), *name(ou="myDept"), *name(ou="myGroup")])
    check_follows(request(subject, names(x509.DNSName("www.myServer.com"), ADDRESS), usage, CLIENT), wishes)
    assert lacks(request(), wishes) == (
        "the subject's commonName, the subject's organizationalUnitName (OU=myDept), the subject's organizationalUnitName (OU=myGroup),"
        " the extension subjectAltName, the extension keyUsage with the given value, the extension extendedKeyUsage"
    )


@pytest.mark.spec("EST-ATTR-18")
def test_a_derived_signature_algorithm_is_told_and_not_enforced() -> None:
    """A client that goes by the template is not told it (RFC 9908 section 4), and the issuer takes any hash."""
    advice = CsrAdvice.derived(policy(keys=["ECDSA-P256"], usages=["digital signature"]), basic(), Proofs())
    assert "1.2.840.10045.4.3.2" in csrattrs.decode(advice.csrattrs_der)
    check_follows(request(None, SIGNING, digest=SHA384()), advice.enforced)


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        (
            csr_wishes.read((Attribute(type="1.2.840.10045.2.1", values=(der.object_identifier("1.3.36.3.3.2.8.1.1.11"),)),)),
            "EC brainpoolP384r1",
        ),
        (wants("2.5.29.32"), "certificatePolicies"),
    ],
)
def test_what_no_csr_can_follow_cannot_be_enforced(wishes: Wishes, fault: str) -> None:
    with pytest.raises(ValueError, match=f"no CSR can follow them: .*{fault}"):
        check_can_be_followed(wishes)
