"""What fuzzing found once is tried at every test run: each target on each file of its corpus, and on cut and altered forms of it."""

from pathlib import Path
from time import process_time

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
MOST_OCTETS = 1024 * 1024
MAX_CPU_SECONDS = 0.5


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < MOST_OCTETS


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_raises_nothing_unexpected_and_costs_little(target: str) -> None:
    files = sorted((CORPUS / target).iterdir())
    assert len(files) >= 3
    for file in files:
        data = file.read_bytes()
        started = process_time()
        for octets in (data, data[:-1], data[: len(data) // 2], data + b"\x00", bytes(data[:1]) * 2 + data[1:]):
            TARGETS[target](octets)
        assert process_time() - started < 5 * MAX_CPU_SECONDS, file.name


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_and_long_nothing_raise_nothing_unexpected(target: str) -> None:
    for octets in (b"", b"\x00", b"\n\n\n\n", b"\x30\x80" * 1000, b"\xff" * 4096, b"0" * 4096, b"\x30\x84\xff\xff\xff\xff"):
        TARGETS[target](octets)
