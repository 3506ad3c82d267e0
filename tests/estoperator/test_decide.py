"""The decision about one request, as a table: a name is the promise."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from estcore.errors import (
    EstError,
    Forbidden,
    MalformedResponse,
    Pending,
    Refused,
    ServerUnavailable,
    UntrustedServer,
)
from estcore.label_selector import LabelSelector
from estcore.requester import AuthenticatedBy, Door
from estcore.usages import Usage
from estoperator import decide
from estoperator.decide import Deny, Enroll, Ignore, Refuse, Retry, Step, Wait
from estoperator.doors import CERT_MANAGER
from estoperator.issuer_state import IssuerState
from estoperator.requesters import requester_of
from estoperator.resources import CertRequest, IssuerRef
from estoperator.vouching import Wishes
from tests import pki
from tests.estoperator import builders
from tests.estoperator.builders import (
    APPROVED,
    DENIED,
    NOW,
    READY_ISSUED,
    WEB,
    approved,
    csr_pem,
    pod_request,
    ready_issuer,
    request_of,
    unready_issuer,
)

FAILED = "Failed to sign CertificateRequest: "
TEN_MINUTES, HOUR = timedelta(minutes=10), timedelta(hours=1)
SERVER_ONLY = (Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH)
CERT_MANAGER_DEFAULT = (Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT)


@pytest.mark.parametrize(
    ("request_", "issuer", "expected"),
    [
        pytest.param(
            request_of(CERT_MANAGER),
            ready_issuer(),
            Ignore,
            id="ignore-unless-approved-or-denied",
            marks=pytest.mark.spec("K8S-CONTRACT-04", "THREAT-23"),
        ),
        pytest.param(request_of(CERT_MANAGER, conditions=[APPROVED, READY_ISSUED]), ready_issuer(), Ignore, id="ignore-what-is-issued"),
        pytest.param(
            request_of(CERT_MANAGER, conditions=[DENIED]),
            ready_issuer(),
            Deny,
            id="deny-what-is-denied",
            marks=pytest.mark.spec("K8S-CONTRACT-05"),
        ),
        pytest.param(
            request_of(CERT_MANAGER, conditions=[APPROVED, DENIED]),
            ready_issuer(),
            Deny,
            id="deny-wins-over-approve",
            marks=pytest.mark.spec("K8S-CONTRACT-05", "THREAT-23"),
        ),
        pytest.param(request_of(CERT_MANAGER, conditions=[DENIED]), None, Deny, id="deny-needs-no-issuer"),
        pytest.param(request_of(conditions=[DENIED]), ready_issuer(), Deny, id="deny-an-est-issuer-request-too"),
        pytest.param(approved(), ready_issuer(), Enroll, id="enrol-what-is-approved"),
        pytest.param(request_of(), ready_issuer(), Enroll, id="enrol-an-est-issuer-request-without-approval"),
        pytest.param(approved(), None, Wait, id="wait-while-the-issuer-is-missing", marks=pytest.mark.spec("K8S-CONTRACT-09")),
        pytest.param(
            approved(),
            unready_issuer(),
            Wait,
            id="wait-while-the-issuer-is-not-ready",
            marks=pytest.mark.spec("K8S-CONTRACT-09", "K8S-CONTRACT-11"),
        ),
        pytest.param(request_of(duration="24h0m0s"), ready_issuer(), Enroll, id="enrol-for-the-requests-own-duration"),
        pytest.param(
            approved(usages=list(CERT_MANAGER_DEFAULT), request=csr_pem(WEB, usages=CERT_MANAGER_DEFAULT)),
            ready_issuer(),
            Enroll,
            id="enrol-with-cert-managers-default-usages",
        ),
        pytest.param(
            approved(usages=["signing", "server auth"], request=csr_pem(WEB, usages=SERVER_ONLY)),
            ready_issuer(),
            Enroll,
            id="enrol-with-a-usage-by-its-other-name",
        ),
    ],
)
def test_the_step(request_: CertRequest, issuer: IssuerState | None, expected: type[Step]) -> None:
    assert isinstance(decide.next_step(request_, issuer), expected)


@pytest.mark.parametrize(
    ("fields", "message", "invalid"),
    [
        pytest.param(
            {"request": b"hello"},
            "spec.request holds no PEM blocks of type CERTIFICATE REQUEST instead of one",
            "MalformedBody",
            id="no-pem",
        ),
        pytest.param(
            {"request": csr_pem(WEB) * 2},
            "spec.request holds 2 PEM blocks of type CERTIFICATE REQUEST instead of one",
            "MalformedBody",
            id="two-csrs",
        ),
        pytest.param({"request": csr_pem(WEB).replace(b"MI", b"M!", 1)}, "base64", "MalformedBody", id="pem-that-is-not-base64"),
        pytest.param(
            {"request": csr_pem("web.other.svc")},
            "web.other.svc",
            None,
            id="a-name-of-another-namespace",
            marks=pytest.mark.spec("THREAT-22"),
        ),
        pytest.param(
            {"request": csr_pem("evil.example")}, "evil.example", None, id="a-name-outside-the-policy", marks=pytest.mark.spec("THREAT-03")
        ),
        pytest.param(
            {"namespace": "other", "request": csr_pem("web.other.svc")},
            "No rule of this issuer's policy is for",
            None,
            id="a-namespace-without-a-rule",
        ),
        pytest.param({"isCA": True}, "this issuer issues none", None, id="a-ca-certificate", marks=pytest.mark.spec("THREAT-01")),
        pytest.param(
            {"request": csr_pem(WEB, ca=True)},
            "the CSR asks for a CA certificate and spec.isCA does not",
            "IsCAContradicts",
            id="a-csr-for-a-ca-certificate",
            marks=pytest.mark.spec("THREAT-01"),
        ),
        pytest.param({"duration": "59m"}, "spec.duration 59m is shorter than 1:00:00", None, id="a-duration-below-the-least"),
        pytest.param(
            {"duration": "8761h"},
            "a life of 365 days, 1:00:00 was asked for: this issuer's policy permits",
            None,
            id="a-duration-above-the-policys",
            marks=pytest.mark.spec("K8S-CONTRACT-20"),
        ),
        pytest.param({"duration": "soon"}, "spec.duration 'soon' is not a duration", None, id="no-duration-at-all"),
        pytest.param(
            {"usages": ["client auth"], "request": csr_pem(WEB, usages=SERVER_ONLY)},
            "spec.usages (client auth) differ from the usages in the CSR (digital signature, server auth)",
            "UsagesContradict",
            id="usages-that-contradict-the-csr",
            marks=pytest.mark.spec("K8S-CONTRACT-21"),
        ),
        pytest.param({"usages": ["cert sign"]}, "usage 'cert sign' is never given to an end entity", None, id="cert-sign"),
        pytest.param({"usages": ["any"]}, "usage 'any' is never given to an end entity", None, id="any-usage"),
        pytest.param(
            {"request": csr_pem(WEB, usages=(Usage.CODE_SIGNING,))}, "code signing", None, id="a-usage-that-the-policy-does-not-list"
        ),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-13", "K8S-CONTRACT-14")
def test_what_is_refused_says_why(fields: dict[str, Any], message: str, invalid: str | None) -> None:
    step = decide.next_step(approved(**fields), ready_issuer())
    assert isinstance(step, Refuse)
    assert step.message.startswith(FAILED)
    assert message in step.message
    assert step.invalid == invalid


@pytest.mark.spec("THREAT-07", "K8S-CONTRACT-14")
def test_a_csr_with_a_broken_signature_is_an_invalid_request() -> None:
    der = bytearray(pki.csr(sans=pki.dns(WEB)))
    der[-1] ^= 1
    step = decide.next_step(approved(request=builders.armour(bytes(der))), ready_issuer())
    assert isinstance(step, Refuse)
    assert step.invalid == "BadSignature"


def test_a_message_names_the_issuer_that_is_missing_or_says_why_it_is_not_ready() -> None:
    assert decide.next_step(approved(), None) == Wait(message="EstIssuer devices/factory not found", reason="IssuerNotFound")
    waiting = decide.next_step(approved(), unready_issuer("SecretMissing"))
    assert waiting == Wait(message="EstIssuer devices/factory is not ready: SecretMissing", reason="IssuerNotReady")


def test_the_requester_is_the_namespace_alone_whoever_the_request_says_made_it() -> None:
    requester = requester_of(request_of(username="system:admin", groups=["system:masters"]))
    assert requester.authenticated_by is AuthenticatedBy.KUBERNETES
    assert (requester.identity, requester.namespace, requester.door) == ("devices", "devices", Door.EST_ISSUER)
    assert (requester.user, requester.groups, requester.registration_authority) == (None, frozenset(), False)


def test_key_encipherment_is_left_out_for_an_ec_key_and_the_step_says_so() -> None:
    step = decide.next_step(approved(request=csr_pem(WEB, usages=CERT_MANAGER_DEFAULT)), ready_issuer())
    assert isinstance(step, Enroll)
    assert step.left_out == {Usage.KEY_ENCIPHERMENT}


def test_a_rule_that_requires_channel_binding_refuses_a_kubernetes_request() -> None:
    rules = [{"from": {"namespaces": ["devices"]}, "dnsNames": ["*.{namespace}.svc"], "channelBinding": "Required"}]
    step = decide.next_step(request_of(), ready_issuer(rules=rules))
    assert isinstance(step, Refuse)
    assert "channel binding" in step.message


WILL_RETRY = "Failed to sign CertificateRequest, will retry: "
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(Refused("no", http_status=400), Refuse(message=FAILED + "no", reason="Refused"), id="400-is-the-csrs-fault"),
        pytest.param(Refused("no", http_status=403), Refuse(message=FAILED + "no", reason="Refused"), id="403-is-the-profiles-answer"),
        pytest.param(Refused("no", http_status=409), Refuse(message=FAILED + "no", reason="Refused"), id="409-is-a-key-used-twice"),
        pytest.param(
            Refused("no", http_status=401),
            Retry(message=WILL_RETRY + "no", reason="Refused", after=timedelta(0)),
            id="401-is-our-tokens-fault",
        ),
        pytest.param(
            Refused("no", http_status=404),
            Retry(message=WILL_RETRY + "no", reason="Refused", after=timedelta(0)),
            id="404-is-a-label-not-there-yet",
        ),
        pytest.param(
            ServerUnavailable("away", retry_after=SECOND),
            Retry(message=WILL_RETRY + "away", reason="ServerUnavailable", after=SECOND),
            id="away-is-tried-again",
        ),
        pytest.param(
            UntrustedServer("who?"),
            Retry(message=WILL_RETRY + "who?", reason="UntrustedServer", after=timedelta(0)),
            id="untrusted-is-no-fault-of-the-request",
        ),
        pytest.param(
            MalformedResponse("odd"),
            Retry(message=WILL_RETRY + "odd", reason="MalformedResponse", after=timedelta(0)),
            id="an-odd-answer-is-tried-again",
        ),
        pytest.param(Forbidden("no"), Refuse(message=FAILED + "no", reason="Forbidden"), id="a-refusal-of-the-registration"),
        pytest.param(
            Pending("a person", retry_after=SECOND),
            Retry(message="Waiting for approval: a person", reason="Pending", after=SECOND),
            id="202-waits",
        ),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-12")
def test_the_step_after_an_error(error: EstError, expected: Step) -> None:
    assert decide.after_error(error, approved(), ready_issuer(), since=pki.EPOCH, now=NOW, max_retry=TEN_MINUTES) == expected


@pytest.mark.spec("K8S-CONTRACT-22")
@pytest.mark.parametrize(
    "error", [Refused("404: no such label", http_status=404), ServerUnavailable("503"), Pending("a person", retry_after=SECOND)]
)
def test_a_request_whose_issuer_went_while_estserver_was_asked_waits_for_one_of_that_name(error: EstError) -> None:
    """Whatever the answer says of a label that nobody has any more."""
    step = decide.after_error(error, approved(), None, since=pki.EPOCH, now=NOW + timedelta(days=1), max_retry=TEN_MINUTES)
    assert step == Wait(message="EstIssuer devices/factory not found", reason="IssuerNotFound")


@pytest.mark.parametrize(
    ("asked", "followed"),
    [(SECOND, SECOND), (TEN_MINUTES, TEN_MINUTES), (TEN_MINUTES + SECOND, TEN_MINUTES), (timedelta(days=1), TEN_MINUTES)],
)
@pytest.mark.spec("K8S-CONTRACT-12", "THREAT-32")
def test_what_a_503_asks_to_wait_is_followed_for_ten_minutes_at_most(asked: timedelta, followed: timedelta) -> None:
    error = ServerUnavailable("away", retry_after=asked)
    step = decide.after_error(error, approved(), ready_issuer(), since=pki.EPOCH, now=NOW, max_retry=timedelta(days=7))
    assert isinstance(step, Retry)
    assert step.after == followed


@pytest.mark.parametrize(("asked", "followed"), [(TEN_MINUTES, TEN_MINUTES), (HOUR, HOUR), (HOUR + SECOND, HOUR), (24 * HOUR, HOUR)])
@pytest.mark.spec("K8S-CONTRACT-12")
def test_what_a_202_asks_to_wait_is_followed_for_an_hour_at_most(asked: timedelta, followed: timedelta) -> None:
    step = decide.after_error(
        Pending("a person", retry_after=asked), approved(), ready_issuer(), since=pki.EPOCH, now=NOW, max_retry=TEN_MINUTES
    )
    assert isinstance(step, Retry)
    assert step.after == followed


@pytest.mark.spec("K8S-CONTRACT-12")
def test_a_retryable_error_is_final_ten_minutes_after_the_first_that_failed() -> None:
    error = ServerUnavailable("away")
    before = decide.after_error(
        error, approved(), ready_issuer(), since=pki.EPOCH, now=pki.EPOCH + TEN_MINUTES - SECOND, max_retry=TEN_MINUTES
    )
    after = decide.after_error(error, approved(), ready_issuer(), since=pki.EPOCH, now=pki.EPOCH + TEN_MINUTES, max_retry=TEN_MINUTES)
    assert isinstance(before, Retry)
    assert after == Refuse(message=FAILED + "away", reason="ServerUnavailable")


def test_a_request_that_waited_long_for_its_issuer_is_retried_from_when_that_became_ready() -> None:
    hour = pki.EPOCH + timedelta(hours=1)
    step = decide.after_error(
        ServerUnavailable("away"), approved(), ready_issuer(since=hour), since=pki.EPOCH, now=hour + SECOND, max_retry=TEN_MINUTES
    )
    assert isinstance(step, Retry)


def test_what_waits_for_a_person_waits_without_end() -> None:
    late = pki.EPOCH + timedelta(days=300)
    step = decide.after_error(
        Pending("a person", retry_after=SECOND), approved(), ready_issuer(), since=pki.EPOCH, now=late, max_retry=TEN_MINUTES
    )
    assert isinstance(step, Retry)


@pytest.mark.spec("K8S-CONTRACT-20", "K8S-CONTRACT-21")
def test_what_the_csr_cannot_say_becomes_wishes_of_the_registration_authority() -> None:
    step = decide.next_step(approved(duration="36h", usages=["server auth", "digital signature"]), ready_issuer())
    assert isinstance(step, Enroll)
    assert step.wishes == Wishes(duration=timedelta(hours=36), usages=frozenset({Usage.SERVER_AUTH, Usage.DIGITAL_SIGNATURE}))


@pytest.mark.spec("K8S-CONTRACT-21")
def test_a_ca_certificate_is_a_wish_where_the_policy_has_them() -> None:
    step = decide.next_step(approved(isCA=True, usages=["cert sign"]), ready_issuer(isCA=True))
    assert isinstance(step, Enroll)
    assert step.wishes == Wishes(is_ca=True)


@pytest.mark.spec("K8S-CONTRACT-21")
def test_what_a_ca_cannot_have_of_the_usages_that_were_asked_for_is_left_out_and_the_step_says_so() -> None:
    step = decide.next_step(approved(isCA=True, usages=["cert sign", "digital signature", "server auth"]), ready_issuer(isCA=True))
    assert isinstance(step, Enroll)
    assert step.left_out == {"digital signature", "server auth"}


@pytest.mark.spec("K8S-CONTRACT-21")
def test_without_any_usage_cert_managers_request_asks_for_its_apis_default_as_far_as_policy_has_that() -> None:
    """Its API: digital signature and key encipherment, if not specified. Ours leaves it to the policy."""
    narrow = ready_issuer(usages=["digital signature", "server auth"])
    for issuer, usages in ((ready_issuer(), frozenset(CERT_MANAGER_DEFAULT)), (narrow, frozenset({Usage.DIGITAL_SIGNATURE}))):
        step = decide.next_step(approved(), issuer)
        assert isinstance(step, Enroll)
        assert step.wishes.usages == usages
        ours = decide.next_step(request_of(), issuer)
        assert isinstance(ours, Enroll)
        assert ours.wishes.usages is None
    named = decide.next_step(approved(request=csr_pem(WEB, usages=SERVER_ONLY)), ready_issuer())
    assert isinstance(named, Enroll)
    assert named.wishes.usages is None, "those of the CSR"


def test_a_request_in_a_namespace_whose_labels_are_not_known_yet_waits_for_them_and_is_not_refused() -> None:
    """A namespace and the first request in it come by two watches: a refusal would be for good, and keep a pod from starting."""
    rules = [{"from": {"namespaceSelector": {"matchLabels": {"tier": "edge"}}}, "dnsNames": ["*.{namespace}.svc"]}]
    issuer = ready_issuer(rules=rules)
    for request in (approved(), request_of(), pod_request()):
        waiting = decide.next_step(request, issuer, seen=lambda _: False)
        assert isinstance(waiting, Wait)
        assert waiting.reason == "NamespaceNotSeen"
        assert isinstance(decide.next_step(request, issuer), Refuse)
    assert isinstance(decide.next_step(approved(), ready_issuer(), seen=lambda _: False), Enroll)


@pytest.mark.spec("K8S-CONTRACT-21")
def test_a_csr_that_asks_for_the_ca_certificate_that_the_spec_asks_for_is_sent_on() -> None:
    """cert-manager writes basicConstraints into the CSR of such a Certificate."""
    step = decide.next_step(approved(isCA=True, request=csr_pem(WEB, ca=True)), ready_issuer(isCA=True))
    assert isinstance(step, Enroll)
    assert (step.wishes.is_ca, step.csr.ca) == (True, True)


FLEET = IssuerRef("EstClusterIssuer", "", "fleet")
OF_FLEET = {"group": "est-issuer.io", "kind": "EstClusterIssuer", "name": "fleet"}


def fleet(selector: dict[str, Any] | None) -> IssuerState:
    allowed = None if selector is None else LabelSelector.model_validate(selector)
    return dataclasses.replace(ready_issuer(FLEET), allowed_namespaces=allowed)


@pytest.mark.parametrize(
    ("selector", "labels", "served"),
    [
        pytest.param(None, {}, False, id="absent-is-none"),
        pytest.param({}, {}, True, id="empty-is-all"),
        pytest.param({"matchLabels": {"team": "a"}}, {"team": "a"}, True, id="a-label-that-it-has"),
        pytest.param({"matchLabels": {"team": "a"}}, {"team": "b"}, False, id="a-label-of-another-value"),
        pytest.param({"matchLabels": {"kubernetes.io/metadata.name": "devices"}}, {}, True, id="its-name"),
    ],
)
@pytest.mark.spec("THREAT-22")
def test_an_est_cluster_issuer_serves_the_namespaces_that_it_allows(
    selector: dict[str, Any] | None, labels: dict[str, str], served: bool
) -> None:
    step = decide.next_step(approved(issuer=OF_FLEET), fleet(selector), lambda name: {**labels, "kubernetes.io/metadata.name": name})
    assert isinstance(step, Enroll) is served
    if not served:
        assert isinstance(step, Wait)
        assert step.reason == "NamespaceNotAllowed"
        assert "EstClusterIssuer fleet does not serve namespace 'devices': its spec.allowedNamespaces" in step.message


def test_a_rule_with_a_namespace_selector_is_for_the_namespaces_with_that_label() -> None:
    issuer = ready_issuer(rules=[{"from": {"namespaceSelector": {"matchLabels": {"team": "a"}}}, "dnsNames": ["*.{namespace}.svc"]}])
    assert isinstance(decide.next_step(approved(), issuer, lambda _: {"team": "a"}), Enroll)
    assert isinstance(decide.next_step(approved(), issuer, lambda _: {"team": "b"}), Refuse)
