"""The frame assembled by hand against the library's own builder, octet by octet."""

import ipaddress
import string
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import der, tbs_certificate
from estcore.issuer_spec import KeyAlgorithm
from estcore.profile import Plan
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, KEY_USAGES, Usage
from tests import pki
from tests.core.requests import made_ca

LATEST = datetime(2090, 1, 1)  # noqa: DTZ001 - hypothesis takes naive bounds
OLDEST = datetime(1990, 1, 1)  # noqa: DTZ001

names = st.builds(
    lambda cn, others: pki.name(cn, **others),
    st.text(st.characters(categories=("L", "N"), max_codepoint=0x2FFF), min_size=1, max_size=21),  # 64 octets are the library's bound
    st.fixed_dictionaries(
        {}, optional={"organization_name": st.just("Acme"), "country_name": st.just("DE"), "serial_number": st.just("7")}
    ),
)
# Names differ to an encoder by kind, length and octets; to draw twenty from regular expressions takes longer than to encode them.
general_names = st.one_of(
    st.lists(st.integers(1, 60), min_size=2, max_size=4).map(
        lambda lengths: x509.DNSName(".".join(string.ascii_lowercase[length % 26] * length for length in lengths))
    ),
    st.integers(1, 200).map(lambda length: x509.UniformResourceIdentifier("urn:" + string.ascii_lowercase[length % 26] * length)),
    st.integers(0, 2**32 - 1).map(lambda number: x509.IPAddress(ipaddress.IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: x509.IPAddress(ipaddress.IPv6Address(number))),
)
moments = st.datetimes(OLDEST, LATEST, timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))
usages = st.tuples(st.sets(st.sampled_from(sorted(KEY_USAGES)), min_size=1), st.sets(st.sampled_from(sorted(set(Usage) - KEY_USAGES)))).map(
    lambda both: frozenset(both[0] | both[1])
)


def built(plan: Plan, public_key: object, ca: KeyAlgorithm, serial: int) -> x509.Certificate:
    """The same certificate by CertificateBuilder."""
    issuer = made_ca(ca).certificate
    bits = {bit: usage in plan.usages for bit, usage in KEY_USAGE_BITS.items()}
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer.subject)
        .subject_name(plan.subject)
        .public_key(public_key)  # type: ignore[arg-type]  # a public key of the test PKI
        .serial_number(serial)
        .not_valid_before(plan.not_before)
        .not_valid_after(plan.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)  # type: ignore[arg-type]  # as above
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .add_extension(x509.KeyUsage(**bits, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False), critical=True)
    )
    purposes = [oid for oid, usage in EXTENDED_KEY_USAGES.items() if usage in plan.usages]
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=ExtendedKeyUsageOID.TIME_STAMPING in purposes)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    if plan.sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(plan.sans), critical=not plan.subject.rdns)
    signing_key = pki.key(ca, "builder")
    return builder.sign(signing_key, pki.hash_for(signing_key))


@settings(max_examples=150, deadline=None)
@given(
    subject=names,
    empty_subject=st.booleans(),
    sans=st.lists(general_names, min_size=1, max_size=20),
    wanted=usages,
    moment=st.tuples(moments, moments).map(sorted),
    serial=st.integers(1, 2**159 - 1),
    leaf=st.sampled_from(pki.ONE_OF_EACH_KIND),
    ca=st.sampled_from([KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.ED25519]),
)
def test_every_plan_is_encoded_as_the_library_would(
    subject: x509.Name,
    empty_subject: bool,
    sans: list[x509.GeneralName],
    wanted: frozenset[Usage],
    moment: list[datetime],
    serial: int,
    leaf: KeyAlgorithm,
    ca: KeyAlgorithm,
) -> None:
    public_key = pki.key(leaf).public_key()
    plan = Plan(
        subject=x509.Name([]) if empty_subject else subject,
        sans=tuple(sans) if empty_subject or len(sans) > 1 else (),
        spki_der=pki.spki_der(public_key),
        usages=wanted,
        left_out=frozenset(),
        not_before=moment[0],
        not_after=moment[1],
    )
    expected = built(plan, public_key, ca, serial)
    pieces = made_ca(ca)._pieces
    tbs_der = tbs_certificate.encode(plan, pieces, serial)
    assert tbs_der == expected.tbs_certificate_bytes
    assert tbs_certificate.sealed(tbs_der, pieces, expected.signature) == pki.der(expected)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_the_signature_algorithm_is_the_librarys(algorithm: KeyAlgorithm) -> None:
    certificate = made_ca(algorithm).certificate
    assert made_ca(algorithm)._pieces.signature_algorithm in certificate.tbs_certificate_bytes


def test_a_ca_without_a_key_identifier_is_named_by_method_1() -> None:
    ca = pki.ca("Without SKI", without=[x509.SubjectKeyIdentifier])
    expected = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.certificate.public_key())  # type: ignore[arg-type]  # an EC key
    assert expected.public_bytes() in tbs_certificate.issuer_pieces(ca.certificate, b"").authority_key_identifier


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_the_shortest(length: int) -> None:
    assert der.tlv(0x30, bytes(length)) == pki.tlv(0x30, bytes(length))


def test_the_time_cut_is_at_2050() -> None:
    moments = [datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2049, 2050, 2100)]
    encoded = [tbs_certificate._validity(first, second) for first, second in pairwise(moments)]
    assert [der[2] for der in encoded] == [0x17, 0x17, 0x18]
    assert [der[17] for der in encoded[:2]] == [0x17, 0x18]
