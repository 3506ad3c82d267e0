from datetime import timedelta

import pytest
from cryptography import x509

from estcore.usages import Usage
from estoperator import conditions
from estoperator.doors import CERT_MANAGER
from estoperator.resources import Condition
from tests import pki
from tests.estoperator.builders import APPROVED, NOW, approved, authority, pod_request, request_of, signing_request

BEFORE = {"type": "Ready", "status": "False", "reason": "Pending", "message": "m", "lastTransitionTime": "2026-01-01T00:00:30Z"}
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NOW_TEXT = "2026-01-01T00:01:00Z"


def leaf(*, hours: int = 24) -> x509.Certificate:
    key = pki.key(owner="leaf").public_key()
    end = pki.EPOCH + timedelta(hours=hours)
    sans = pki.dns("web.devices.svc")
    return pki.leaf(authority(), subject=x509.Name([]), sans=sans, public_key=key, not_before=pki.EPOCH, not_after=end)


@pytest.mark.spec("K8S-CONTRACT-16")
def test_issued_carries_certificate_ca_and_ready_in_one_status() -> None:
    status = conditions.issued(approved(), leaf=leaf(), certificate_pem=b"leaf", ca_pem=b"root", left_out=frozenset(), now=NOW)
    assert (status.certificate_pem, status.ca_pem, status.failure_time) == (b"leaf", b"root", None)
    assert status.conditions == (
        Condition(
            type="Ready",
            status="True",
            reason="Issued",
            message="Certificate fetched from issuer successfully",
            last_transition_time=NOW_TEXT,
        ),
    )


def test_issued_says_which_usage_was_left_out() -> None:
    left_out = frozenset({Usage.KEY_ENCIPHERMENT})
    status = conditions.issued(approved(), leaf=leaf(), certificate_pem=b"leaf", ca_pem=None, left_out=left_out, now=NOW)
    assert "key encipherment left out" in status.conditions[0].message


def test_issued_says_which_usages_a_ca_has_not() -> None:
    left_out = frozenset({"server auth"})
    status = conditions.issued(approved(isCA=True), leaf=leaf(), certificate_pem=b"leaf", ca_pem=None, left_out=left_out, now=NOW)
    assert "server auth left out, for a CA's certificate" in status.conditions[0].message


@pytest.mark.parametrize(("asked", "told"), [(None, False), (2 * HOUR, False), (2 * HOUR + 0.9 * SECOND, False), (3 * HOUR, True)])
@pytest.mark.spec("K8S-CONTRACT-20")
def test_a_life_shorter_than_asked_for_is_told_with_its_end(asked: timedelta | None, told: bool) -> None:
    """By the condition, and where there is none for success by the Event."""
    certificate = leaf(hours=2)
    end = conditions.timestamp(certificate.not_valid_after_utc)
    for request in (approved(), signing_request()):
        status = conditions.issued(
            request, leaf=certificate, certificate_pem=b"", ca_pem=None, left_out=frozenset(), asked_life=asked, now=NOW
        )
        said = status.conditions[0].message if status.conditions else status.note
        assert (f"it ends on {end}, sooner than asked for" in said) == told
        assert said.startswith(conditions.ISSUED)


@pytest.mark.spec("K8S-CONTRACT-13")
def test_failed_has_its_failure_time_in_the_same_status() -> None:
    status = conditions.failed(approved(), message="no", reason="BadCsr", invalid=None, now=NOW)
    assert status.failure_time == NOW_TEXT
    assert [(item.type, item.status, item.reason) for item in status.conditions] == [("Ready", "False", "Failed")]


@pytest.mark.spec("K8S-CONTRACT-14")
def test_an_invalid_request_is_failed_and_invalid_together() -> None:
    status = conditions.failed(approved(), message="no", reason="BadCsr", invalid="BadCsr", now=NOW)
    told = [(item.type, item.status, item.reason, item.message) for item in status.conditions]
    assert told == [("Ready", "False", "Failed", "no"), ("InvalidRequest", "True", "BadCsr", "no")]


@pytest.mark.spec("K8S-CONTRACT-05")
def test_denied_keeps_a_failure_time_that_is_there() -> None:
    assert conditions.denied(approved(), now=NOW).failure_time == NOW_TEXT
    earlier = approved(status={"failureTime": "2025-12-31T00:00:00Z"})
    assert conditions.denied(earlier, now=NOW).failure_time == "2025-12-31T00:00:00Z"
    assert conditions.denied(earlier, now=NOW).conditions[0].message == "The CertificateRequest was denied by an approval controller"


@pytest.mark.spec("K8S-CONTRACT-09")
def test_pending_has_no_failure_time_and_is_not_the_end() -> None:
    status = conditions.pending(approved(), message="soon", now=NOW)
    assert status.failure_time is None
    assert not status.finished


def test_the_transition_time_changes_only_when_the_status_does() -> None:
    request = request_of(CERT_MANAGER, conditions=[APPROVED, BEFORE])
    kept = conditions.failed(request, message="no", reason="BadCsr", invalid=None, now=NOW).conditions[0]
    flipped = conditions.issued(request, leaf=leaf(), certificate_pem=b"", ca_pem=None, left_out=frozenset(), now=NOW).conditions[0]
    assert kept.last_transition_time == "2026-01-01T00:00:30Z"
    assert flipped.last_transition_time == NOW_TEXT


def test_a_condition_that_tells_nothing_new_is_known_as_such() -> None:
    request = request_of(CERT_MANAGER, conditions=[APPROVED, BEFORE])
    same = conditions.pending(request, message="m", now=NOW + timedelta(hours=1)).conditions[0]
    other = conditions.pending(request, message="n", now=NOW).conditions[0]
    assert conditions.says(request.ready, same)
    assert not conditions.says(request.ready, other)
    assert not conditions.says(None, same)


@pytest.mark.spec("THREAT-36")
def test_a_message_cannot_steer_a_terminal_and_has_an_end() -> None:
    assert conditions.one_line("name \x1b[2J\r\n\u202eevil") == "name  [2J   evil"
    assert len(conditions.one_line("x" * 100_000)) == conditions.MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize(("hours", "minutes"), [(1, 40), (3, 120), (24, 960)])
def test_a_pods_certificate_is_refreshed_at_two_thirds_of_its_life_within_the_servers_bounds(hours: int, minutes: int) -> None:
    """Contract 3b, point 4."""
    certificate = leaf(hours=hours)
    times = conditions.times_of(certificate)
    assert (times.not_before, times.not_after) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    assert times.begin_refresh_at == times.not_before + timedelta(minutes=minutes)


def test_where_there_is_no_ready_the_end_is_the_one_condition() -> None:
    """Contracts 3a, point 5, and 3b, point 5."""
    for request, type_ in ((signing_request(), "Failed"), (pod_request(), "Denied")):
        status = conditions.failed(request, message="no", reason="NoRule", invalid="BadCsr", now=NOW)
        assert [(item.type, item.status, item.reason, item.message) for item in status.conditions] == [(type_, "True", "NoRule", "no")]
        assert status.finished
        assert status.failure_time is None
    issued = conditions.issued(signing_request(), leaf=leaf(), certificate_pem=b"leaf", ca_pem=b"root", left_out=frozenset(), now=NOW)
    assert (issued.conditions, issued.certificate_pem, issued.ca_pem) == ((), b"leaf", None)
