"""The certificate by which the operator signs: when it is got, when again, and what is not signed without it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from estcore import full_message
from estcore.errors import ServerUnavailable
from estcore.extension_request import CMC_RA
from estcore.full_request import Vouched
from estcore.signatory import signatory_of
from estoperator.registration_authority import RegistrationAuthority
from tests import pki
from tests.estoperator import builders

LABEL = "devices.factory"
REQUEST = Vouched(csr_der=pki.csr(), transaction_id=7)


@dataclass
class Server:
    """estserver: signs for the key of the CSR, for a day."""

    now: datetime = builders.NOW
    asked: list[tuple[str | None, x509.CertificateSigningRequest]] = field(default_factory=list)

    async def enrol(self, label: str | None, csr_der: bytes) -> x509.Certificate:
        csr = x509.load_der_x509_csr(csr_der)
        self.asked.append((label, csr))
        return pki.leaf(
            builders.authority(),
            subject=csr.subject,
            public_key=csr.public_key(),
            not_before=self.now,
            not_after=self.now + timedelta(days=1),
        )


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def authority(server: Server) -> RegistrationAuthority:
    return RegistrationAuthority(server.enrol, now=lambda: server.now)


async def test_its_csr_asks_for_the_usage_of_a_registration_authority_and_for_no_other_name(
    server: Server, authority: RegistrationAuthority
) -> None:
    await authority.register(LABEL, "ca")
    ((label, csr),) = server.asked
    assert label == LABEL
    assert list(csr.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA]
    assert len(csr.extensions) == 1


async def test_it_is_renewed_at_half_of_its_life_and_usable_to_its_end(server: Server, authority: RegistrationAuthority) -> None:
    assert not authority.is_fresh(LABEL, "ca")
    await authority.register(LABEL, "ca")
    assert authority.is_fresh(LABEL, "ca")
    server.now += timedelta(hours=12)
    assert (authority.is_fresh(LABEL, "ca"), authority.is_usable(LABEL, "ca")) == (False, True)
    server.now += timedelta(hours=12)
    assert not authority.is_usable(LABEL, "ca")


async def test_a_new_ca_and_another_issuer_each_ask_for_another_one(authority: RegistrationAuthority) -> None:
    await authority.register(LABEL, "ca")
    assert not authority.is_usable(LABEL, "another ca")
    assert not authority.is_usable("devices.other", "ca")


async def test_of_issuers_that_are_gone_it_keeps_nothing(authority: RegistrationAuthority) -> None:
    for label in (LABEL, "devices.old", None):
        await authority.register(label, "ca")
    authority.keep({LABEL, "devices.new"})
    assert authority.is_fresh(LABEL, "ca")
    assert not authority.is_fresh("devices.old", "ca")
    assert not authority.is_fresh(None, "ca")


async def test_each_certificate_has_a_key_of_its_own_and_signs_with_that(server: Server, authority: RegistrationAuthority) -> None:
    """estserver takes a simpleenroll for a key that it knows for a retry, and gives the certificate of the CA before."""
    for ca in ("first", "second"):
        await authority.register(LABEL, ca)
        message = full_message.open_message(authority.sign(LABEL, REQUEST).content_info_der, decrypt=lambda der: ("", der))
        assert message.signed is not None
        assert signatory_of(message.signed, {}).certificate is not None
    first, second = (csr.public_key() for _, csr in server.asked)
    assert first != second


async def test_nothing_is_signed_for_an_issuer_without_its_certificate_or_after_it_was_forgotten(authority: RegistrationAuthority) -> None:
    with pytest.raises(ServerUnavailable):
        authority.sign(LABEL, REQUEST)
    await authority.register(LABEL, "ca")
    assert authority.sign(LABEL, REQUEST).transaction_id == 7
    authority.forget(LABEL)
    with pytest.raises(ServerUnavailable):
        authority.sign(LABEL, REQUEST)
