"""Which certificates are believed: our own, third parties', and the forged ones that are not (threats rows 11, 12 and 13)."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import process_time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from estcore import trust
from estcore.errors import ConfigurationError, Unauthenticated
from estcore.issuer_spec import KeyAlgorithm
from estcore.trust import Untrusted
from tests import pki

NOW = pki.EPOCH
SECOND = timedelta(seconds=1)
ROOT = pki.ca("Factory CA")
OTHER = pki.ca("Other CA")
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")


def own(leaf: x509.Certificate, *cas: pki.Ca) -> None:
    trust.verify_issued_by(leaf, [ca.certificate for ca in cas or (ROOT,)], now=NOW)


def third_party(leaf: x509.Certificate, *intermediates: x509.Certificate, anchors: tuple[pki.Ca, ...] = (ROOT,)) -> None:
    trust.verify_under_anchors(leaf, intermediates, [anchor.certificate for anchor in anchors], now=NOW)


BOTH = pytest.mark.parametrize("verify", [own, third_party], ids=["own", "third party"])
Verify = Callable[[x509.Certificate], None]


def impostor(ca: pki.Ca, private_key: ec.EllipticCurvePrivateKey | None = None) -> pki.Ca:
    """A self-made CA of the same name, with another key."""
    name = ca.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return pki.ca(str(name), private_key=private_key or pki.key(owner="impostor"))


# ---- what both ways refuse


@BOTH
@pytest.mark.parametrize("algorithm", pki.ONE_OF_EACH_KIND)
def test_a_good_certificate_is_believed_whatever_its_key(verify: Verify, algorithm: KeyAlgorithm) -> None:
    verify(pki.leaf(ROOT, public_key=pki.key(algorithm).public_key(), sans=pki.dns("device-1.example")))


FORGED = {
    "unknown CA": lambda: pki.leaf(OTHER),
    "forged signature": lambda: pki.leaf(ROOT, signed_by=pki.key(owner="forger")),
    "CA of the same name": lambda: pki.leaf(impostor(ROOT)),
    "self-signed": lambda: pki.ca("device-1", is_ca=False, extensions=[(x509.ExtendedKeyUsage([pki.CLIENT_AUTH]), False)]).certificate,
    "expired": lambda: pki.leaf(ROOT, not_after=NOW - SECOND),
    "not yet valid": lambda: pki.leaf(ROOT, not_before=NOW + SECOND),
    "for servers": lambda: pki.leaf(ROOT, ekus=[pki.SERVER_AUTH]),
    "for code": lambda: pki.leaf(ROOT, ekus=[ExtendedKeyUsageOID.CODE_SIGNING]),
    "for OCSP": lambda: pki.leaf(ROOT, ekus=[ExtendedKeyUsageOID.OCSP_SIGNING]),
    "a CA": lambda: pki.leaf(ROOT, is_ca=True),
    "the CA itself": lambda: ROOT.certificate,
    "a key that only enciphers": lambda: pki.leaf(ROOT, usage=pki.key_usage("key_encipherment")),
    "an unknown critical extension": lambda: pki.leaf(ROOT, extensions=[(UNKNOWN, True)]),
}


@BOTH
@pytest.mark.spec("THREAT-11", "THREAT-12")
@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_certificate_is_not_believed(verify: Verify, forged: str) -> None:
    """Unknown CA, forged signature, expired, wrong purpose, and their relatives: none is accepted."""
    with pytest.raises(Untrusted) as refused:
        verify(FORGED[forged]())
    assert isinstance(refused.value, Unauthenticated)
    assert str(refused.value).isprintable()


@BOTH
def test_validity_includes_both_ends(verify: Verify) -> None:
    verify(pki.leaf(ROOT, not_before=NOW))
    verify(pki.leaf(ROOT, not_after=NOW))


def test_a_moment_within_the_last_second_is_within_the_validity() -> None:
    leaf = pki.leaf(ROOT, not_after=NOW)
    trust.check_time(leaf, now=NOW + timedelta(microseconds=999_999))
    with pytest.raises(Untrusted, match="expired at 2026-01-01T00:00:00Z"):
        trust.check_time(leaf, now=NOW + SECOND)
    with pytest.raises(Untrusted, match="not valid before 2025-12-31T00:00:00Z"):
        trust.check_time(leaf, now=NOW - pki.DAY - timedelta(microseconds=1))


@BOTH
@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.15"), b"\x05\x00"), id="keyUsage that is NULL"),
        pytest.param(x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.37"), b"\x30\x00"), id="empty extendedKeyUsage (CVE-2026-40097)"),
        pytest.param(
            x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), b"\x30\x03\x82\x01\xff"), id="subjectAltName that is not IA5"
        ),
    ],
)
def test_malformed_extensions_raise_nothing_but_untrusted(verify: Verify, extension: x509.UnrecognizedExtension) -> None:
    leaf = pki.leaf(ROOT, ekus=(), extensions=[(extension, False)], without=[x509.KeyUsage])
    with pytest.raises(Untrusted):
        verify(leaf)


# ---- our own


@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_certificates_of_a_ca_of_each_algorithm_are_known_as_our_own(algorithm: KeyAlgorithm) -> None:
    ca = pki.ca(f"{algorithm} CA", private_key=pki.key(algorithm))
    own(pki.leaf(ca), ca)
    with pytest.raises(Untrusted):
        own(pki.leaf(ca, signed_by=pki.key(KeyAlgorithm.RSA_2048, "forger")), ca)


@pytest.mark.spec("THREAT-11")
def test_certificates_of_a_former_ca_are_our_own() -> None:
    former, present = pki.ca("CA", private_key=pki.key(owner="2024")), pki.ca("CA", private_key=pki.key(owner="2026"))
    own(pki.leaf(former), present, former)
    with pytest.raises(Untrusted, match="not issued by this issuer") as refused:
        own(pki.leaf(former), present)
    assert refused.value.reason == "UnknownIssuer"


@pytest.mark.spec("THREAT-11")
def test_a_certificate_under_an_intermediate_of_ours_is_not_our_own() -> None:
    intermediate = pki.ca("Factory Intermediate", issuer=ROOT)
    with pytest.raises(Untrusted, match="not issued by this issuer"):
        own(pki.leaf(intermediate))


@pytest.mark.spec("THREAT-11")
def test_a_certificate_of_ours_without_a_purpose_authenticates_nobody() -> None:
    with pytest.raises(Untrusted, match="not for the purpose client authentication") as refused:
        own(pki.leaf(ROOT, ekus=()))
    assert refused.value.reason == "WrongPurpose"
    with pytest.raises(Untrusted, match="not for the purpose client authentication"):
        own(pki.leaf(ROOT, ekus=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))


def test_another_purpose_may_be_asked_for() -> None:
    trust.verify_issued_by(pki.leaf(ROOT, ekus=[pki.CLIENT_AUTH, CMC_RA]), [ROOT.certificate], now=NOW, purpose=CMC_RA)
    with pytest.raises(Untrusted, match=r"purpose 1\.3\.6\.1\.5\.5\.7\.3\.28"):
        trust.verify_issued_by(pki.leaf(ROOT), [ROOT.certificate], now=NOW, purpose=CMC_RA)


def test_an_expired_ca_vouches_for_nobody() -> None:
    ca = pki.ca("Old CA", not_after=NOW - SECOND)
    with pytest.raises(Untrusted, match="expired"):
        own(pki.leaf(ca), ca)


@pytest.mark.spec("THREAT-12")
def test_a_leaf_among_the_ca_certificates_vouches_for_nobody() -> None:
    device = pki.key(owner="device CA")
    leaf = pki.leaf(ROOT, subject=pki.name("Device"), public_key=device.public_key())
    crafted = pki.leaf(pki.Ca(certificate=leaf, key=device))
    ways: list[Callable[[], object]] = [
        lambda: trust.verify_issued_by(crafted, [leaf], now=NOW),
        lambda: trust.verify_under_anchors(crafted, [], [leaf], now=NOW),
    ]
    for verify in ways:
        with pytest.raises(Untrusted):
            verify()


def test_without_ca_certificates_nobody_is_believed() -> None:
    with pytest.raises(Untrusted):
        trust.verify_issued_by(pki.leaf(ROOT), [], now=NOW)
    with pytest.raises(Untrusted):
        trust.verify_under_anchors(pki.leaf(ROOT), [], [], now=NOW)


# ---- third parties


def test_a_device_identity_certificate_without_names_and_purpose_is_believed() -> None:
    """IEEE 802.1AR: subject with a serial number, no subjectAltName needed, notAfter 9999-12-31T23:59:59Z."""
    identity = pki.leaf(
        ROOT, subject=pki.name(None, serial_number="PID:Widget SN:10"), ekus=(), not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    )
    third_party(identity)


def test_a_path_is_found_in_whatever_order_it_was_sent() -> None:
    upper = pki.ca("Upper CA", issuer=ROOT)
    lower = pki.ca("Lower CA", issuer=upper)
    leaf = pki.leaf(lower)
    third_party(leaf, lower.certificate, upper.certificate)
    third_party(leaf, upper.certificate, lower.certificate)
    third_party(leaf, OTHER.certificate, ROOT.certificate, upper.certificate, lower.certificate)
    third_party(leaf, anchors=(lower,))
    with pytest.raises(Untrusted, match="no path to a configured trust anchor"):
        third_party(leaf, lower.certificate)


def middle(name: str, **changes: object) -> pki.Ca:
    return pki.ca(name, issuer=ROOT, **changes)  # type: ignore[arg-type]  # each row gives what pki.ca takes


BAD_MIDDLE = {
    "not a CA": lambda: middle("M1", is_ca=False),
    "no basicConstraints": lambda: middle("M2", without=[x509.BasicConstraints]),
    "no keyCertSign": lambda: middle("M3", usage=pki.key_usage("digital_signature")),
    "expired": lambda: middle("M4", not_after=NOW - SECOND),
    "not yet valid": lambda: middle("M5", not_before=NOW + SECOND),
    "for servers only": lambda: middle("M6", extensions=[(x509.ExtendedKeyUsage([pki.SERVER_AUTH]), False)]),
    "an unknown critical extension": lambda: middle("M7", extensions=[(UNKNOWN, True)]),
    "names outside its constraints": lambda: middle(
        "M8", extensions=[(x509.NameConstraints(permitted_subtrees=pki.dns("other.example"), excluded_subtrees=None), True)]
    ),
    "excluded names": lambda: middle(
        "M9", extensions=[(x509.NameConstraints(permitted_subtrees=None, excluded_subtrees=pki.dns("device-1.example")), True)]
    ),
}


@pytest.mark.spec("THREAT-12")
@pytest.mark.parametrize("fault", BAD_MIDDLE)
def test_a_path_through_a_bad_intermediate_is_not_believed(fault: str) -> None:
    intermediate = BAD_MIDDLE[fault]()
    leaf = pki.leaf(intermediate, sans=pki.dns("device-1.example"))
    with pytest.raises(Untrusted, match="no path") as refused:
        third_party(leaf, intermediate.certificate)
    assert "ValueError" not in str(refused.value)


def test_older_intermediates_are_believed() -> None:
    """Without keyUsage, or for clients by name: manufacturers' CAs are older than the browsers' rules."""
    for ca in (
        middle("M10", without=[x509.KeyUsage]),
        middle("M11", extensions=[(x509.ExtendedKeyUsage([pki.CLIENT_AUTH]), False)]),
        middle("M12", extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)]),
    ):
        third_party(pki.leaf(ca), ca.certificate)


def test_a_path_length_is_kept() -> None:
    last = pki.ca("Last CA", issuer=ROOT, path_length=0)
    beyond = pki.ca("Beyond", issuer=last)
    third_party(pki.leaf(last), last.certificate)
    with pytest.raises(Untrusted, match="path length"):
        third_party(pki.leaf(beyond), beyond.certificate, last.certificate)


@pytest.mark.spec("THREAT-12")
def test_the_key_of_an_end_entity_makes_no_path() -> None:
    """CVE-2024-2048 and CVE-2025-6037: whoever has the key of a trusted end entity crafts certificates below it, or beside it."""
    device = pki.key(owner="device")
    trusted = pki.leaf(ROOT, subject=pki.name("device"), public_key=device.public_key())
    below = pki.leaf(pki.Ca(certificate=trusted, key=device), subject=pki.name("admin"))
    twin = pki.ca("device", private_key=device)  # same name, same key, CA:TRUE
    beside = pki.leaf(twin, subject=pki.name("admin"))
    for leaf, sent in ((below, trusted), (beside, twin.certificate), (beside, trusted)):
        with pytest.raises(Untrusted):
            third_party(leaf, sent)


@pytest.mark.spec("THREAT-12")
def test_a_certificate_is_not_its_own_anchor() -> None:
    leaf = pki.leaf(OTHER)
    with pytest.raises(Untrusted, match="not issued under a configured trust anchor"):
        trust.verify_under_anchors(leaf, [], [leaf, ROOT.certificate], now=NOW)


@pytest.mark.spec("THREAT-12")
def test_an_anchor_is_known_by_its_key_and_not_by_its_name() -> None:
    with pytest.raises(Untrusted):
        third_party(pki.leaf(impostor(ROOT)), impostor(ROOT).certificate)


@pytest.mark.spec("THREAT-06")
@pytest.mark.parametrize(
    ("public_key", "reason"),
    [
        pytest.param(pki.rsa_key(1024).public_key(), "RSA with 1024 bits", id="RSA 1024"),
        pytest.param(pki.rsa_key(2048, 3).public_key(), "exponent is not 65537", id="e = 3"),
        pytest.param(pki.curve_key(ec.SECP224R1).public_key(), "EC on secp224r1", id="P-224"),
        pytest.param(pki.curve_key(ec.SECP256K1).public_key(), "EC on secp256k1", id="secp256k1"),
    ],
)
def test_a_weak_key_is_not_believed(public_key: object, reason: str) -> None:
    with pytest.raises(Untrusted, match=reason):
        third_party(pki.leaf(ROOT, public_key=public_key))


def test_a_certificate_signed_with_sha1_is_not_believed() -> None:
    builder = (
        x509.CertificateBuilder()
        .subject_name(pki.name())
        .issuer_name(ROOT.certificate.subject)
        .public_key(pki.key().public_key())
        .serial_number(1)
        .not_valid_before(NOW - pki.DAY)
        .not_valid_after(NOW + pki.DAY)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([pki.CLIENT_AUTH]), critical=False)
    )
    sha256 = builder.sign(ROOT.key, hashes.SHA256())
    own(sha256)
    third_party(sha256)
    ecdsa_sha1 = pki.der(sha256).replace(pki.ECDSA_WITH_SHA256, pki.sequence(pki.oid("1.2.840.10045.4.3.1")))
    for verify in (own, third_party):
        with pytest.raises(Untrusted):
            verify(x509.load_der_x509_certificate(ecdsa_sha1))


# ---- bounds


def same_name(count: int, *, one_key: bool) -> list[x509.Certificate]:
    """CAs of one name, each issued by that name: with one key, each by each."""
    made = []
    for number in range(count):
        private_key = pki.key(owner="one" if one_key else f"{number}")
        issuer_key = pki.key(owner="one" if one_key else f"{(number + 1) % count}")
        issuer = pki.Ca(certificate=pki.ca("Same", private_key=issuer_key).certificate, key=issuer_key)
        made.append(pki.ca("Same", private_key=private_key, issuer=issuer, not_after=NOW + (number + 1) * pki.YEAR).certificate)
    return made


def pathological() -> dict[str, tuple[x509.Certificate, list[x509.Certificate]]]:
    loop, web = same_name(7, one_key=False), same_name(7, one_key=True)
    constraints = x509.NameConstraints(permitted_subtrees=pki.dns(*(f"h{n}.example" for n in range(500))), excluded_subtrees=None)
    bomb = pki.ca("Bomb", issuer=ROOT, extensions=[(constraints, True)])
    excluded = x509.NameConstraints(permitted_subtrees=None, excluded_subtrees=pki.dns(*(f"x{n}.example" for n in range(500))))
    second = pki.ca("Second", issuer=bomb, extensions=[(excluded, True)])
    names = pki.dns(*(f"h{n}.example" for n in range(300)))
    return {
        "a loop of one name": (pki.leaf(pki.Ca(certificate=loop[0], key=pki.key(owner="0"))), loop),
        "a web of one name and one key": (pki.leaf(pki.Ca(certificate=web[0], key=pki.key(owner="one"))), web),
        "name constraints": (pki.leaf(second, sans=names), [bomb.certificate, second.certificate]),
    }


PATHOLOGICAL = pathological()


@pytest.mark.spec("THREAT-13")
@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_a_pathological_chain_costs_less_than_half_a_second(name: str) -> None:
    """As in the pathological cases of C2SP/x509-limbo; believed or not, the time is bounded."""
    leaf, intermediates = PATHOLOGICAL[name]
    start = process_time()
    with suppress(Untrusted):
        third_party(leaf, *intermediates)
    assert process_time() - start < 0.5


@pytest.mark.spec("THREAT-13")
def test_a_chain_is_bounded_before_anything_is_done_with_it() -> None:
    leaf = pki.leaf(ROOT)
    third_party(leaf, *[OTHER.certificate] * 7)
    with pytest.raises(Untrusted, match="sent 9 certificates; at most 8") as refused:
        third_party(leaf, *[OTHER.certificate] * 8)
    assert refused.value.reason == "ChainTooLong"
    large = pki.leaf(ROOT, sans=pki.dns(*(f"h{n}.a-rather-long-label-for-a-host.example" for n in range(300))))
    with pytest.raises(Untrusted, match="octets of certificates; at most 32768"):
        third_party(large, *[large] * 3)


# ---- anchors


def test_anchors_are_loaded_in_order_and_repeats_dropped() -> None:
    pem = pki.pem(ROOT.certificate, OTHER.certificate, ROOT.certificate)
    assert trust.load_anchors(b"# roots\n" + pem, where="Secret a/b") == (ROOT.certificate, OTHER.certificate)


@pytest.mark.spec("THREAT-12")
@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        pytest.param(lambda: b"", "is not PEM", id="nothing"),
        pytest.param(lambda: b"junk", "is not PEM", id="junk"),
        pytest.param(lambda: ROOT.der, "is not PEM", id="DER"),
        pytest.param(lambda: ROOT.pem.replace(b"MII", b"MIJ"), "is not PEM", id="damaged"),
        pytest.param(lambda: ROOT.pem + ROOT.key_pem, "holds a private key", id="a private key"),
        pytest.param(lambda: pki.pem(pki.leaf(ROOT)), "is not a CA certificate", id="an end entity"),
        pytest.param(lambda: ROOT.pem + pki.pem(pki.leaf(ROOT)), "is not a CA certificate", id="an end entity among CAs"),
        pytest.param(lambda: pki.ca("N1", is_ca=False).pem, "is not a CA certificate", id="self-signed, not a CA"),
        pytest.param(lambda: pki.ca("N2", without=[x509.BasicConstraints]).pem, "is not a CA certificate", id="no basicConstraints"),
        pytest.param(lambda: pki.ca("N3", usage=pki.key_usage("digital_signature")).pem, "lacks keyCertSign", id="no keyCertSign"),
        pytest.param(lambda: pki.ca("N4", algorithm=KeyAlgorithm.ED25519).pem, "Ed25519", id="Ed25519"),
        pytest.param(lambda: pki.ca("N5", private_key=pki.rsa_key(1024)).pem, "not RSA with 2048 bits", id="RSA 1024"),
        pytest.param(lambda: pki.ca("N6", private_key=pki.curve_key(ec.SECP256K1)).pem, "not RSA with 2048 bits", id="secp256k1"),
        pytest.param(lambda: b"".join(pki.ca(f"Many {n}", private_key=pki.key()).pem for n in range(101)), "at most 100", id="101 anchors"),
    ],
)
def test_what_cannot_be_an_anchor_is_refused_with_where_and_why(pem: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refused:
        trust.load_anchors(pem(), where="Secret devices/roots")
    assert str(refused.value).startswith("Secret devices/roots: ")


@pytest.mark.parametrize("algorithm", [each for each in pki.ALL_ALGORITHMS if each is not KeyAlgorithm.ED25519])
def test_what_can_be_an_anchor_works_as_one(algorithm: KeyAlgorithm) -> None:
    ca = pki.ca(f"Anchor {algorithm}", private_key=pki.key(algorithm))
    (anchor,) = trust.load_anchors(ca.pem, where="it")
    trust.verify_under_anchors(pki.leaf(ca), [], [anchor], now=NOW)


# ---- chains of a CA of ours


def test_a_chain_is_put_in_order_from_a_pool() -> None:
    upper = pki.ca("Upper", issuer=ROOT, algorithm=KeyAlgorithm.RSA_2048)
    lower = pki.ca("Lower", issuer=upper, algorithm=KeyAlgorithm.ED25519)
    expected = (lower.certificate, upper.certificate, ROOT.certificate)
    assert trust.chain_from(lower.certificate, [ROOT.certificate, OTHER.certificate, upper.certificate]) == expected
    assert trust.chain_from(lower.certificate, [*expected, *expected]) == expected
    assert trust.chain_from(ROOT.certificate, []) == (ROOT.certificate,)


def test_a_missing_link_is_named() -> None:
    lower = pki.ca("Lower 2", issuer=pki.ca("Upper 2", issuer=ROOT))
    with pytest.raises(ConfigurationError, match="lacks the CA certificate that issued 'CN=Lower 2'"):
        trust.chain_from(lower.certificate, [ROOT.certificate])


def test_two_certificates_for_one_place_are_refused() -> None:
    upper = pki.ca("Upper 3", issuer=ROOT)
    again = pki.ca("Upper 3", issuer=ROOT, not_after=NOW + pki.YEAR)
    lower = pki.ca("Lower 3", issuer=upper)
    with pytest.raises(ConfigurationError, match="2 certificates that issued 'CN=Lower 3'"):
        trust.chain_from(lower.certificate, [upper.certificate, again.certificate, ROOT.certificate])


def test_an_impostor_in_the_pool_is_passed_over() -> None:
    lower = pki.ca("Lower 4", issuer=ROOT)
    assert trust.chain_from(lower.certificate, [impostor(ROOT).certificate, ROOT.certificate]) == (lower.certificate, ROOT.certificate)


def test_a_chain_of_more_than_eight_is_refused() -> None:
    cas = [ROOT]
    for number in range(8):
        cas.append(pki.ca(f"Level {number}", issuer=cas[-1], private_key=pki.key(owner=f"{number % 2}")))
    pool = [ca.certificate for ca in cas]
    assert len(trust.chain_from(pool[-2], pool)) == 8
    with pytest.raises(ConfigurationError, match="longer than 8"):
        trust.chain_from(pool[-1], pool)
