"""One request from decision to status, against an API server and an EST server that a test scripts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from estcore.errors import EstError, Pending, Refused, ServerUnavailable
from estcore.full_request import Vouched
from estcore.keys import PublicKey
from estcore.requester import Door
from estoperator import object_reader
from estoperator.conditions import RequestStatus
from estoperator.doors import CERT_MANAGER, POD_CERTIFICATES, SIGNING_REQUESTS
from estoperator.events import Event, Events
from estoperator.issuer_state import IssuerState
from estoperator.issuing import MAX_CONFLICTS, REVIEW_AGAIN, Issuing
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.remembered import MAX_GONE
from estoperator.resources import CertRequest, IssuerRef, RequestKey, User
from estoperator.workqueue import WorkQueue
from tests import pki
from tests.estoperator import builders
from tests.estoperator.builders import APPROVED, DENIED, FACTORY, NOW, WEB, approved, ready_issuer, request_of
from tests.estoperator.test_workqueue import Clock, take


@dataclass
class Api:
    """The API server: `now` is what a read gives; each write first raises the next of `refusals`."""

    now: CertRequest | None = None
    refusals: list[KubernetesError] = field(default_factory=list)
    written: list[tuple[CertRequest, RequestStatus]] = field(default_factory=list)
    references: bool = True
    reviewed: list[tuple[str, IssuerRef]] = field(default_factory=list)

    async def read_request(self, key: RequestKey) -> CertRequest | None:
        if self.now is None:
            raise Gone("not found")
        return self.now

    async def may_reference(self, user: User, issuer: IssuerRef) -> bool:
        self.reviewed.append((user.username, issuer))
        return self.references

    async def apply_status(self, request: CertRequest, status: RequestStatus) -> CertRequest | None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.written.append((request, status))
        return (
            None
            if status.finished
            else replace(request, ready=status.conditions[0], resource_version=str(int(request.resource_version) + 1))
        )


@dataclass
class Server:
    """estserver: signs for whatever key the CSR has, or raises the next of `errors`."""

    authority: pki.Ca
    errors: list[Exception] = field(default_factory=list)
    asked: list[tuple[str | None, Vouched]] = field(default_factory=list)

    async def enrol(
        self, label: str | None, vouched: Vouched, *, public_key: PublicKey, authorities: Sequence[x509.Certificate]
    ) -> x509.Certificate:
        assert list(authorities) == [builders.authority().certificate]
        self.asked.append((label, vouched))
        if self.errors:
            raise self.errors.pop(0)
        return pki.leaf(self.authority, subject=x509.Name([]), sans=pki.dns(WEB), public_key=public_key)


@dataclass
class Known:
    """The issuers by name."""

    issuers: dict[IssuerRef, IssuerState]

    def state(self, ref: IssuerRef) -> IssuerState | None:
        return self.issuers.get(ref)


class Told(Events):
    """Events that are kept instead of queued."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class World:
    api: Api
    server: Server
    known: Known
    issuing: Issuing
    clock: Clock
    told: Told

    async def work(self, request: CertRequest) -> None:
        self.issuing.open_requests.observe(request)
        await self.issuing.work(request.key)

    @property
    def last(self) -> RequestStatus:
        return self.api.written[-1][1]


@pytest.fixture
def world() -> World:
    clock = Clock()
    api, server, known = Api(), Server(builders.authority()), Known({FACTORY: ready_issuer()})
    queue: WorkQueue[RequestKey] = WorkQueue(clock=clock, per_namespace=9, jitter=lambda: 1.0)
    issuing = Issuing(
        api=api,
        enroller=server,
        issuers=known,
        open_requests=OpenRequests(),
        queue=queue,
        metrics=Metrics(),
        events=(told := Told()),
        now=lambda: NOW + timedelta(seconds=clock.seconds - Clock().seconds),
        max_retry=timedelta(minutes=10),
    )
    return World(api, server, known, issuing, clock, told)


def reason(status: RequestStatus) -> str:
    return status.conditions[0].reason


@pytest.mark.spec("K8S-CONTRACT-16")
async def test_an_approved_request_is_issued_in_one_write_and_forgotten(world: World) -> None:
    request = approved()
    await world.work(request)
    assert len(world.api.written) == 1
    assert reason(world.last) == "Issued"
    assert world.last.ca_pem == builders.authority().pem
    assert world.issuing.open_requests.get(request.key) is None
    assert len(world.issuing.queue) == 0


async def test_estserver_is_asked_at_the_issuers_label_for_the_object_and_its_uid(world: World) -> None:
    await world.work(approved())
    await world.work(request_of(name="other"))
    assert [label for label, _ in world.server.asked] == ["devices.factory", "devices.factory"]
    assert [json.loads(vouched.reg_info or b"") for _, vouched in world.server.asked] == [
        {"door": "cert-manager.io", "namespace": "devices", "name": "web"},
        {"door": "est-issuer.io", "namespace": "devices", "name": "other"},
    ]
    first, second = (vouched.transaction_id for _, vouched in world.server.asked)
    assert first != second


async def test_a_refused_request_is_failed_and_counted(world: World) -> None:
    await world.work(approved(isCA=True))
    assert reason(world.last) == "Failed"
    assert world.last.failure_time is not None
    assert world.server.asked == []
    assert b'est_operator_refused_total{door="cert-manager.io",reason="CaRequested"} 1.0' in world.issuing.metrics.render()


async def test_what_estserver_refuses_is_failed_with_its_words(world: World) -> None:
    world.server.errors = [Refused("the server refused (403): no such name here", http_status=403)]
    await world.work(approved())
    assert reason(world.last) == "Failed"
    assert "no such name here" in world.last.conditions[0].message


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_a_server_that_is_away_leaves_the_request_pending_and_it_is_tried_again(world: World) -> None:
    world.server.errors = [ServerUnavailable("away", retry_after=timedelta(seconds=7))]
    request = approved()
    await world.work(request)
    assert (reason(world.last), world.last.failure_time) == ("Pending", None)
    assert len(world.issuing.queue) == 1
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


AWAY = ServerUnavailable("the ledger is not writable")


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_what_fails_again_and_again_ends_ten_minutes_after_the_first_try(world: World) -> None:
    world.server.errors = [AWAY] * 3
    request = approved()
    await world.work(request)
    world.clock.seconds += 599
    await world.issuing.work(request.key)
    assert reason(world.last) == "Pending"
    world.clock.seconds += 1
    await world.issuing.work(request.key)
    assert reason(world.last) == "Failed"


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_the_first_fault_after_an_approval_that_came_late_is_tried_again(world: World) -> None:
    await world.work(request_of(CERT_MANAGER))
    world.clock.seconds += 3600
    world.server.errors = [AWAY]
    await world.work(approved(version=8))
    assert reason(world.last) == "Pending"
    await world.issuing.work(approved().key)
    assert reason(world.last) == "Issued"


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(builders.unready_issuer("estserver does not answer"), id="an outage of estserver"),
        pytest.param(None, id="an issuer that was deleted and made anew"),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-09", "K8S-CONTRACT-12")
async def test_the_first_fault_after_a_time_in_which_nothing_could_be_tried_is_tried_again(
    world: World, between: IssuerState | None
) -> None:
    world.server.errors = [AWAY]
    request = approved()
    await world.work(request)
    world.known.issuers = {} if between is None else {FACTORY: between}
    await world.issuing.work(request.key)
    world.clock.seconds += 3600
    world.known.issuers = {FACTORY: ready_issuer()}
    world.server.errors = [AWAY]
    await world.issuing.work(request.key)
    assert (reason(world.last), world.last.failure_time) == ("Pending", None)
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_the_first_fault_after_days_of_waiting_for_a_person_is_tried_again(world: World) -> None:
    request = approved()
    world.server.errors = [AWAY, Pending("a person", retry_after=timedelta(hours=1)), AWAY]
    await world.work(request)
    await world.issuing.work(request.key)
    world.clock.seconds += 3 * 86400
    await world.issuing.work(request.key)
    assert (reason(world.last), world.last.failure_time) == ("Pending", None)
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_the_tries_of_another_request_of_the_name_do_not_count(world: World) -> None:
    world.server.errors = [AWAY] * 2
    await world.work(approved())
    world.clock.seconds += 3600
    await world.work(approved(metadata={"uid": "another"}))
    assert reason(world.last) == "Pending"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(ServerUnavailable("503", retry_after=timedelta(days=1)), 600, id="a load balancer's 503"),
        pytest.param(Pending("a person", retry_after=timedelta(days=1)), 3600, id="a 202"),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-12", "THREAT-32")
async def test_a_day_in_retry_after_keeps_no_request_for_a_day(world: World, error: EstError, seconds: int) -> None:
    world.server.errors = [error]
    queue, request = world.issuing.queue, approved()
    await world.work(request)
    queue.resume()
    world.clock.seconds += seconds - 1
    assert await take(queue) is None
    world.clock.seconds += 1
    assert await take(queue) == request.key
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


async def test_the_same_pending_is_written_once(world: World) -> None:
    world.server.errors = [ServerUnavailable("away") for _ in range(5)]
    request = approved()
    world.issuing.open_requests.observe(request)
    for _ in range(5):
        await world.issuing.work(request.key)
    assert len(world.api.written) == 1


@pytest.mark.spec("K8S-CONTRACT-19")
async def test_a_certificate_that_fails_the_self_check_is_not_written(world: World) -> None:
    world.server.authority = pki.ca("Stranger")
    await world.work(approved())
    assert reason(world.last) == "Pending"
    assert "none of the issuer's CA certificates" in world.last.conditions[0].message


@pytest.mark.spec("K8S-CONTRACT-05", "THREAT-23", "THREAT-31")
async def test_a_request_denied_while_it_is_signed_is_denied(world: World) -> None:
    world.api.refusals = [Stale("modified", http_status=409)]
    world.api.now = request_of(CERT_MANAGER, conditions=[APPROVED, DENIED], version=8)
    await world.work(approved())
    assert [reason(status) for _, status in world.api.written] == ["Denied"]
    assert world.api.written[0][0].resource_version == "8"


@pytest.mark.spec("THREAT-31")
async def test_a_request_that_another_replica_finished_is_left_alone(world: World) -> None:
    world.api.refusals = [Stale("modified", http_status=409)]
    world.api.now = approved(status={"certificate": "LS0t"}, version=8)
    request = approved()
    await world.work(request)
    assert world.api.written == []
    assert world.issuing.open_requests.get(request.key) is None


async def test_a_request_that_changed_is_read_again_and_its_new_version_written(world: World) -> None:
    world.api.refusals = [Stale("modified", http_status=409)]
    world.api.now = approved(version=8)
    await world.work(approved())
    assert [(request.resource_version, reason(status)) for request, status in world.api.written] == [("8", "Issued")]
    assert len(set(world.server.asked)) == 1


async def test_a_request_that_changes_for_ever_waits_for_its_backoff(world: World) -> None:
    world.api.refusals = [Stale("modified", http_status=409)] * MAX_CONFLICTS
    world.api.now = approved(version=8)
    await world.work(approved())
    assert world.api.written == []
    assert len(world.issuing.queue) == 1


async def test_a_request_deleted_while_it_is_signed_is_dropped(world: World) -> None:
    world.api.refusals = [Gone("not found", http_status=404)]
    request = approved()
    await world.work(request)
    assert world.issuing.open_requests.get(request.key) is None
    assert len(world.issuing.queue) == 0


@pytest.mark.spec("K8S-CONTRACT-03")
@pytest.mark.parametrize(
    ("refusal", "read"),
    [
        pytest.param(Gone("not found", http_status=404), None, id="the write finds nothing"),
        pytest.param(Stale("the uid is another", http_status=409), None, id="nor does the read after it"),
    ],
)
async def test_a_request_that_was_made_anew_while_the_one_before_was_signed_is_decided(
    world: World, refusal: KubernetesError, read: CertRequest | None
) -> None:
    """The watch tells of both, and of the new one, before the answer for the old one is there."""
    old, new = approved(), approved(version=9, metadata={"uid": "new"})
    sign = world.server.enrol

    async def meanwhile(*args: Any, **kwargs: Any) -> x509.Certificate:
        world.issuing.open_requests.forget(old.key)
        world.issuing.open_requests.observe(new)
        world.issuing.queue.add(new.key)
        return await sign(*args, **kwargs)

    world.server.enrol = meanwhile  # type: ignore[method-assign]
    world.api.refusals, world.api.now = [refusal], read
    await world.work(old)
    assert world.issuing.open_requests.get(new.key) == new
    assert len(world.issuing.queue) == 1
    world.server.enrol = sign  # type: ignore[method-assign]
    await world.issuing.work(new.key)
    assert [request.uid for request, _ in world.api.written] == ["new"]
    assert reason(world.last) == "Issued"


@pytest.mark.spec("K8S-CONTRACT-04")
async def test_a_request_that_nobody_approved_is_not_touched(world: World) -> None:
    await world.work(request_of(CERT_MANAGER))
    assert (world.api.written, world.server.asked) == ([], [])


@pytest.mark.spec("K8S-CONTRACT-09", "K8S-CONTRACT-22")
async def test_a_request_waits_for_its_issuer_and_goes_on_when_it_is_there(world: World) -> None:
    world.known.issuers = {}
    request = approved()
    await world.work(request)
    assert (reason(world.last), world.last.conditions[0].message) == ("Pending", "EstIssuer devices/factory not found")
    world.known.issuers = {FACTORY: ready_issuer()}
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


async def test_another_request_of_the_same_name_is_another_transaction(world: World) -> None:
    await world.work(approved())
    await world.work(approved(metadata={"uid": "another"}))
    assert len({vouched.transaction_id for _, vouched in world.server.asked}) == 2


async def test_a_fault_of_ours_is_told_as_one_and_tried_again(world: World) -> None:
    world.server.errors = [RuntimeError("secret detail")]
    request = approved()
    await world.work(request)
    assert (reason(world.last), world.last.failure_time) == ("Pending", None)
    assert "internal error" in world.last.conditions[0].message
    assert "secret detail" not in world.last.conditions[0].message
    await world.issuing.work(request.key)
    assert reason(world.last) == "Issued"


@pytest.mark.spec("K8S-CONTRACT-16")
async def test_an_issued_request_is_told_of_by_a_normal_event_on_the_request(world: World) -> None:
    await world.work(approved())
    (event,) = world.told.events
    assert (event.reason, event.warning) == ("CertificateIssued", False)
    assert event.note.startswith("Certificate fetched from issuer successfully")
    assert (event.subject.api_version, event.subject.kind) == ("cert-manager.io/v1", "CertificateRequest")
    assert (event.subject.namespace, event.subject.name, event.subject.uid) == ("devices", "web", "uid-web")


@pytest.mark.spec("K8S-CONTRACT-09")
async def test_a_waiting_request_is_told_of_when_it_begins_to_wait_and_not_again(world: World) -> None:
    world.known.issuers.clear()
    request = request_of()
    await world.work(request)
    world.known.issuers[FACTORY] = builders.unready_issuer("SecretMissing")
    await world.issuing.work(request.key)
    world.known.issuers[FACTORY] = builders.unready_issuer("SecretInvalidData")
    await world.issuing.work(request.key)
    assert len(world.api.written) == 3
    assert [event.reason for event in world.told.events] == ["IssuerNotFound"]


@pytest.mark.spec("K8S-CONTRACT-09")
async def test_a_request_for_an_issuer_that_is_not_ready_is_told_of_with_that_reason(world: World) -> None:
    world.known.issuers[FACTORY] = builders.unready_issuer("SecretMissing")
    await world.work(request_of())
    assert [(event.reason, event.warning) for event in world.told.events] == [("IssuerNotReady", False)]


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_a_hundred_retries_are_told_of_once_and_the_end_once_more(world: World) -> None:
    request = approved()
    world.server.errors = [ServerUnavailable(f"attempt {number}") for number in range(100)]
    world.server.errors.append(Refused("no", http_status=403))
    world.issuing.open_requests.observe(request)
    for _ in range(101):
        await world.issuing.work(request.key)
    assert [(event.reason, event.warning) for event in world.told.events] == [("RetryableError", True), ("PermanentError", True)]


FAULTS = [ServerUnavailable(f"the server cannot answer now (500): internal error {number:016x}; its log has it") for number in (0xA1, 0xB2)]


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_a_fault_of_estserver_is_written_once_with_the_id_of_its_first_incident(world: World) -> None:
    """Each attempt has another id; a status that is written at each would wake everybody who watches it."""
    request = approved()
    world.server.errors = [*FAULTS]
    world.issuing.open_requests.observe(request)
    for _ in FAULTS:
        await world.issuing.work(request.key)
    assert len(world.server.asked) == len(FAULTS)
    assert len(world.api.written) == 1
    assert "internal error 00000000000000a1" in world.last.conditions[0].message


async def test_a_fault_of_estserver_is_one_event_of_a_native_request(world: World) -> None:
    request = builders.signing_request("Approved")
    world.server.errors = [*FAULTS]
    world.issuing.open_requests.observe(request)
    for _ in FAULTS:
        await world.issuing.work(request.key)
    assert len(world.server.asked) == len(FAULTS)
    (event,) = world.told.events
    assert "internal error 00000000000000a1" in event.note


@pytest.mark.spec("K8S-CONTRACT-05")
async def test_of_a_denied_request_the_approver_tells_and_we_do_not(world: World) -> None:
    await world.work(request_of(CERT_MANAGER, conditions=[DENIED]))
    assert world.told.events == []


async def test_a_status_that_may_not_be_written_is_tried_again_ever_more_rarely(world: World) -> None:
    """As where another's admission policy refuses it: the write of a request that waits is an attempt like any other."""
    world.known.issuers.clear()
    world.issuing.queue.resume()
    request = approved()
    waits = []
    for _ in range(4):
        world.api.refusals = [KubernetesError("refused by a policy", http_status=403)]
        with pytest.raises(KubernetesError):
            await world.work(request)
        world.issuing.queue.retry(request.key)  # as the program does it
        waits.append(world.issuing.queue._until_due())
        assert await take(world.issuing.queue) is None
        world.clock.seconds += waits[-1] or 0.0
        assert await take(world.issuing.queue) == request.key
        world.issuing.queue.done(request.key)
    assert waits == [0.5, 1.0, 2.0, 4.0]


async def test_an_event_is_told_only_once_the_status_is_written(world: World) -> None:
    world.api.refusals = [KubernetesError("away")]
    with pytest.raises(KubernetesError):
        await world.work(approved())
    assert world.told.events == []


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize("believed", [True, False])
async def test_a_username_is_passed_on_only_where_admission_checked_it(world: World, believed: bool) -> None:
    object.__setattr__(world.issuing, "believes", lambda _: believed)
    await world.work(request_of(username="alice"))
    assert world.api.written[-1][0].username == ("alice" if believed else None)


async def test_a_user_without_reference_is_refused_before_the_issuer_is_looked_at(world: World) -> None:
    """Contract 3a, point 3: the refusal does not say whether there is such an issuer."""
    world.api.references = False
    world.known.issuers.clear()
    await world.work(builders.signing_request())
    world.clock.seconds += REVIEW_AGAIN.total_seconds()
    await world.work(builders.signing_request())
    assert world.api.reviewed == [("jane", FACTORY)] * 2
    assert [(item.type, item.reason) for item in world.last.conditions] == [("Failed", "DeniedReference")]
    assert world.server.asked == []


async def test_a_user_is_refused_for_good_only_once_it_was_said_twice_with_some_seconds_between(world: World) -> None:
    """An API server that is starting denies what it will allow once it has read every role."""
    world.api.references = False
    for _ in range(3):
        await world.work(builders.signing_request())
    assert (world.api.written, world.told.events, len(world.issuing.queue)) == ([], [], 1)
    world.api.references = True
    world.issuing.queue.resume()
    world.clock.seconds += REVIEW_AGAIN.total_seconds()
    key = await take(world.issuing.queue)
    assert key == builders.signing_request().key
    await world.issuing.work(key)
    assert world.last.certificate_pem


async def test_what_a_native_request_waits_for_is_an_event_told_once_and_nothing_is_written(world: World) -> None:
    """Contract 3a, point 2."""
    world.known.issuers.clear()
    for _ in range(3):
        await world.work(builders.signing_request())
    assert world.api.written == []
    assert [event.reason for event in world.told.events] == ["IssuerNotFound"]


async def test_an_event_names_its_object_in_the_version_that_is_served(world: World) -> None:
    """`kubectl events --for` looks for the version that it knows: v1beta1 of a pod's request on Kubernetes 1.35 and 1.36."""
    world.known.issuers.clear()
    await world.work(builders.pod_request())
    world.issuing.doors[Door.POD_CERTIFICATE] = replace(POD_CERTIFICATES, version="v1beta1")
    await world.work(builders.pod_request(signerName="estissuers.est-issuer.io/devices.another"))
    assert [event.subject.api_version for event in world.told.events] == ["certificates.k8s.io/v1", "certificates.k8s.io/v1beta1"]


async def test_a_native_request_made_anew_under_its_name_is_told_of_too(world: World) -> None:
    """Contract 3a, point 2: the Event is all that is said, and `kubectl describe` shows those of the object's uid."""
    world.known.issuers.clear()
    first = builders.signing_request()
    for uid in ("first", "first", "second"):
        await world.work(replace(first, uid=uid))
    assert [event.subject.uid for event in world.told.events] == ["first", "second"]


async def test_what_a_native_request_did_not_get_as_asked_is_in_its_event(world: World) -> None:
    """Contract 3a, point 4: its status has no place for it."""
    await world.work(builders.signing_request("Approved", usages=["digital signature", "key encipherment"], expirationSeconds=86400 * 300))
    (event,) = world.told.events
    assert (event.reason, event.warning) == ("CertificateIssued", False)
    assert "key encipherment left out" in event.note
    assert "sooner than asked for" in event.note


async def test_what_is_remembered_of_deleted_requests_has_an_end(world: World) -> None:
    world.known.issuers.clear()
    for number in range(3 * MAX_GONE):
        body = builders.signing_body("Approved")
        body["metadata"]["name"] = f"n{number}"
        request = object_reader.read_request(SIGNING_REQUESTS, body)
        assert request is not None
        await world.work(request)
        world.issuing.open_requests.forget(request.key)
    assert len(world.issuing.told) <= MAX_GONE + 1
