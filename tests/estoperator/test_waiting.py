"""Requests of est-issuer.io that wait: for a person, for how long, and how many."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from estcore.issuer_spec import Approval
from estoperator import conditions, decide
from estoperator.decide import AWAITS_APPROVAL, Deny, Enroll, Refuse, Step, Wait
from estoperator.issuer_state import IssuerState
from estoperator.open_requests import OpenRequests
from estoperator.resources import CertRequest
from estoperator.waiting import MAX_WAITING, MIN_SWEPT, Waiting
from tests import pki
from tests.estoperator.builders import APPROVED, DENIED, NOW, approved, csr_pem, ready_issuer, request_of

MANUAL = replace(ready_issuer(), approval=Approval.MANUAL, approval_within=timedelta(hours=2))
WEEK = timedelta(days=7)


class World:
    def __init__(self) -> None:
        self.open, self.waiting = OpenRequests(), Waiting()

    def step(self, request: CertRequest, issuer: IssuerState | None = MANUAL, now: Any = NOW) -> Step:
        """What becomes of a request; one that waits is told so, as the operator's write does."""
        self.open.observe(request)
        step = self.waiting.judge(decide.next_step(request, issuer), request, self.open, now=now)
        if isinstance(step, Wait):
            told = conditions.pending(request, message=step.message, now=now).conditions[0]
            self.open.observe(replace(request, ready=told, resource_version=str(int(request.resource_version) + 1)))
        elif isinstance(step, Refuse | Deny):
            self.open.forget(request.key)
        return step

    def fill(self, count: int = MAX_WAITING, **fields: Any) -> None:
        for number in range(count):
            assert isinstance(self.step(request_of(name=f"n{number}", **fields)), Wait)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.spec("THREAT-23")
def test_manual_approval_holds_a_request_until_approved_is_set_and_denied_ends_it(world: World) -> None:
    waits = world.step(request_of())
    assert isinstance(waits, Wait)
    assert waits.message == AWAITS_APPROVAL
    assert isinstance(world.step(request_of(conditions=[APPROVED], version=9)), Enroll)
    assert isinstance(world.step(request_of(conditions=[DENIED], version=10)), Deny)


def test_setting_approved_is_news_to_be_decided(world: World) -> None:
    world.step(request_of())
    assert world.open.observe(request_of(conditions=[APPROVED], version=9))


def test_automatic_approval_needs_nobody_and_cert_managers_requests_have_approvers_of_their_own(world: World) -> None:
    assert isinstance(world.step(request_of(), ready_issuer()), Enroll)
    assert isinstance(world.step(approved()), Enroll)


def test_nobody_is_asked_about_what_policy_refuses(world: World) -> None:
    assert isinstance(world.step(request_of(request=csr_pem("www.example.com"))), Refuse)


@pytest.mark.parametrize(("issuer", "limit"), [(MANUAL, timedelta(hours=2)), (None, WEEK)], ids=["for-a-person", "for-an-issuer"])
def test_who_waits_for_too_long_is_refused_and_told_for_what(world: World, issuer: IssuerState | None, limit: timedelta) -> None:
    assert isinstance(world.step(request_of(), issuer, pki.EPOCH + limit - timedelta(seconds=1)), Wait)
    refused = world.step(request_of(), issuer, pki.EPOCH + limit)
    assert isinstance(refused, Refuse)
    assert refused.reason == "Expired"
    waits = decide.next_step(request_of(), issuer)
    assert isinstance(waits, Wait)
    assert f"it waited for {limit // timedelta(hours=1)}h, longer than it may: {waits.message}" in refused.message


def test_cert_managers_requests_wait_for_their_issuer_without_end(world: World) -> None:
    assert isinstance(world.step(approved(), None, NOW + 100 * WEEK), Wait)


@pytest.mark.spec("THREAT-34")
def test_one_more_than_may_wait_is_refused_by_name_and_those_that_wait_go_on(world: World) -> None:
    world.fill()
    refused = world.step(request_of(name="more"))
    assert isinstance(refused, Refuse)
    assert refused.reason == "TooManyWaiting"
    assert "100 requests of namespace devices wait for approval by EstIssuer devices/factory already" in refused.message
    assert all(isinstance(world.step(request), Wait) for number in range(MAX_WAITING) if (request := world.open.get(key(number))))


def key(number: int) -> Any:
    return request_of(name=f"n{number}").key


@pytest.mark.spec("THREAT-34")
def test_other_requesters_and_other_issuers_are_counted_by_themselves(world: World) -> None:
    fleet = {"group": "est-issuer.io", "kind": "EstClusterIssuer", "name": "fleet"}
    world.fill(issuer=fleet)
    assert isinstance(world.step(request_of(name="more", issuer=fleet)), Refuse)
    assert isinstance(world.step(request_of(name="more")), Wait)
    issuer = replace(MANUAL, policy=ready_issuer(rules=[{"from": {"namespaces": ["*"]}, "dnsNames": ["*.devices.svc"]}]).policy)
    assert isinstance(world.step(request_of(name="more", issuer=fleet, namespace="lab"), issuer), Wait)


@pytest.mark.spec("THREAT-34")
def test_users_that_are_known_are_counted_by_themselves(world: World) -> None:
    world.fill(username="alice")
    assert isinstance(world.step(request_of(name="more", username="bob")), Wait)
    refused = world.step(request_of(name="more of hers", username="alice"))
    assert isinstance(refused, Refuse)
    assert "100 requests of user alice wait" in refused.message


@pytest.mark.parametrize("end", ["decided", "deleted"])
def test_when_one_is_decided_or_deleted_another_may_wait(world: World, end: str) -> None:
    world.fill()
    if end == "decided":
        world.open.observe(request_of(name="n7", conditions=[APPROVED], version=20))
    else:
        world.open.forget(key(7))
    assert isinstance(world.step(request_of(name="more")), Wait)
    assert isinstance(world.step(request_of(name="one too many")), Refuse)


def test_those_that_waited_before_a_restart_come_before_newer_ones(world: World) -> None:
    world.fill()
    before = [request for number in range(MAX_WAITING) if (request := world.open.get(key(number)))]
    restarted = World()
    restarted.fill(count=50)
    restarted_names = [restarted.step(replace(request, uid=f"old-{request.uid}")) for request in before]
    assert all(isinstance(step, Wait) for step in restarted_names)


@pytest.mark.spec("THREAT-34")
def test_what_is_counted_of_issuers_and_requesters_goes_with_their_requests(world: World) -> None:
    for number in range(5 * MIN_SWEPT):
        issuer = {"group": "est-issuer.io", "kind": "EstIssuer", "name": f"issuer-{number}"}
        request = request_of(name=f"of-{number}", issuer=issuer)
        assert isinstance(world.step(request), Wait)
        world.open.forget(request.key)
    assert len(world.waiting) <= MIN_SWEPT + 1
    world.fill()
    assert isinstance(world.step(request_of(name="one-more")), Refuse), "the others are counted as before"
