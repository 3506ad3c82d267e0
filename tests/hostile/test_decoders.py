"""Hostile octets for the decoders: each is refused by an error of the tree, with its reason, at little cost."""

from time import process_time

import pytest

from estcore import multipart
from estcore.errors import EstError
from tests.hostile.case import MAX_CPU_SECONDS
from tests.hostile.messages_to_decoders import CONTENT_TYPES, TABLES

EVERY = [(table, name) for table, (_, cases) in TABLES.items() for name in cases]


@pytest.mark.spec("THREAT-08", "THREAT-17")
@pytest.mark.parametrize(("table", "name"), EVERY, ids=[f"{table}: {name}" for table, name in EVERY])
def test_hostile_octets_are_refused_with_a_reason(table: str, name: str) -> None:
    decode, cases = TABLES[table]
    octets, reason = cases[name]
    started = process_time()
    with pytest.raises(EstError) as refused:
        decode(octets)
    assert process_time() - started < 5 * MAX_CPU_SECONDS
    assert reason in {"", refused.value.reason}
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 500


@pytest.mark.spec("THREAT-08", "EST-SKG-16")
@pytest.mark.parametrize("name", CONTENT_TYPES)
def test_a_content_type_without_a_usable_boundary_is_refused(name: str) -> None:
    started = process_time()
    with pytest.raises(EstError):
        multipart.decode(CONTENT_TYPES[name], b"--b\r\nContent-Type: a/b\r\n\r\nMAA=\r\n--b--\r\n")
    assert process_time() - started < 5 * MAX_CPU_SECONDS
