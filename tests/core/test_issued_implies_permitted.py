"""Over whole requests, as octets: whatever is issued was permitted. Names, keys, extensions, change of names, and what an RA changes.

`test_inside_policy` tries many names; here every other part of a request varies too, and it may ask for anything at any of its places.
"""

import os
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import authority, cert_template, pkcs10, registration, template_modification
from estcore.certification_request import CertificationRequest
from estcore.errors import EstError, RequestError
from estcore.issuer_spec import KeyAlgorithm, KeyReuse, NameChange, Policy
from estcore.names import same_general_names, same_name
from estcore.requester import AuthenticatedBy, Requester
from estcore.template_modification import Change, Modification
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, Usage
from tests import pki
from tests.collect import collect
from tests.core.permitted import assert_names_inside, is_for
from tests.core.requests import RA, basic, holder, pod, policy
from tests.pki import EPOCH, oid, sequence, tlv

ABOVE = pki.ca("A CA that may have others below it")
CA = authority.load(certificate_chain_pem=ABOVE.pem, private_key_pem=ABOVE.key_pem, root_pem=None, now=EPOCH, where="test")
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")

# ---- what a request may be made of; a few of each, so that requests and policies meet

GOOD_NAMES = [*(tlv(0x82, name) for name in (b"a.shop", b"b.shop", b"device-1.shop")), tlv(0x86, b"spiffe://td.example/device-1")]
BAD_NAMES = [
    *(tlv(0x82, name) for name in (b"*.shop", b"kubernetes.default.svc", b"a.evil", b"a..b")),
    *(tlv(0x86, uri) for uri in (b"spiffe://td.example/a", b"spiffe://evil/a", b"https://user@td/")),
    tlv(0x81, b"a@shop"),
    tlv(0x87, b"\x0a\x01\x00\x01"),
    tlv(0x88, b"\x2a\x03"),
    tlv(0xA4, sequence()),
]
SUBJECTS = [sequence(*(pki.rdn("2.5.4.3", text) for text in texts)) for texts in ((), (b"device-1",), (b"a.shop",), (b"root",))]
GOOD_KEYS = [pki.key(algorithm) for algorithm in (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ED25519)]
BAD_KEYS = [pki.curve_key(ec.SECP224R1), pki.curve_key(ec.SECP256K1)]
GOOD_EXTENSIONS = [
    pki.extension("2.5.29.19", sequence()),
    pki.extension("2.5.29.15", b"\x03\x02\x07\x80", critical=True),
    pki.extension("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.2"))),
]
BAD_EXTENSIONS = [
    pki.extension("2.5.29.19", sequence(b"\x01\x01\xff")),
    pki.extension("2.5.29.15", b"\x03\x02\x05\xa0"),
    pki.extension("2.5.29.15", b"\x03\x02\x02\x84"),
    pki.extension("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.3"))),
    pki.extension("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.28"), oid("1.3.6.1.5.5.7.3.2"))),
    pki.extension("2.5.29.37", sequence(oid("2.5.29.37.0"))),
    pki.extension("2.5.29.30", sequence(tlv(0xA0, sequence(tlv(0x82, b"shop"))))),
    pki.extension("1.2.3.4", b"\x05\x00"),
]


def mostly(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """A bad one in about eight."""
    return st.sampled_from([*good * (-(-len(bad) * 8 // len(good))), *bad])


def up_to_two(good: list[bytes], bad: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """None, one or two different ones, each mostly good, from one number: Hypothesis draws a number sooner than a list."""
    each = [*good * (-(-len(bad) * 8 // len(good))), *bad]

    def chosen(number: int) -> list[bytes]:
        places, count = divmod(number, 3)
        return list(dict.fromkeys(each[place] for place in divmod(places, len(each))[:count]))

    return st.integers(0, 3 * len(each) ** 2 - 1).map(chosen)


san_lists = up_to_two(GOOD_NAMES, BAD_NAMES)
extension_lists = up_to_two(GOOD_EXTENSIONS, BAD_EXTENSIONS)
subjects = mostly(SUBJECTS[:3], SUBJECTS[3:])


OWNERS = [
    ("device-1", [], KeyAlgorithm.ECDSA_P256),
    ("device-1", ["a.shop"], KeyAlgorithm.ECDSA_P384),
    ("a.shop", ["a.shop", "b.shop"], KeyAlgorithm.ED25519),
]
HELD = [
    pki.leaf(pki.ca(), subject=pki.name(common_name), sans=pki.dns(*names), public_key=pki.key(algorithm).public_key())
    for common_name, names, algorithm in OWNERS
]
HELD_NAMES = [
    (sequence(pki.rdn("2.5.4.3", common_name.encode())), [tlv(0x82, name.encode()) for name in names]) for common_name, names, _ in OWNERS
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A CSR, and what it was made of."""

    csr_der: bytes
    signed_by_its_key: bool


@st.composite
def csrs(draw: st.DrawFn) -> Asked:
    key = draw(mostly(GOOD_KEYS, BAD_KEYS))
    subject, names = draw(st.tuples(subjects, san_lists) | st.sampled_from(HELD_NAMES))
    wanted = draw(extension_lists)
    if names:
        wanted = [pki.extension("2.5.29.17", sequence(*names)), *wanted]
    attributes = [pki.extension_request(*wanted)] if wanted else []
    if draw(st.sampled_from([False, False, True])):
        new_subject, new_names = draw(st.none() | subjects), draw(san_lists)
        members = ([new_subject] if new_subject else []) + ([sequence(*new_names)] if new_names else [])
        attributes.append(pki.attribute("1.3.6.1.5.5.7.7.36", sequence(*members)))
    info = sequence(
        b"\x02\x01\x00",
        subject,
        pki.spki_der(key.public_key()),
        tlv(0xA0, *sorted(attributes)),
    )
    honest = draw(mostly([True], [False]))
    algorithm, signature = _signed(key if honest else pki.key(owner="another"), info)
    return Asked(csr_der=sequence(info, algorithm, tlv(0x03, b"\x00", signature)), signed_by_its_key=honest)


def _signed(key: Any, info: bytes) -> tuple[bytes, bytes]:
    digest = pki.hash_for(key)
    if digest is None:
        return sequence(oid("1.3.101.112")), key.sign(info)
    return sequence(oid("1.2.840.10045.4.3.2" if digest.name == "sha256" else "1.2.840.10045.4.3.3")), key.sign(info, ec.ECDSA(digest))


requesters = st.sampled_from(
    [basic(), basic("root"), pod(), pod("evil", "a"), *map(holder, HELD), RA, RA, replace(holder(HELD[0]), registration_authority=True)]
)
EVERYBODY = {"dnsNames": ["*.shop"], "subject": {"commonName": "*"}, "uris": ["spiffe://td.example/*"]}
DNS_PATTERNS = ["*.shop", "a.shop", "{user}.shop", "*.{namespace}", "kubernetes.default.svc"]
RULE_PARTS: dict[str, list[Any]] = {
    "dnsNames": [list(patterns) for count in (1, 2) for patterns in product(DNS_PATTERNS, repeat=count)],
    "uris": [None, None, ["spiffe://td.example/*"], ["spiffe://td.example/{user}"]],
    "subject": [None] * 4 + [{"commonName": text} for text in ("*", "{user}", "device-*", "*.shop")],
    "wildcards": [None, None, True, False],
    "from": [None] * 3 + [{"users": ["device-*"]}, {"namespaces": ["shop"]}, {"users": ["*"]}],
}
rules = st.sampled_from(
    [{name: part for name, part in zip(RULE_PARTS, parts, strict=True) if part is not None} for parts in product(*RULE_PARTS.values())]
)
POLICY_PARTS: dict[str, list[Any]] = {
    "keys": [["ECDSA-P256", "ECDSA-P384", "Ed25519"]] * 3 + [["ECDSA-P256"], ["Ed25519", "RSA-3072"]],
    "usages": [
        ["digital signature", "client auth"],
        ["digital signature", "key encipherment", "server auth", "client auth"],
        ["digital signature", "code signing"],
    ],
    "isCA": [True, True, False],
    "nameChange": ["Forbidden", "ByRules", "ByRules"],
    "keyReuse": ["Allowed", "Forbidden"],
    "duration": [{"default": "24h", "max": "48h"}],
}
policy_parts = st.sampled_from([dict(zip(POLICY_PARTS, parts, strict=True)) for parts in product(*POLICY_PARTS.values())])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    last = draw(st.sampled_from([[EVERYBODY], [EVERYBODY], []]))
    return policy(*draw(st.lists(rules, max_size=2)), *last, **draw(policy_parts))


MODIFIED_EXTENSIONS: list[list[x509.ExtensionType]] = [
    [],
    [x509.SubjectAlternativeName(list(pki.dns("c.shop")))],
    [x509.SubjectAlternativeName(list(pki.dns("*.shop"))), pki.key_usage("digital_signature")],
    [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])],
    [pki.key_usage("key_cert_sign", "crl_sign")],
    [x509.BasicConstraints(ca=True, path_length=None), pki.key_usage("key_cert_sign", "crl_sign")],
    *[[x509.BasicConstraints(ca=True, path_length=0), pki.key_usage("key_cert_sign", "crl_sign")]] * 3,
]


LIVES = [None, timedelta(hours=1), timedelta(hours=48), timedelta(hours=49), timedelta(days=4000)]


def modified(parts: tuple[list[x509.ExtensionType], timedelta | None, x509.Name | None]) -> Modification | None:
    """What a registration authority may put on top of a CSR."""
    values, life, subject = parts
    template_der = cert_template.build(
        subject=subject,
        not_after=EPOCH + life if life else None,
        extensions=[x509.Extension(value.oid, False, value) for value in values],
    )
    numbers = sequence(b"\x02\x01\x01")
    try:
        return template_modification.parse_mod_cert_template(sequence(sequence(b"\x02\x01\x00"), numbers, template_der))
    except EstError:
        return None


modifications = st.none() | st.sampled_from([*product(MODIFIED_EXTENSIONS, LIVES, [None, None, pki.name("web"), pki.name("root")])]).map(
    modified
)


# ---- what must hold of whatever is issued


def assert_permitted(
    certificate: x509.Certificate, asked: CertificationRequest, requester: Requester, rules: Policy, *, renewal: bool
) -> None:
    spki = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki == asked.spki_der
    assert asked.key_algorithm in rules.keys
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    constraints = extensions[ExtensionOID.BASIC_CONSTRAINTS]
    usage = extensions[ExtensionOID.KEY_USAGE]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life <= rules.duration.max
    assert asked.duration is not None or life == rules.duration.default
    assert set(extensions) <= {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
    if constraints.ca or usage.key_cert_sign or usage.crl_sign:
        assert (constraints.ca, constraints.path_length) == (True, 0)
        assert rules.is_ca
        assert asked.ca
        assert requester.registration_authority
    else:
        _assert_usages(extensions, asked, requester, rules)
    _assert_names(certificate, asked, requester, rules, renewal=renewal)


def _assert_usages(extensions: dict[Any, Any], asked: CertificationRequest, requester: Requester, rules: Policy) -> None:
    purposes = set(extensions.get(ExtensionOID.EXTENDED_KEY_USAGE, ()))
    if CMC_RA in purposes:
        assert asked.cmc_ra
        assert requester == RA
        assert purposes == {CMC_RA, ExtendedKeyUsageOID.CLIENT_AUTH}
        return
    usage = extensions[ExtensionOID.KEY_USAGE]
    granted = {EXTENDED_KEY_USAGES[purpose] for purpose in purposes} | {each for bit, each in KEY_USAGE_BITS.items() if getattr(usage, bit)}
    assert granted <= set(rules.usages)
    assert asked.usages is None or purposes <= {purpose for purpose, each in EXTENDED_KEY_USAGES.items() if each in asked.usages}
    assert granted & {Usage.DIGITAL_SIGNATURE, *KEY_USAGE_BITS.values()}, "a certificate without key usage would be good for everything"


def _assert_names(
    certificate: x509.Certificate, asked: CertificationRequest, requester: Requester, rules: Policy, *, renewal: bool
) -> None:
    subject, sans = certificate.subject, registration.subject_alternative_names(certificate)
    assert subject.rdns or sans
    change = asked.name_change
    if change is not None:
        assert rules.name_change is NameChange.BY_RULES
        if not requester.registration_authority:
            assert requester.certificate is not None
            _assert_same(asked.subject, asked.sans, requester.certificate)
    elif renewal and not requester.registration_authority:
        assert requester.certificate is not None
        _assert_same(subject, sans, requester.certificate)
        return
    assert same_name(subject, change.subject if change else asked.subject)
    assert same_general_names(sans, change.sans if change else asked.sans)
    if not requester.registration_authority:
        rule = next(rule for rule in rules.rules if is_for(rule, requester))
        assert_names_inside(subject, sans, rule, requester)


def _assert_same(subject: x509.Name, sans: tuple[x509.GeneralName, ...], certificate: x509.Certificate) -> None:
    assert same_name(subject, certificate.subject)
    assert same_general_names(sans, registration.subject_alternative_names(certificate))


@pytest.mark.spec("THREAT-01", "THREAT-02", "THREAT-03", "THREAT-06", "THREAT-07", "THREAT-10", "EST-CLI-06", "EST-CLI-05")
def test_whatever_is_issued_was_permitted() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=600, deadline=None)
    @given(asked=csrs(), requester=requesters, given_policy=policies(), modification=modifications, renewal=mostly([False], [True]))
    def try_request(asked: Asked, requester: Requester, given_policy: Policy, modification: Modification | None, renewal: bool) -> None:
        try:
            request = pkcs10.parse(asked.csr_der)
            if modification is not None and requester.registration_authority:
                assert modification.change is Change.REPLACE
                request = template_modification.apply(request, modification, now=EPOCH)
            register = registration.authorize_renewal if renewal else registration.authorize
            authorized = register(requester, request, given_policy)
            issued = authority.issue(CA, authorized, given_policy, now=EPOCH, serial=authority.serial_number(os.urandom(16)))
        except RequestError as error:
            seen[error.reason] += 1
            return
        assert asked.signed_by_its_key
        certificate = x509.load_der_x509_certificate(issued.certificate_der)
        assert_permitted(certificate, request, requester, given_policy, renewal=renewal)
        shows_own = AuthenticatedBy.CERTIFICATE in (requester.authenticated_by, requester.with_certificate)
        if shows_own and not requester.registration_authority and given_policy.key_reuse is KeyReuse.FORBIDDEN:
            assert requester.certificate is not None
            assert certificate.public_key() != requester.certificate.public_key()
        if (
            certificate.subject.rdns or not request.ca
        ):  # a CA without a subject is issued (cert-manager's suite asks for one), and linters object
            collect(issued.certificate_der, pki.der(CA.certificate))
        seen["issued"] += 1

    try_request()
    assert seen["issued"] > 40, seen
    assert len(seen) > 8, "and refused for many reasons"
