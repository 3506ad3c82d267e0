"""Who may have which names, and the value that says so."""

import base64
import copy
import dataclasses
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estcore import registration
from estcore.certification_request import CertificationRequest, ChangeSubjectName
from estcore.errors import BindingMismatch, Forbidden, RequestError, SignerError
from estcore.issuer_spec import KeyAlgorithm, Policy
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estcore.usages import Usage
from tests import pki
from tests.core.requests import DNS, EMAIL, RA, SHOP, URI, basic, cluster, csr, holder, ip, pod, policy, refusal


@pytest.mark.spec("EST-ENROLL-07")
@pytest.mark.parametrize("requester", [basic(), RA])
def test_a_csr_that_names_nobody_is_refused(requester: Requester) -> None:
    error = refusal(requester, policy({"subject": {"commonName": "*"}}))
    assert (error.reason, error.http_status) == ("NoName", 400)


def test_a_name_asked_for_twice_is_had_once() -> None:
    assert registration.authorize(pod(), csr(DNS("db.shop.svc"), DNS("db.shop.svc")), SHOP).sans == (DNS("db.shop.svc"),)


# ---- registration authority


@pytest.mark.spec("EST-CLI-03")
def test_a_registration_authority_vouches_for_names_that_no_rule_permits() -> None:
    sans = (DNS("a.example.com"), URI("https://b.example.com/x?y"), ip("192.0.2.1"), EMAIL("a@example.com"), DNS("*.example.com"))
    subject = pki.name("Anybody", organization_name="Acme", locality_name="Ulm")
    authorized = registration.authorize(RA, csr(*sans, subject=subject), policy())
    assert (authorized.subject, authorized.sans) == (subject, sans)


def test_a_registration_authority_cannot_vouch_for_malformed_names() -> None:
    for san in (DNS("a_b"), DNS("*.com"), URI("https://user@a.example"), EMAIL("nobody")):
        refusal(RA, policy(), san)


# ---- re-enrolment

OLD = pki.leaf(pki.ca(), subject=pki.name("Device 1", organization_name="Acme"), sans=(DNS("a.example.com"), URI("urn:a")))


@pytest.mark.spec("EST-REENR-02", "THREAT-10")
def test_a_holder_renews_its_own_names_whatever_the_rules_say() -> None:
    asked = csr(URI("urn:a"), DNS("A.Example.com"), subject=pki.name("device  1", organization_name="ACME"))
    authorized = registration.authorize_renewal(holder(OLD), asked, policy())
    assert authorized.subject == OLD.subject
    assert authorized.sans == (DNS("a.example.com"), URI("urn:a"))


@pytest.mark.spec("EST-REENR-02", "THREAT-10")
@pytest.mark.parametrize(
    ("subject", "sans"),
    [
        (pki.name("Device 2", organization_name="Acme"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1", organization_name="Acme", country_name="DE"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), URI("urn:a"), DNS("b.example.com"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"),)),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), URI("urn:A"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), DNS("urn.a"))),
        (pki.name("Device 1", organization_name="Acme"), ()),
        (x509.Name([]), (DNS("a.example.com"), URI("urn:a"))),
        (x509.Name(list(OLD.subject)[::-1]), (DNS("a.example.com"), URI("urn:a"))),
    ],
)
def test_a_name_that_differs_is_not_renewed(subject: x509.Name, sans: tuple[x509.GeneralName, ...]) -> None:
    with pytest.raises(Forbidden, match="not that of the certificate to renew") as raised:
        registration.authorize_renewal(holder(OLD), csr(*sans, subject=subject), policy({"dnsNames": ["*.example.com"]}))
    assert raised.value.reason == "RenewalNamesDiffer"


@pytest.mark.spec("THREAT-09", "THREAT-11")
@pytest.mark.parametrize("requester", [basic(), pod(), holder(OLD, by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE), cluster()])
def test_only_the_holder_of_a_certificate_of_this_issuer_renews(requester: Requester) -> None:
    with pytest.raises(Forbidden, match="use simpleenroll") as raised:
        registration.authorize_renewal(requester, csr(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject), policy())
    assert raised.value.reason == "NotRenewable"


# ---- usages


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, {"digital signature", "key encipherment", "server auth", "client auth"}),
        (["digital signature", "key encipherment"], {"digital signature", "key encipherment"}),
        (["digital signature", "client auth"], {"digital signature", "client auth"}),
        (["client auth"], {"digital signature", "client auth"}),
        (["server auth"], {"digital signature", "key encipherment", "server auth"}),
    ],
)
def test_usages_are_the_csrs_own_or_the_policys(asked: list[str] | None, granted: set[str]) -> None:
    wanted = None if asked is None else [Usage(usage) for usage in asked]
    assert registration.permitted_usages(csr(usages=wanted), policy()) == granted


@pytest.mark.spec("THREAT-02")
def test_a_usage_outside_the_policy_is_refused_by_name() -> None:
    with pytest.raises(Forbidden, match="usage code signing is not permitted: this issuer's policy lists digital signature, ") as raised:
        registration.authorize(pod(), csr(DNS("db.shop.svc"), usages=[Usage.DIGITAL_SIGNATURE, Usage.CODE_SIGNING]), SHOP)
    assert raised.value.reason == "UsageNotPermitted"


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_encipherment_is_left_out_for_keys_that_cannot(algorithm: KeyAlgorithm) -> None:
    asked = frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT, Usage.SERVER_AUTH})
    granted, left_out = registration.without_encipherment(asked, algorithm)
    assert granted | left_out == asked
    assert left_out == (set() if algorithm.startswith("RSA") else {Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT})


# ---- channel binding

BINDING = bytes(range(32))


def bound(challenge_password: str | None) -> Any:
    return dataclasses.replace(csr(), challenge_password=challenge_password)


@pytest.mark.spec("EST-POP-02", "EST-POP-07")
@pytest.mark.parametrize("required", [True, False])
def test_the_binding_of_this_connection_is_accepted(*, required: bool) -> None:
    registration.check_binding(bound(base64.b64encode(BINDING).decode()), channel_binding=BINDING, required=required)


@pytest.mark.spec("EST-POP-03", "EST-POP-04", "THREAT-16")
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "password",
    [
        "secret",
        "",
        base64.b64encode(BINDING[:-1]).decode(),
        base64.b64encode(BINDING).decode()[:-1],
        base64.b64encode(BINDING).decode().lower(),
        base64.b64encode(BINDING).decode() + "\n",
        base64.b64encode(bytes(32)).decode(),
        BINDING.hex(),
        "\udcff",
        "é",
    ],
)
def test_another_value_is_refused_required_or_not(password: str, *, required: bool) -> None:
    with pytest.raises(BindingMismatch, match="not the channel binding of this TLS connection"):
        registration.check_binding(bound(password), channel_binding=BINDING, required=required)


@pytest.mark.spec("THREAT-16")
def test_an_empty_binding_is_never_equal() -> None:
    with pytest.raises(BindingMismatch):
        registration.check_binding(bound(""), channel_binding=b"", required=False)


@pytest.mark.spec("EST-POP-05", "EST-POP-15")
def test_absence_is_refused_only_where_binding_is_required() -> None:
    registration.check_binding(bound(None), channel_binding=BINDING, required=False)
    with pytest.raises(BindingMismatch, match="linking of identity and proof of possession is required"):
        registration.check_binding(bound(None), channel_binding=BINDING, required=True)


@pytest.mark.spec("EST-POP-05")
def test_a_rule_can_require_binding() -> None:
    rules = policy({"from": {"users": ["device-*"]}, "channelBinding": "Required"}, {"from": {"users": ["*"]}})
    assert registration.binding_required(basic("device-1"), rules)
    assert not registration.binding_required(basic("laptop-1"), rules)
    assert not registration.binding_required(pod(), rules)
    assert not registration.binding_required(RA, policy({"channelBinding": "Required"}))


# ---- Authorized


@pytest.mark.spec("THREAT-09")
def test_an_authorized_cannot_be_forged_copied_or_changed() -> None:
    genuine = registration.authorize(pod(), csr(DNS("db.shop.svc")), SHOP)
    values = {field.name: getattr(genuine, field.name) for field in dataclasses.fields(genuine) if field.init}
    for seal in (None, object(), True, "seal"):
        with pytest.raises(TypeError, match=r"comes from estcore\.registration only"):
            Authorized(**values, seal=seal)
    with pytest.raises(TypeError):
        Authorized(**values)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(genuine, sans=(DNS("evil.example"),))  # type: ignore[call-arg]  # what the test is about
    for forge in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            forge(genuine)
    with pytest.raises(dataclasses.FrozenInstanceError):
        genuine.sans = ()  # type: ignore[misc]  # what the test is about
    with pytest.raises(TypeError, match="no subclasses"):
        type("Forged", (Authorized,), {})


@pytest.mark.spec("THREAT-09")
def test_an_authorized_is_redeemed_once() -> None:
    authorized = registration.authorize(pod(), csr(DNS("db.shop.svc")), SHOP)
    authorized.redeem()
    with pytest.raises(SignerError, match="used twice"):
        authorized.redeem()


@pytest.mark.spec("THREAT-09")
def test_the_type_checker_lets_nothing_but_an_authorized_be_signed(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        textwrap.dedent(
            """
            from datetime import datetime
            from estcore import authority
            from estcore.issuer_spec import Policy
            from estcore.certification_request import CertificationRequest
            from estcore.registration import Authorized

            def sign(ca: authority.Authority, csr: CertificationRequest, authorized: Authorized, policy: Policy, now: datetime) -> None:
                authority.issue(ca, authorized, policy, now=now, serial=1)
                authority.issue(ca, csr, policy, now=now, serial=1)
            """
        )
    )
    root = Path(registration.__file__).parents[1]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", root / "pyproject.toml", snippet], cwd=root, capture_output=True, text=True
    )
    assert mypy.returncode == 1, mypy.stderr
    assert "snippet.py:10: error: Argument 2 to" in mypy.stdout
    assert 'incompatible type "CertificationRequest"; expected "Authorized"' in mypy.stdout
    assert "Found 1 error" in mypy.stdout


# ---- another key, other names


@pytest.mark.spec("EST-REENR-04")
def test_a_certificate_is_renewed_with_its_own_key_unless_policy_forbids_it() -> None:
    same_key = dataclasses.replace(csr(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject), spki_der=pki.spki_der(OLD.public_key()))
    assert registration.authorize_renewal(holder(OLD), same_key, policy()).csr is same_key
    with pytest.raises(Forbidden) as raised:
        registration.authorize_renewal(holder(OLD), same_key, policy(keyReuse="Forbidden"))
    assert raised.value.reason == "KeyReused"
    other_key = csr(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject)
    assert registration.authorize_renewal(holder(OLD), other_key, policy(keyReuse="Forbidden")).csr is other_key


@pytest.mark.spec("EST-REENR-04")
@pytest.mark.parametrize(
    ("requester", "permitted"),
    [
        pytest.param(holder(OLD), False, id="its certificate"),
        pytest.param(
            dataclasses.replace(basic(), certificate=OLD, with_certificate=AuthenticatedBy.CERTIFICATE), False, id="beside a password"
        ),
        pytest.param(basic(), True, id="a password alone"),
        pytest.param(holder(OLD, by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE), True, id="another CA's certificate"),
        pytest.param(dataclasses.replace(holder(OLD), registration_authority=True), True, id="a registration authority"),
    ],
)
def test_who_shows_a_certificate_of_this_issuer_enrols_with_its_key_no_more_than_it_renews_with_it(
    requester: Requester, permitted: bool
) -> None:
    same_key = dataclasses.replace(csr(DNS("a.example.com")), spki_der=pki.spki_der(OLD.public_key()))
    rules: dict[str, Any] = {"dnsNames": ["a.example.com"]}
    assert registration.authorize(requester, same_key, policy(rules)).csr is same_key
    if permitted:
        assert registration.authorize(requester, same_key, policy(rules, keyReuse="Forbidden")).csr is same_key
    else:
        with pytest.raises(Forbidden) as raised:
            registration.authorize(requester, same_key, policy(rules, keyReuse="Forbidden"))
        assert raised.value.reason == "KeyReused"
    other_key = csr(DNS("a.example.com"))
    assert registration.authorize(requester, other_key, policy(rules, keyReuse="Forbidden")).csr is other_key


CHANGE = ChangeSubjectName(subject=pki.name("Device 2"), sans=(DNS("b.example.com"),))
BY_RULES = policy({"dnsNames": ["b.example.com"], "subject": {"commonName": "Device 2"}}, nameChange="ByRules")


def changing(*sans: x509.GeneralName, subject: x509.Name, change: ChangeSubjectName = CHANGE) -> CertificationRequest:
    return dataclasses.replace(csr(*sans, subject=subject), name_change=change)


@pytest.mark.spec("EST-REENR-03", "EST-ENROLL-08", "EST-ENROLL-09")
@pytest.mark.parametrize("by", [AuthenticatedBy.CERTIFICATE, AuthenticatedBy.THIRD_PARTY_CERTIFICATE])
def test_names_are_changed_to_those_that_the_rules_permit(by: AuthenticatedBy) -> None:
    register = registration.authorize_renewal if by is AuthenticatedBy.CERTIFICATE else registration.authorize
    authorized = register(holder(OLD, by=by), changing(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject), BY_RULES)
    assert (authorized.subject, authorized.sans) == (CHANGE.subject, CHANGE.sans)


@pytest.mark.spec("EST-REENR-03", "EST-ENROLL-08", "THREAT-10")
@pytest.mark.parametrize(
    ("requester", "asked", "rules", "reason"),
    [
        (holder(OLD), changing(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject), policy(), "NameChangeForbidden"),
        (holder(OLD), changing(DNS("b.example.com"), subject=OLD.subject), BY_RULES, "RenewalNamesDiffer"),
        (holder(OLD), changing(DNS("b.example.com"), subject=CHANGE.subject), BY_RULES, "RenewalNamesDiffer"),
        (
            holder(OLD),
            changing(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject, change=ChangeSubjectName(subject=pki.name("root"), sans=())),
            BY_RULES,
            "NameNotPermitted",
        ),
        (basic(), changing(DNS("a.example.com"), subject=OLD.subject), BY_RULES, "NoClientCertificate"),
    ],
)
def test_names_are_not_changed(requester: Requester, asked: CertificationRequest, rules: Policy, reason: str) -> None:
    register = registration.authorize if requester.certificate is None else registration.authorize_renewal
    with pytest.raises(Forbidden) as raised:
        register(requester, asked, rules)
    assert raised.value.reason == reason


# ---- who is a registration authority


def asking_for_ra(*sans: x509.GeneralName) -> CertificationRequest:
    return dataclasses.replace(csr(*sans, subject=pki.name("operator")), cmc_ra=True)


@pytest.mark.spec("EST-CLI-03", "THREAT-17")
def test_only_the_registration_authority_by_its_token_gets_the_usage_of_one() -> None:
    authorized = registration.authorize(RA, asking_for_ra(), policy(usages=["digital signature", "server auth"]))
    assert authorized.cmc_ra
    assert authorized.usages == {Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH}
    by_certificate = dataclasses.replace(holder(OLD), registration_authority=True)
    everything = policy({"subject": {"commonName": "*"}})
    for requester in (basic(), pod(), holder(OLD), by_certificate, dataclasses.replace(cluster(), registration_authority=True)):
        assert refusal_of(requester, asking_for_ra(), everything) in {"CmcRaRequested", "NameNotPermitted", "NoRule"}
    assert refusal_of(basic(), asking_for_ra(), everything) == "CmcRaRequested"
    assert refusal_of(by_certificate, asking_for_ra(), everything) == "CmcRaRequested"
    assert refusal_of(RA, asking_for_ra(DNS("a.example.com")), everything) == "CmcRaRequested"


@pytest.mark.spec("EST-CMC-25")
def test_nothing_is_authorized_for_a_key_that_nobody_proved_to_have() -> None:
    unproven = dataclasses.replace(csr(subject=pki.name("device-1")), proven=False)
    for requester in (basic(), RA):
        assert refusal_of(requester, unproven, policy({"subject": {"commonName": "*"}})) == "NotProven"


def refusal_of(requester: Requester, asked: CertificationRequest, rules: Policy) -> str:
    with pytest.raises(RequestError) as raised:
        registration.authorize(requester, asked, rules)
    return raised.value.reason


@pytest.mark.spec("EST-AUTH-01")
def test_a_rule_may_ask_for_a_certificate_beside_a_password() -> None:
    rules = policy({"from": {"authentication": "basic", "withCertificate": "thirdPartyCertificate"}, "subject": {"commonName": "*"}})
    both = basic(with_certificate=AuthenticatedBy.THIRD_PARTY_CERTIFICATE, certificate=OLD)
    assert registration.authorize(both, csr(subject=pki.name("device-1")), rules).requester is both
    for requester in (
        basic(),
        basic(with_certificate=AuthenticatedBy.CERTIFICATE),
        holder(OLD, by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE),
    ):
        assert refusal_of(requester, csr(subject=pki.name("device-1")), rules) == "NoRule"


# ---- identity linking


@pytest.mark.spec("EST-POP-17")
@pytest.mark.parametrize(
    ("password", "linking", "fits"),
    [(True, None, True), (None, True, True), (True, True, True), (True, False, False), (False, True, False), (None, False, False)],
)
def test_each_attribute_with_the_binding_is_checked_on_its_own(password: bool | None, linking: bool | None, fits: bool) -> None:
    texts = {True: base64.b64encode(b"b" * 32).decode(), False: base64.b64encode(b"c" * 32).decode(), None: None}
    asked = dataclasses.replace(csr(), challenge_password=texts[password], identity_linking=texts[linking])
    if fits:
        registration.check_binding(asked, channel_binding=b"b" * 32, required=True)
    else:
        with pytest.raises(BindingMismatch):
            registration.check_binding(asked, channel_binding=b"b" * 32, required=False)
