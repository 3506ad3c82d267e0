"""Since when an object has been whole: by its generations while an operator looks, by managedFields of what came before."""

from datetime import timedelta
from typing import Any

import pytest

from estoperator.uninterrupted import Uninterrupted, last_change
from tests import pki

HOUR = timedelta(hours=1)
CA_BUNDLE: dict[str, Any] = {"f:webhooks": {'k:{"name":"webhook.cert-manager.io"}': {"f:clientConfig": {"f:caBundle": {}}}}}
MORE: dict[str, Any] = {
    "f:webhooks": {'k:{"name":"webhook.cert-manager.io"}': {"f:clientConfig": {"f:caBundle": {}}, "f:failurePolicy": {}}}
}
APPLIED: dict[str, Any] = {"f:webhooks": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:clientConfig": {"f:caBundle": {}}}}}


def written(hours: int, fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An entry of managedFields."""
    return {"manager": "x", "operation": "Update", "time": f"2026-01-01T{hours:02}:00:00Z", "fieldsV1": fields or {"f:spec": {}}, **more}


def body(generation: int, *entries: dict[str, Any], uid: str = "a") -> dict[str, Any]:
    metadata = {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": generation, "managedFields": list(entries)}
    return {"metadata": metadata}


def seen(*bodies: dict[str, Any] | None, hour: int = 9) -> int:
    """Hours after EPOCH since when the last one is whole, of looks one after the other at `hour`; None is one that is not whole."""
    watched = Uninterrupted(lambda: pki.EPOCH + hour * HOUR)
    since = pki.EPOCH - HOUR
    for one in bodies:
        if one is None:
            watched.interrupted()
        else:
            since = watched.since(one)
    return round((since - pki.EPOCH) / HOUR)


def test_what_never_changed_is_whole_since_it_was_made() -> None:
    assert seen(body(1, written(5))) == 0, "the time is of something else than its spec"
    assert seen(body(1), None, body(1, uid="b")) == 0, "made anew"


@pytest.mark.spec("THREAT-23")
def test_of_what_changed_before_the_first_look_the_last_change_counts() -> None:
    assert seen(body(3, written(1), written(4), written(2))) == 4
    assert seen(body(3)) == 0, "nobody says when"


def test_a_status_and_a_webhooks_ca_that_was_renewed_change_nothing_that_counts() -> None:
    assert seen(body(3, written(1), written(4, subresource="status"))) == 1
    assert seen(body(3, written(1), written(4, CA_BUNDLE), written(5, APPLIED))) == 1
    assert seen(body(3, written(1), written(4, MORE))) == 4
    assert seen(body(3, written(1), written(4, {"f:metadata": {"f:labels": {}}}))) == 4, "it may have taken something back"


def test_one_change_from_whole_to_whole_interrupts_nothing() -> None:
    assert seen(body(2, written(1)), body(2, written(1)), body(3, written(6)), body(4, written(7))) == 1


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize(
    "looks",
    [
        pytest.param((body(2), None, body(4)), id="off and on again"),
        pytest.param((body(2), body(4)), id="between two looks"),
        pytest.param((None, body(3)), id="off at the first look"),
        pytest.param((body(2), body(2, uid="b")), id="made anew and changed"),
        pytest.param((body(4), body(3)), id="restored from a backup"),
    ],
)
def test_what_may_have_been_off_is_whole_since_it_was_seen_to_be_so_again(looks: tuple[dict[str, Any] | None, ...]) -> None:
    assert seen(*looks, hour=9) == 9


def test_the_api_servers_time_counts_where_it_is_later_than_ours() -> None:
    assert seen(body(2), None, body(4, written(11)), hour=9) == 11


def test_times_are_read_without_any_managed_fields() -> None:
    assert last_change({"creationTimestamp": "2026-01-01T00:00:00Z"}) == pki.EPOCH
    assert last_change({"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "x"}]}) == pki.EPOCH
