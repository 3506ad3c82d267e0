"""The CA: what it loads, what it makes, what it signs."""

import dataclasses
import ipaddress
import os
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import ExtensionOID

from estcore import authority, ca_secret, issuer_spec, pkcs10, registration
from estcore.authority import Authority, Issued
from estcore.errors import BadCsr, ConfigurationError, Forbidden, IssuerNotReady, SignerError
from estcore.issuer_spec import KeyAlgorithm, Policy
from estcore.usages import Usage
from tests import pki
from tests.collect import collect
from tests.core.requests import CA_SERIAL, RA, basic, csr, made_ca, policy, spec
from tests.pki import EPOCH, YEAR

DNS = x509.DNSName
SERIAL = authority.serial_number(b"\xa5" * 16)
EVERYTHING = policy(usages=[*Usage], keys=[*KeyAlgorithm])


def load(ca: pki.Ca, *above: pki.Ca, root: pki.Ca | None = None, now: datetime = EPOCH) -> Authority:
    return authority.load(
        certificate_chain_pem=pki.pem(ca.certificate, *(each.certificate for each in above)),
        private_key_pem=ca.key_pem,
        root_pem=root.pem if root else None,
        now=now,
        where="Secret devices/factory-ca",
    )


P256_CA = made_ca(KeyAlgorithm.ECDSA_P256)


def issue(
    ca: Authority,
    *sans: x509.GeneralName,
    subject: x509.Name | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    usages: list[Usage] | None = None,
    rules: Policy = EVERYTHING,
    now: datetime = EPOCH,
) -> tuple[Issued, x509.Certificate]:
    if usages is None:
        usages = [Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.SERVER_AUTH, Usage.CLIENT_AUTH]
    authorized = registration.authorize(RA, csr(*sans, subject=subject, algorithm=algorithm, usages=usages), rules)
    issued = authority.issue(ca, authorized, rules, now=now, serial=authority.serial_number(os.urandom(16)))
    collect(issued.certificate_der, pki.der(ca.certificate))
    return issued, x509.load_der_x509_certificate(issued.certificate_der)


def critical(certificate: x509.Certificate) -> dict[x509.ObjectIdentifier, bool]:
    return {extension.oid: extension.critical for extension in certificate.extensions}


# ---- what is signed


@pytest.mark.parametrize("leaf_algorithm", list(KeyAlgorithm))
@pytest.mark.parametrize("ca_algorithm", list(KeyAlgorithm))
def test_every_key_signs_for_every_key(ca_algorithm: KeyAlgorithm, leaf_algorithm: KeyAlgorithm) -> None:
    ca = made_ca(ca_algorithm)
    issued, certificate = issue(ca, DNS("a.example.com"), subject=pki.name("a.example.com"), algorithm=leaf_algorithm)
    certificate.verify_directly_issued_by(ca.certificate)
    digest = certificate.signature_hash_algorithm
    assert (digest and digest.name) == {"ECDSA-P384": "sha384", "ECDSA-P521": "sha512", "Ed25519": None}.get(ca_algorithm, "sha256")
    assert certificate.public_key() == pki.key(leaf_algorithm).public_key()
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage.key_encipherment is leaf_algorithm.startswith("RSA")
    assert issued.left_out == (set() if leaf_algorithm.startswith("RSA") else {Usage.KEY_ENCIPHERMENT})


def test_a_certificate_has_exactly_the_profiles_extensions() -> None:
    ca = P256_CA
    _, certificate = issue(ca, DNS("a.example.com"), subject=pki.name("a.example.com"))
    assert critical(certificate) == {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    }
    extensions = certificate.extensions
    ca_ski = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(
        pki.key(KeyAlgorithm.ECDSA_P256).public_key()
    )
    assert extensions.get_extension_for_class(
        x509.AuthorityKeyIdentifier
    ).value == x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_ski)
    assert certificate.issuer == ca.certificate.subject
    assert certificate.version is x509.Version.v3


@pytest.mark.parametrize(
    ("usages", "purposes"),
    [
        (["digital signature", "key encipherment"], None),
        (["digital signature", "client auth"], ["1.3.6.1.5.5.7.3.2"]),
        (["digital signature", "server auth", "client auth"], ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]),
        (["digital signature", "code signing"], ["1.3.6.1.5.5.7.3.3"]),
        (["digital signature", "email protection"], ["1.3.6.1.5.5.7.3.4"]),
        (["digital signature", "ipsec tunnel"], ["1.3.6.1.5.5.7.3.6"]),
        (["digital signature", "content commitment"], None),
    ],
)
def test_an_extended_key_usage_is_there_exactly_when_one_was_granted(usages: list[str], purposes: list[str] | None) -> None:
    _, certificate = issue(P256_CA, DNS("a.example.com"), subject=pki.name("a"), usages=[Usage(usage) for usage in usages])
    if purposes is None:
        assert ExtensionOID.EXTENDED_KEY_USAGE not in critical(certificate)
    else:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [oid.dotted_string for oid in extended] == purposes


def test_a_timestamping_certificate_says_so_critically() -> None:
    _, certificate = issue(P256_CA, DNS("a.example.com"), subject=pki.name("tsa"), usages=[Usage.DIGITAL_SIGNATURE, Usage.TIMESTAMPING])
    assert critical(certificate)[ExtensionOID.EXTENDED_KEY_USAGE] is True  # RFC 3161 section 2.3


@pytest.mark.parametrize(("subject", "is_critical"), [(pki.name("a"), False), (x509.Name([]), True)])
def test_alternative_names_are_critical_when_the_subject_is_empty(subject: x509.Name, *, is_critical: bool) -> None:
    _, certificate = issue(P256_CA, DNS("a.example.com"), subject=subject)
    assert critical(certificate)[ExtensionOID.SUBJECT_ALTERNATIVE_NAME] is is_critical


def test_a_subject_alone_gives_no_alternative_names() -> None:
    _, certificate = issue(P256_CA, subject=pki.name("device-1"), usages=[Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH])
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in critical(certificate)


def test_issued_says_what_the_ledger_and_the_audit_log_need() -> None:
    sans = (
        DNS("a.example.com"),
        x509.UniformResourceIdentifier("urn:a"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.RFC822Name("a@example.com"),
    )
    issued, certificate = issue(P256_CA, *sans, subject=pki.name("a", organization_name="Acme"))
    assert issued.serial == certificate.serial_number
    assert issued.subject == "O=Acme,CN=a"
    assert issued.sans == ("DNS:a.example.com", "URI:urn:a", "IP:192.0.2.1", "email:a@example.com")
    assert (issued.not_before, issued.not_after) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    assert re.fullmatch("[0-9a-f]{64}", issued.spki_sha256)


@pytest.mark.spec("THREAT-30")
@pytest.mark.parametrize(
    ("years", "utc_time", "generalized_time"),
    [(10, b"\x17\x0d", None), (60, b"\x17\x0d", b"\x18\x0f")],
)
def test_times_from_2050_on_are_generalized(years: int, utc_time: bytes, generalized_time: bytes | None) -> None:
    ca = made_ca(KeyAlgorithm.ECDSA_P256, life=timedelta(days=365 * years))
    rules = policy(duration={"default": f"{365 * 24 * (years - 1)}h", "max": "800000h"})
    issued, certificate = issue(ca, DNS("a.example.com"), subject=pki.name("a"), rules=rules)
    assert certificate.not_valid_after_utc == issued.not_after
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == rules.duration.default
    assert utc_time in issued.certificate_der
    assert (b"\x18\x0f20" in issued.certificate_der) is (generalized_time is not None)


def test_the_last_second_of_2049_is_utc_time_and_the_next_is_not() -> None:
    ca = load(pki.ca(not_after=EPOCH + 40 * YEAR))
    default = datetime.fromisoformat("2050-01-01T00:00:00+00:00") - EPOCH
    for offset, tail in ((timedelta(seconds=-1), b"\x17\x0d491231235959Z"), (timedelta(0), b"\x18\x0f20500101000000Z")):
        seconds = int((default + offset).total_seconds())
        rules = policy(duration={"default": f"{seconds + 60}s", "max": f"{seconds + 60}s"})
        issued, _ = issue(ca, DNS("a.example.com"), subject=pki.name("a"), rules=rules)
        assert tail in issued.certificate_der


@pytest.mark.spec("THREAT-04")
def test_string_types_are_ours() -> None:
    issued, _ = issue(P256_CA, subject=pki.name("Müller", country_name="DE", serial_number="A 7"), usages=[Usage.DIGITAL_SIGNATURE])
    assert b"\x13\x02DE" in issued.certificate_der
    assert b"\x13\x03A 7" in issued.certificate_der
    assert b"\x0c\x07M\xc3\xbcller" in issued.certificate_der


# ---- who may have it signed


@pytest.mark.spec("THREAT-09")
def test_an_authorization_is_good_for_one_certificate() -> None:
    ca, authorized = P256_CA, registration.authorize(RA, csr(DNS("a.example.com")), EVERYTHING)
    with pytest.raises(Forbidden):  # code signing and timestamping together
        authority.issue(ca, authorized, EVERYTHING, now=EPOCH, serial=SERIAL)
    with pytest.raises(SignerError, match="used twice"):
        authority.issue(ca, authorized, EVERYTHING, now=EPOCH, serial=SERIAL)


@pytest.mark.spec("THREAT-09")
@pytest.mark.parametrize("forged", [None, csr(DNS("a.example.com")), object()])
def test_what_is_not_authorized_cannot_be_signed(forged: Any) -> None:
    with pytest.raises(AttributeError):
        authority.issue(P256_CA, forged, EVERYTHING, now=EPOCH, serial=SERIAL)


@pytest.mark.spec("THREAT-11")
def test_an_authorization_of_another_policy_is_not_taken() -> None:
    generous, strict = policy({"dnsNames": ["a.example.com"]}), policy()
    authorized = registration.authorize(basic(), csr(DNS("a.example.com")), generous)
    with pytest.raises(SignerError, match="another issuer's policy"):
        authority.issue(P256_CA, authorized, strict, now=EPOCH, serial=SERIAL)


def test_an_equal_policy_is_the_same_policy() -> None:
    first, again = (issuer_spec.parse(spec({"dnsNames": ["a.example.com"]}), where="test").policy for _ in range(2))
    authorized = registration.authorize(basic(), csr(DNS("a.example.com")), first)
    authority.issue(P256_CA, authorized, again, now=EPOCH, serial=SERIAL)


@pytest.mark.spec("THREAT-06")
def test_the_cas_own_key_gets_no_certificate() -> None:
    root, sub = pki.ca("Root"), pki.ca("Sub", issuer=pki.ca("Root"))
    for key in (sub.key, root.key):
        asked = pkcs10.parse(pki.csr(key, sans=[DNS("a.example.com")]))
        authorized = registration.authorize(RA, asked, EVERYTHING)
        with pytest.raises(BadCsr, match="the CA's own"):
            authority.issue(load(sub, root), authorized, EVERYTHING, now=EPOCH, serial=SERIAL)


@pytest.mark.spec("THREAT-27")
def test_an_expired_ca_signs_nothing() -> None:
    ca = load(pki.ca(not_after=EPOCH + YEAR))
    issue(ca, DNS("a.example.com"), subject=pki.name("a"), now=EPOCH + YEAR)
    with pytest.raises(IssuerNotReady):
        issue(ca, DNS("a.example.com"), subject=pki.name("a"), now=EPOCH + YEAR + timedelta(seconds=1))


# ---- serials


@pytest.mark.spec("THREAT-29")
@pytest.mark.parametrize("octets", [bytes(16), b"\xff" * 16, bytes(range(16))])
def test_a_serial_is_positive_and_at_most_20_octets(octets: bytes) -> None:
    serial = authority.serial_number(octets)
    assert serial > 0
    assert serial.bit_length() == 129
    assert serial.to_bytes(17) == b"\x01" + octets


@pytest.mark.spec("THREAT-29")
@pytest.mark.parametrize("octets", [b"", bytes(15), bytes(17)])
def test_a_serial_is_made_of_128_bits(octets: bytes) -> None:
    with pytest.raises(ValueError, match="16 random octets"):
        authority.serial_number(octets)


@pytest.mark.spec("THREAT-29")
@pytest.mark.parametrize("serial", [-1, 0, 1, 2**63 - 1, 2**159, 2**200])
def test_other_serials_are_not_signed(serial: int) -> None:
    authorized = registration.authorize(basic(), csr(DNS("a.example.com")), ONE_NAME)
    with pytest.raises(SignerError, match="serial"):
        authority.issue(P256_CA, authorized, ONE_NAME, now=EPOCH, serial=serial)


ONE_NAME = policy({"dnsNames": ["a.example.com"]})


# ---- loading

ROOT = pki.ca("Root")
MIDDLE = pki.ca("Middle", issuer=ROOT)
SUB = pki.ca("Sub", issuer=MIDDLE)


@pytest.mark.parametrize(
    ("chain", "root", "above"),
    [
        ([ROOT], None, []),
        ([ROOT], ROOT, []),
        ([SUB, MIDDLE, ROOT], None, [MIDDLE, ROOT]),
        ([SUB, MIDDLE, ROOT], ROOT, [MIDDLE, ROOT]),
        ([SUB, MIDDLE], ROOT, [MIDDLE, ROOT]),
        ([SUB, MIDDLE], None, [MIDDLE]),
        ([SUB], None, []),
    ],
)
def test_a_chain_ends_at_the_root_or_below_one_that_is_not_known(chain: list[pki.Ca], root: pki.Ca | None, above: list[pki.Ca]) -> None:
    ca = load(*chain, root=root)
    assert ca.certificate == chain[0].certificate
    assert ca.chain == tuple(each.certificate for each in above)
    assert ca.certificates == (ca.certificate, *ca.chain)
    issue(ca, DNS("a.example.com"), subject=pki.name("a"))[1].verify_directly_issued_by(ca.certificate)


@pytest.mark.parametrize("encoding", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048])
def test_keys_are_read_in_both_pem_forms(algorithm: KeyAlgorithm, encoding: serialization.PrivateFormat) -> None:
    ca = pki.ca("Root " + algorithm, algorithm=algorithm)
    pem = ca.key.private_bytes(serialization.Encoding.PEM, encoding, serialization.NoEncryption())
    loaded = authority.load(certificate_chain_pem=ca.pem, private_key_pem=pem, root_pem=b"", now=EPOCH, where="test")
    assert loaded.certificate == ca.certificate


def _encrypted(ca: pki.Ca) -> bytes:
    return ca.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
    )


def _key_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


Secret = tuple[bytes, bytes, bytes | None]


def _broken(chain: bytes | None = None, key: bytes | None = None, root: bytes | None = None) -> Secret:
    return (ROOT.pem if chain is None else chain, ROOT.key_pem if key is None else key, root)


def _of(ca: pki.Ca) -> Secret:
    return (ca.pem, ca.key_pem, None)


BROKEN_SECRETS = {
    "no certificate": (_broken(chain=b""), "SecretInvalidData", "tls.crt holds no PEM certificates"),
    "junk for a certificate": (_broken(chain=b"junk"), "SecretInvalidData", "tls.crt holds no"),
    "a half-written certificate": (_broken(chain=ROOT.pem[:-100]), "SecretInvalidData", "tls.crt"),
    "a half-written second certificate": (_broken(chain=SUB.pem + MIDDLE.pem[:-60], key=SUB.key_pem), "SecretInvalidData", "tls.crt"),
    "DER in PEM that is none": (
        _broken(chain=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "SecretInvalidData",
        "cannot be read",
    ),
    "too many certificates": (_broken(chain=ROOT.pem * 9), "SecretInvalidData", "9 PEM certificates"),
    "no key": (_broken(key=b""), "SecretInvalidData", "tls.key holds no PEM private key"),
    "a half-written key": (_broken(key=ROOT.key_pem[:-50]), "SecretInvalidData", "tls.key holds no PEM private key"),
    "an encrypted key": (_broken(key=_encrypted(ROOT)), "SecretInvalidData", "tls.key is encrypted"),
    "a key that cannot sign": (_broken(key=_key_pem(x25519.X25519PrivateKey.generate())), "SecretInvalidData", "X25519"),
    "a key of a size that is not listed": (
        _broken(key=_key_pem(ec.generate_private_key(ec.SECP256K1()))),
        "SecretInvalidData",
        "secp256k1",
    ),
    "another CA's key": (_broken(key=SUB.key_pem), "KeyMismatch", "tls.key is not the key of the first certificate"),
    "a key of another kind": (_broken(key=pki.key_pem(pki.key(KeyAlgorithm.ED25519))), "KeyMismatch", "tls.key is not the key"),
    "a leaf": (_of(pki.ca("Leaf", is_ca=False)), "NotACA", "CN=Leaf is not a CA certificate"),
    "a CA without basicConstraints": (_of(pki.ca("No BC", without=[x509.BasicConstraints])), "NotACA", "not a CA certificate"),
    "a CA that may not sign": (_of(pki.ca("No KU", usage=pki.key_usage("crl_sign"))), "NotACA", "keyUsage without keyCertSign"),
    "an expired CA": (_of(pki.ca("Old", not_after=EPOCH - timedelta(seconds=1))), "CAExpired", "CN=Old expired on 2025-12-31"),
    "a CA of tomorrow": (
        _of(pki.ca("New", not_before=EPOCH + timedelta(days=1))),
        "CANotYetValid",
        "CN=New is not valid before 2026-01-02",
    ),
    "a chain with a hole": (_broken(chain=SUB.pem + ROOT.pem, key=SUB.key_pem), "ChainIncomplete", "CN=Sub is not issued by CN=Root"),
    "a chain in disorder": (
        _broken(chain=SUB.pem + ROOT.pem + MIDDLE.pem, key=SUB.key_pem),
        "ChainIncomplete",
        "tls.crt is the issuing CA and then each one's issuer",
    ),
    "a root that is another's": (
        _broken(chain=SUB.pem + MIDDLE.pem, key=SUB.key_pem, root=pki.ca("Other").pem),
        "ChainIncomplete",
        "CN=Middle is not issued by CN=Other",
    ),
    "a root of the same name and another key": (
        _broken(chain=SUB.pem + MIDDLE.pem, key=SUB.key_pem, root=pki.ca("Root", private_key=pki.key(owner="forger")).pem),
        "ChainIncomplete",
        "CN=Middle is not issued by CN=Root",
    ),
    "a root that is none": (
        _broken(chain=SUB.pem, key=SUB.key_pem, root=MIDDLE.pem),
        "ChainIncomplete",
        "ca.crt is not self-signed",
    ),
    "junk for a root": (_broken(root=b"junk"), "SecretInvalidData", "ca.crt holds no"),
    "two roots": (_broken(root=ROOT.pem + pki.ca("Other").pem), "SecretInvalidData", "more than one"),
    "a leaf in the chain": (
        _broken(chain=SUB.pem + pki.ca("Middle", issuer=ROOT, is_ca=False).pem, key=SUB.key_pem),
        "NotACA",
        "CN=Middle is not a CA certificate",
    ),
}


@pytest.mark.spec("THREAT-27", "THREAT-12")
@pytest.mark.parametrize("what", list(BROKEN_SECRETS))
def test_a_broken_secret_is_not_loaded_and_says_why(what: str) -> None:
    secret, reason, said = BROKEN_SECRETS[what]
    chain_pem, key_pem, root_pem = secret
    with pytest.raises(ConfigurationError) as raised:
        authority.load(certificate_chain_pem=chain_pem, private_key_pem=key_pem, root_pem=root_pem, now=EPOCH, where="Secret a/b")
    assert raised.value.reason == reason
    assert said in str(raised.value)
    assert str(raised.value).startswith("Secret a/b: ")


@pytest.mark.spec("THREAT-27")
def padded(octets: int) -> pki.Ca:
    """A CA whose certificate has an extension of so many octets."""
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(octets))
    return pki.ca("Padded", private_key=pki.key(owner="padded"), extensions=[(padding, False)])


@pytest.mark.spec("THREAT-34")
def test_a_ca_may_have_so_many_octets_of_certificates_and_no_more() -> None:
    frame = len(pki.der(padded(60_000).certificate)) - 60_000
    fits = padded(ca_secret.MAX_CA_OCTETS - frame - 8)  # a signature's length varies by some octets
    assert load(fits).certificates == (fits.certificate,)
    with pytest.raises(ConfigurationError, match=r"CN=Padded with 655\d\d") as raised:
        load(padded(ca_secret.MAX_CA_OCTETS - frame + 8))
    assert raised.value.reason == "SecretInvalidData"
    assert "may have 65536" in raised.value.message
    with pytest.raises(ConfigurationError, match="rollover"):
        authority.load(
            certificate_chain_pem=padded(33_000).pem,
            private_key_pem=padded(33_000).key_pem,
            root_pem=None,
            rollover_pem=padded(33_001).pem,
            now=EPOCH,
            where="Secret a/b",
        )


@pytest.mark.spec("THREAT-34")
def test_a_path_of_nine_large_rsa_cas_fits() -> None:
    key = pki.key(KeyAlgorithm.RSA_4096)
    path = [pki.ca("CA 0", private_key=key)]
    for number in range(1, 9):
        path.insert(0, pki.ca(f"CA {number}", issuer=path[0], private_key=key))
    assert len(load(*path[:8], root=path[8]).certificates) == 9


def test_no_message_and_no_repr_holds_a_key() -> None:
    secret = ROOT.key_pem.decode().splitlines()[1]
    ca = load(ROOT)
    assert secret not in repr(ca)
    assert "PrivateKey" not in repr(ca)
    for chain_pem, key_pem, root_pem in (broken[0] for broken in BROKEN_SECRETS.values()):
        with pytest.raises(ConfigurationError) as raised:
            authority.load(certificate_chain_pem=chain_pem, private_key_pem=key_pem, root_pem=root_pem, now=EPOCH, where="test")
        assert secret not in str(raised.value)


# ---- making


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_made_ca_is_a_root_that_issues_end_entities(algorithm: KeyAlgorithm) -> None:
    certificate = made_ca(algorithm).certificate
    certificate.verify_directly_issued_by(certificate)
    assert made_ca(algorithm).chain == ()
    assert certificate.subject.rfc4514_string() == "CN=Factory CA"
    assert critical(certificate) == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    }
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage == pki.key_usage("digital_signature", "key_cert_sign", "crl_sign")
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=87600)
    assert certificate.serial_number == CA_SERIAL


def test_authority_has_no_field_to_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        P256_CA.chain = ()  # type: ignore[misc]  # what the test is about
