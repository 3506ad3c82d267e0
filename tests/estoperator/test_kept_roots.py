"""Which root stays trusted that is no longer the issuer's, and for how long."""

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from estoperator import kept_roots
from estoperator.kept_roots import KEPT_ANNOTATION, SIGNED_LIFE_ANNOTATION, SIGNED_UNTIL_ANNOTATION, SIGNING_ANNOTATION, Anchors
from tests import pki
from tests.estoperator.builders import NOW

OLD, NEW, NEWER = (pki.ca(name) for name in ("Old", "New", "Newer"))
LIFE = timedelta(days=90)


def publish(*present: pki.Ca, before: Anchors | None = None, now: Any = NOW, max_life: timedelta = LIFE) -> Anchors:
    return kept_roots.keep(pem(*present), before, max_life=max_life, now=now)


def sha256(ca: pki.Ca) -> str:
    return ca.certificate.fingerprint(hashes.SHA256()).hex()


def pem(*cas: pki.Ca) -> str:
    return b"".join(ca.pem for ca in cas).decode()


@pytest.mark.parametrize("life", ["300000000000", "-300000000000"])
def test_a_life_that_nothing_can_have_stops_no_bundle(life: str) -> None:
    """9,500 years, in the annotation of a bundle whose root is still the issuer's."""
    first = publish(OLD)
    edited = Anchors(pem=first.pem, annotations={**first.annotations, SIGNED_LIFE_ANNOTATION: life})
    assert publish(OLD, before=edited) == first


def test_the_first_bundle_has_what_the_issuer_has() -> None:
    assert publish(NEW).pem == pem(NEW)


def test_a_root_that_signed_and_was_replaced_is_kept_until_no_certificate_under_it_can_live() -> None:
    first = publish(OLD)
    second = publish(NEW, before=first)
    assert second.pem == pem(NEW, OLD)
    later = publish(NEW, before=second, now=NOW + LIFE - timedelta(seconds=1))
    assert later.pem == pem(NEW, OLD)
    assert publish(NEW, before=later, now=NOW + LIFE).pem == pem(NEW)


def test_it_is_not_kept_beyond_its_own_end() -> None:
    end = OLD.certificate.not_valid_after_utc
    kept = publish(NEW, before=publish(OLD), now=end - timedelta(days=1))
    assert publish(NEW, before=kept, now=end).pem == pem(NEW)


def test_two_replaced_one_after_the_other_are_both_kept_each_for_its_time() -> None:
    second = publish(NEW, before=publish(OLD))
    third = publish(NEWER, before=second, now=NOW + timedelta(days=30))
    assert third.pem == pem(NEWER, NEW, OLD)
    assert publish(NEWER, before=third, now=NOW + LIFE).pem == pem(NEWER, NEW)


def test_a_change_of_the_policy_moves_no_end_that_was_set() -> None:
    second = publish(NEW, before=publish(OLD))
    assert publish(NEW, before=second, max_life=timedelta(0)).pem == pem(NEW, OLD)


def test_a_shorter_maximum_of_today_does_not_shorten_what_yesterdays_certificates_live() -> None:
    """90 days at first; then a day, and a second later half a day; then another root."""
    shorter = publish(OLD, before=publish(OLD), max_life=timedelta(days=1))
    shortest = publish(OLD, before=shorter, max_life=timedelta(hours=12), now=NOW + timedelta(seconds=1))
    replaced = publish(NEW, before=shortest, max_life=timedelta(hours=12), now=NOW + timedelta(days=30))
    assert publish(NEW, before=replaced, now=NOW + LIFE - timedelta(seconds=1)).pem == pem(NEW, OLD)
    assert publish(NEW, before=replaced, now=NOW + LIFE).pem == pem(NEW)


def test_the_maximum_counts_that_was_there_where_it_and_the_root_changed_while_nobody_looked() -> None:
    replaced = publish(NEW, before=publish(OLD), max_life=timedelta(hours=1), now=NOW + timedelta(days=5))
    ends = NOW + timedelta(days=5) + LIFE
    assert publish(NEW, before=replaced, now=ends - timedelta(seconds=1)).pem == pem(NEW, OLD)
    assert publish(NEW, before=replaced, now=ends).pem == pem(NEW)


def test_what_is_remembered_of_a_longer_maximum_stays_the_same_until_it_says_nothing_more() -> None:
    shorter = publish(OLD, before=publish(OLD), max_life=timedelta(days=1))
    assert shorter.annotations[SIGNED_UNTIL_ANNOTATION] == (NOW + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
    later = publish(OLD, before=shorter, max_life=timedelta(days=1), now=NOW + timedelta(days=80))
    assert later == shorter
    over = publish(OLD, before=later, max_life=timedelta(days=1), now=NOW + timedelta(days=89))
    assert over.annotations[SIGNED_UNTIL_ANNOTATION] == ""


@pytest.mark.parametrize(
    "annotations",
    [
        {SIGNED_LIFE_ANNOTATION: "long"},
        {SIGNED_LIFE_ANNOTATION: "9" * 30},
        {SIGNED_LIFE_ANNOTATION: "300000000000"},
        {SIGNED_LIFE_ANNOTATION: "-300000000000"},
        {SIGNED_UNTIL_ANNOTATION: "x"},
        {SIGNED_UNTIL_ANNOTATION: "0001-01-01T00:00:00+14:00"},
        {KEPT_ANNOTATION: "[" * 100_000},
        {KEPT_ANNOTATION: json.dumps({sha256(OLD): "0001-01-01T00:00:00+14:00"})},
    ],
)
def test_a_life_that_cannot_be_read_counts_for_nothing(annotations: dict[str, str]) -> None:
    signing = publish(OLD).annotations[SIGNING_ANNOTATION]
    replaced = publish(NEW, before=Anchors(pem=pem(OLD), annotations={SIGNING_ANNOTATION: signing} | annotations))
    assert replaced.pem == pem(NEW, OLD)
    assert publish(NEW, before=replaced, now=NOW + LIFE).pem == pem(NEW)


def test_what_is_taken_out_of_a_roll_over_is_withdrawn_at_once() -> None:
    rolling = publish(NEW, OLD, before=publish(OLD))
    assert rolling.pem == pem(NEW, OLD)
    assert publish(NEW, before=rolling).pem == pem(NEW)


def test_a_root_that_comes_back_is_present_again_and_kept_anew_when_it_goes() -> None:
    back = publish(OLD, before=publish(NEW, before=publish(OLD)))
    assert back.pem == pem(OLD, NEW)
    assert publish(NEW, before=back).pem == pem(NEW, OLD)


def test_a_bundle_that_was_deleted_forgets_what_was_kept() -> None:
    publish(NEW, before=publish(OLD))
    assert publish(NEW).pem == pem(NEW)


@pytest.mark.parametrize("annotations", [{}, {KEPT_ANNOTATION: "["}, {KEPT_ANNOTATION: "[]"}, {SIGNING_ANNOTATION: "x"}])
def test_a_root_that_no_annotation_of_ours_speaks_for_is_not_kept(annotations: dict[str, str]) -> None:
    assert publish(NEW, before=Anchors(pem=pem(OLD), annotations=annotations)).pem == pem(NEW)


@pytest.mark.parametrize("bundle", ["", "no PEM", "\u00e9"])
def test_a_bundle_that_cannot_be_read_keeps_nothing(bundle: str) -> None:
    assert publish(NEW, before=Anchors(pem=bundle, annotations=publish(OLD).annotations)).pem == pem(NEW)
