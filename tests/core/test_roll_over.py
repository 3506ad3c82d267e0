"""A CA that gets a new key: the certificates that lead from the one to the other, and what is refused beside them."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification

from estcore import authority, roll_over, trust
from estcore.authority import Authority
from estcore.errors import ConfigurationError
from estcore.issuer_spec import KeyAlgorithm
from estcore.trust import Untrusted
from tests import pki
from tests.pki import DAY, EPOCH, YEAR

OLD = pki.ca(
    "Factory CA",
    private_key=pki.key(KeyAlgorithm.RSA_3072, "old"),
    not_before=EPOCH - 9 * YEAR,
    not_after=EPOCH + 90 * DAY,
)
NEW = pki.ca("Factory CA", private_key=pki.key(owner="new"), not_before=EPOCH - DAY, not_after=EPOCH + 9 * YEAR)
SERIALS = (1 << 130, 1 << 131)
OLD_WITH_NEW, NEW_WITH_OLD = roll_over.link_certificates(OLD.certificate, OLD.key, NEW.certificate, NEW.key, serials=SERIALS)  # type: ignore[arg-type]  # keys of listed kinds
LINKS = (OLD.certificate, OLD_WITH_NEW, NEW_WITH_OLD)


def load(*rollover: x509.Certificate, now: object = EPOCH) -> Authority:
    return authority.load(
        certificate_chain_pem=pki.pem(NEW.certificate),
        private_key_pem=pki.key_pem(NEW.key),
        root_pem=None,
        rollover_pem=pki.pem(*rollover),
        now=now,  # type: ignore[arg-type]  # a datetime
        where="Secret devices/factory-ca",
    )


@pytest.mark.spec("EST-KEYUPD-03")
def test_links_live_as_long_as_what_they_link() -> None:
    """RFC 4210 section 4.4.1: OldWithNew as the old certificate; NewWithOld from the new one's beginning to the old one's end."""
    assert OLD_WITH_NEW.not_valid_before_utc == OLD.certificate.not_valid_before_utc
    assert OLD_WITH_NEW.not_valid_after_utc == OLD.certificate.not_valid_after_utc
    assert NEW_WITH_OLD.not_valid_before_utc == NEW.certificate.not_valid_before_utc
    assert NEW_WITH_OLD.not_valid_after_utc == OLD.certificate.not_valid_after_utc
    assert NEW.certificate.not_valid_before_utc < OLD.certificate.not_valid_after_utc


@pytest.mark.spec("EST-KEYUPD-04")
@pytest.mark.parametrize(("link", "subject", "issuer"), [(OLD_WITH_NEW, OLD, NEW), (NEW_WITH_OLD, NEW, OLD)])
def test_a_link_is_a_ca_certificate_of_the_one_name_with_the_other_key(link: x509.Certificate, subject: pki.Ca, issuer: pki.Ca) -> None:
    assert link.subject == link.issuer == subject.certificate.subject
    assert link.public_key() == subject.key.public_key()
    link.verify_directly_issued_by(issuer.certificate)
    assert link.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert link.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    ski = link.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert ski == x509.SubjectKeyIdentifier.from_public_key(subject.key.public_key())
    aki = link.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == x509.SubjectKeyIdentifier.from_public_key(issuer.key.public_key()).digest


@pytest.mark.spec("EST-KEYUPD-04")
@pytest.mark.parametrize(
    ("anchor", "signer", "link"),
    [pytest.param(OLD, NEW, NEW_WITH_OLD, id="new leaf, old anchor"), pytest.param(NEW, OLD, OLD_WITH_NEW, id="old leaf, new anchor")],
)
def test_path_validation_leads_from_either_anchor_to_a_leaf_of_either_key(anchor: pki.Ca, signer: pki.Ca, link: x509.Certificate) -> None:
    leaf = pki.leaf(signer, sans=pki.dns("a.example"), ekus=[pki.SERVER_AUTH])
    store = verification.Store([anchor.certificate])
    verifier = verification.PolicyBuilder().store(store).time(EPOCH).build_server_verifier(x509.DNSName("a.example"))
    assert len(verifier.verify(leaf, [link])) == 3


@pytest.mark.spec("EST-KEYUPD-01")
def test_a_ca_with_a_roll_over_set_gives_out_all_of_it_and_leaves_out_what_expired() -> None:
    assert load(*LINKS).certificates == (NEW.certificate, *LINKS)
    later = load(*LINKS, now=EPOCH + YEAR)
    assert later.certificates == (NEW.certificate,)


def test_certificates_of_the_old_key_authenticate_as_long_as_a_certificate_of_it_is_there() -> None:
    leaf = pki.leaf(OLD, ekus=[pki.CLIENT_AUTH])
    trust.verify_issued_by(leaf, load(*LINKS).present_and_former, now=EPOCH)
    trust.verify_issued_by(leaf, load(OLD_WITH_NEW).present_and_former, now=EPOCH)
    with pytest.raises(Untrusted):
        trust.verify_issued_by(leaf, load().present_and_former, now=EPOCH)


STRANGER = pki.ca("Factory CA", private_key=pki.key(owner="stranger"))


@pytest.mark.spec("THREAT-12", "THREAT-27")
@pytest.mark.parametrize(
    ("rollover", "why"),
    [
        pytest.param([NEW.certificate], "is in tls.crt or ca.crt already", id="the present one"),
        pytest.param([pki.ca("Other CA").certificate], "a roll-over keeps the name", id="another name"),
        pytest.param([OLD_WITH_NEW, pki.ca("Factory CA", issuer=STRANGER).certificate], "signed by none", id="a stranger's signature"),
        pytest.param([pki.leaf(OLD, subject=pki.name("Factory CA"))], "not a CA certificate", id="a leaf of the same name"),
        pytest.param([pki.ca("Factory CA", not_before=EPOCH + DAY).certificate], "not valid before", id="not yet valid"),
    ],
)
def test_what_belongs_to_no_roll_over_of_this_ca_is_refused(rollover: list[x509.Certificate], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load(*rollover)


@pytest.mark.parametrize(
    ("old", "old_key", "new", "new_key", "why"),
    [
        (OLD, NEW.key, NEW, NEW.key, "not the key"),
        (OLD, OLD.key, NEW, OLD.key, "not the key"),
        (OLD, OLD.key, pki.ca("Other"), pki.ca("Other").key, "keeps the name"),
        (pki.ca("Factory CA", issuer=NEW), pki.ca("Factory CA").key, NEW, NEW.key, "not a self-signed"),
        (
            pki.ca("Factory CA", private_key=pki.key(owner="e"), not_after=EPOCH - 2 * DAY),
            pki.key(owner="e"),
            NEW,
            NEW.key,
            "nothing to roll",
        ),
    ],
)
def test_two_cas_that_are_no_roll_over_are_not_linked(old: pki.Ca, old_key: object, new: pki.Ca, new_key: object, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        roll_over.link_certificates(old.certificate, old_key, new.certificate, new_key, serials=SERIALS)  # type: ignore[arg-type]  # as above


def test_a_new_ca_that_ends_first_ends_its_link_too() -> None:
    short = pki.ca("Factory CA", private_key=pki.key(owner="short"), not_before=EPOCH, not_after=EPOCH + DAY)
    _, new_with_old = roll_over.link_certificates(OLD.certificate, OLD.key, short.certificate, short.key, serials=SERIALS)  # type: ignore[arg-type]  # as above
    assert new_with_old.not_valid_after_utc - new_with_old.not_valid_before_utc == timedelta(days=1)
