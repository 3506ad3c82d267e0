"""What any certificate may look like: keys, usages, life."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509

from estcore import profile, registration
from estcore.certification_request import CertificationRequest
from estcore.errors import Forbidden, IssuerNotReady, SignerError
from estcore.issuer_spec import KeyAlgorithm, Policy
from estcore.profile import Plan
from estcore.requester import Requester
from estcore.usages import Usage
from tests import pki
from tests.core.requests import RA, basic, csr, policy
from tests.pki import EPOCH, YEAR

CA = pki.ca().certificate
NAME = x509.DNSName("a.example.com")
HOUR = timedelta(hours=1)


def plan(rules: Policy, *, usages: list[Usage] | None = None, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> Plan:
    authorized = registration.authorize(RA, csr(NAME, usages=usages, algorithm=algorithm), rules)
    return profile.plan(authorized, rules, now=EPOCH, ca_certificate=CA)


@pytest.mark.spec("THREAT-06")
def test_a_key_that_the_policy_does_not_list_is_refused() -> None:
    rules = policy(keys=["RSA-3072", "Ed25519"])
    with pytest.raises(Forbidden, match="ECDSA-P256 keys are not permitted: this issuer's policy lists RSA-3072, Ed25519") as raised:
        plan(rules)
    assert raised.value.reason == "KeyNotPermitted"
    plan(rules, algorithm=KeyAlgorithm.ED25519)


@pytest.mark.spec("THREAT-06")
def test_a_p521_key_is_for_issuers_that_list_it() -> None:
    with pytest.raises(Forbidden, match="ECDSA-P521 keys are not permitted: this issuer's policy lists ECDSA-P256, ECDSA-P384, RSA-2048"):
        plan(policy(), algorithm=KeyAlgorithm.ECDSA_P521)
    plan(policy(keys=["ECDSA-P521"]), algorithm=KeyAlgorithm.ECDSA_P521)


@pytest.mark.parametrize(
    ("algorithm", "left_out"),
    [(KeyAlgorithm.RSA_2048, set()), (KeyAlgorithm.ECDSA_P384, {Usage.KEY_ENCIPHERMENT}), (KeyAlgorithm.ED25519, {Usage.KEY_ENCIPHERMENT})],
)
def test_encipherment_is_the_one_usage_left_out_and_it_is_told(algorithm: KeyAlgorithm, left_out: set[Usage]) -> None:
    asked = [Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.SERVER_AUTH]
    planned = plan(policy(), usages=asked, algorithm=algorithm)
    assert planned.left_out == left_out
    assert planned.usages == set(asked) - left_out


@pytest.mark.spec("EST-ENROLL-05")
@pytest.mark.parametrize(
    ("algorithm", "usages", "said"),
    [
        (KeyAlgorithm.ECDSA_P256, [Usage.KEY_ENCIPHERMENT], "leave no key usage that ECDSA-P256 keys can have"),
        (KeyAlgorithm.RSA_2048, [Usage.DIGITAL_SIGNATURE, Usage.KEY_AGREEMENT], "RSA-2048 keys have no usage key agreement"),
        (KeyAlgorithm.ED25519, [Usage.KEY_AGREEMENT], "Ed25519 keys have no usage key agreement"),
        (KeyAlgorithm.ECDSA_P256, [Usage.DIGITAL_SIGNATURE, Usage.TIMESTAMPING, Usage.CLIENT_AUTH], "timestamping is the only"),
    ],
)
def test_usages_that_the_key_or_their_neighbours_rule_out_are_refused_not_altered(
    algorithm: KeyAlgorithm, usages: list[Usage], said: str
) -> None:
    with pytest.raises(Forbidden, match=said) as raised:
        plan(policy(usages=[*Usage]), usages=usages, algorithm=algorithm)
    assert raised.value.reason == "UsageNotPermitted"


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_policys_default_is_cut_to_what_the_key_can_do(algorithm: KeyAlgorithm) -> None:
    permits = policy(keys=[algorithm], usages=["digital signature", "key agreement", "client auth"])
    planned = plan(permits, algorithm=algorithm)
    agreement = {Usage.KEY_AGREEMENT} if algorithm.startswith("ECDSA") else set()
    assert planned.usages == {Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH} | agreement


@pytest.mark.spec("THREAT-01")
def test_a_ca_certificate_is_refused() -> None:
    asked = csr(NAME)
    with pytest.raises(Forbidden, match="asks for a CA certificate"):
        profile.check_csr(type(asked)(**{field: getattr(asked, field) for field in asked.__slots__} | {"ca": True}), policy())


# ---- life


@pytest.mark.spec("THREAT-30")
@pytest.mark.parametrize("microseconds", [0, 1, 999_999])
def test_a_life_is_the_duration_to_the_second_and_backdated(microseconds: int) -> None:
    now = EPOCH + timedelta(microseconds=microseconds)
    not_before, not_after = profile.validity(24 * HOUR, now=now, ca_certificate=CA)
    assert not_after - not_before == 24 * HOUR
    assert not_before == EPOCH - profile.BACKDATE
    assert timedelta(0) < profile.BACKDATE <= timedelta(minutes=5)
    assert not_before.microsecond == not_after.microsecond == 0


def test_now_in_another_zone_is_the_same_moment() -> None:
    east = EPOCH.astimezone(timezone(timedelta(hours=5)))
    assert profile.validity(HOUR, now=east, ca_certificate=CA) == profile.validity(HOUR, now=EPOCH, ca_certificate=CA)
    assert profile.validity(HOUR, now=east, ca_certificate=CA)[0].tzinfo is UTC


@pytest.mark.spec("THREAT-27")
def test_a_life_ends_with_the_cas() -> None:
    now = CA.not_valid_after_utc - HOUR
    assert profile.validity(YEAR, now=now, ca_certificate=CA)[1] == CA.not_valid_after_utc


@pytest.mark.spec("THREAT-30")
def test_a_life_does_not_begin_before_the_cas() -> None:
    not_before, not_after = profile.validity(HOUR, now=CA.not_valid_before_utc, ca_certificate=CA)
    assert not_before == CA.not_valid_before_utc
    assert not_after - not_before == HOUR


@pytest.mark.spec("THREAT-27", "THREAT-30")
@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (CA.not_valid_after_utc + timedelta(seconds=1), "CAExpired"),
        (CA.not_valid_after_utc + timedelta(microseconds=1), "CAExpired"),
        (CA.not_valid_before_utc - timedelta(seconds=1), "CANotYetValid"),
        (EPOCH + 30 * YEAR, "CAExpired"),
    ],
)
def test_a_ca_signs_only_within_its_validity(now: datetime, reason: str) -> None:
    with pytest.raises(IssuerNotReady) as raised:
        profile.validity(HOUR, now=now, ca_certificate=CA)
    assert (raised.value.reason, raised.value.http_status) == (reason, 503)


@pytest.mark.spec("THREAT-30")
@pytest.mark.parametrize("now", [datetime(1970, 1, 2, tzinfo=UTC), EPOCH.replace(tzinfo=None)])
def test_a_clock_that_was_never_set_signs_nothing(now: datetime) -> None:
    with pytest.raises(SignerError, match="clock is not set"):
        profile.validity(HOUR, now=now, ca_certificate=pki.ca("Old", not_before=datetime(1960, 1, 1, tzinfo=UTC)).certificate)


# ---- what only a registration authority asks for


def planned(asked: CertificationRequest, rules: Policy, *, ca: x509.Certificate, requester: Requester = RA) -> Plan:
    return profile.plan(registration.authorize(requester, asked, rules), rules, now=EPOCH, ca_certificate=ca)


CA_ABOVE = pki.ca("Root", path_length=1).certificate


@pytest.mark.spec("THREAT-01")
def test_a_subordinate_ca_is_planned_only_where_policy_and_the_ca_above_allow_it() -> None:
    asked = replace(csr(subject=pki.name("Sub CA")), ca=True)
    assert planned(asked, policy(isCA=True), ca=CA_ABOVE).ca
    last = pki.ca("Last", path_length=0).certificate
    for rules, ca in ((policy(), CA_ABOVE), (policy(isCA=True), last)):
        with pytest.raises(Forbidden) as raised:
            planned(asked, rules, ca=ca)
        assert raised.value.reason == "CaRequested"
    rules = policy({"subject": {"commonName": "*"}}, isCA=True)
    with pytest.raises(Forbidden) as raised:
        planned(asked, rules, ca=CA_ABOVE, requester=basic())
    assert raised.value.reason == "CaRequested"


def test_a_life_that_is_asked_for_is_had_to_the_second_up_to_the_longest() -> None:
    rules = policy(duration={"default": "24h", "max": "48h"})
    plan = planned(replace(csr(subject=pki.name("a")), duration=timedelta(hours=47)), rules, ca=CA_ABOVE)
    assert plan.not_after - plan.not_before == timedelta(hours=47)
    for life in (timedelta(hours=48, seconds=1), timedelta(minutes=4)):
        with pytest.raises(Forbidden) as raised:
            planned(replace(csr(subject=pki.name("a")), duration=life), rules, ca=CA_ABOVE)
        assert raised.value.reason == "DurationNotPermitted"


def test_a_registration_authority_has_its_certificate_for_a_day_at_most() -> None:
    plan = planned(replace(csr(subject=pki.name("operator")), cmc_ra=True), policy(), ca=CA_ABOVE)
    assert plan.cmc_ra
    assert plan.not_after - plan.not_before == timedelta(hours=24)


def test_a_registration_authority_has_its_certificate_of_an_issuer_that_gives_out_other_keys_only() -> None:
    rules = policy(keys=["RSA-3072"])
    assert planned(replace(csr(subject=pki.name("operator")), cmc_ra=True), rules, ca=CA_ABOVE).cmc_ra
    with pytest.raises(Forbidden) as raised:
        planned(csr(subject=pki.name("web")), rules, ca=CA_ABOVE)
    assert raised.value.reason == "KeyNotPermitted"
