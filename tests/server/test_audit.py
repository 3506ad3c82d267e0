"""The audit log: two lines a signature, and a chain that shows what was altered."""

import json
from datetime import timedelta

import pytest

from estserver import audit
from estserver.audit import AuditLog, BrokenChain, Outcome, verify
from estserver.logs import LogFormat, renderer
from tests.server.app_fixtures import NOW


def signature(**fields: str) -> audit.Signature:
    said = {
        "issuer": "EstIssuer/devices/factory",
        "policy": "uid/3",
        "operation": "simpleenroll",
        "door": "est",
        "requester": "basic:device-1",
        "source": "192.0.2.7",
        "csr_sha256": "ab" * 32,
        "serial": "1ff",
        "transaction": "",
    }
    return audit.signature(**{**said, **fields})


def written(log_format: LogFormat, *, signatures: int = 3, **fields: str) -> list[bytes]:
    lines: list[bytes] = []
    log = AuditLog(lines.append, renderer(log_format), chain="c0ffee")
    for _ in range(signatures):
        log.before(signature(**fields), now=NOW)
        log.after(
            signature(**fields),
            Outcome(result="issued", subject="CN=x", sans=("DNS:a.example",), not_after=NOW),
            now=NOW + timedelta(seconds=1),
        )
    return lines


@pytest.mark.spec("THREAT-39")
@pytest.mark.parametrize("log_format", ["json", "keyvalue"])
def test_a_whole_log_verifies_also_between_other_lines_and_in_parts(log_format: LogFormat) -> None:
    lines = written(log_format)
    assert verify(lines) == 6
    mixed = [b'{"event": "refused"}\n', *lines[:2], b"noise audit=signing\n", *lines[2:], b"\n"]
    assert verify(mixed) == 6
    assert verify(lines[3:]) == 3, "older files are elsewhere"
    other = [line.replace(b"c0ffee", b"decade") for line in lines[:1]]
    assert verify([lines[0], *other, *lines[1:]]) == 7, "each process has a chain of its own"


@pytest.mark.spec("THREAT-39")
@pytest.mark.parametrize("log_format", ["json", "keyvalue"])
def test_a_line_that_is_altered_taken_out_put_in_or_moved_breaks_the_chain(log_format: LogFormat) -> None:
    lines = written(log_format)
    broken = {
        "altered": [lines[0], lines[1].replace(b"CN=x", b"CN=y"), *lines[2:]],
        "taken out": lines[:2] + lines[3:],
        "put in": [*lines[:2], lines[1], *lines[2:]],
        "moved": [lines[1], lines[0], *lines[2:]],
        "the first of all replaced": [lines[0].replace(b"0" * 64, b"1" * 64)],
    }
    for case, altered in broken.items():
        with pytest.raises(BrokenChain, match=r"line \d"):
            verify(altered)
        assert case


@pytest.mark.spec("THREAT-36")
@pytest.mark.parametrize("log_format", ["json", "keyvalue"])
def test_a_requester_cannot_write_lines_or_links_of_its_own(log_format: LogFormat) -> None:
    forged = 'x"\naudit=signing chain=c0ffee number=1 previous=' + "0" * 64 + " \x1b[31m\u202e"
    lines = written(log_format, requester=forged, source="s" * 1000)
    assert all(b"\n" not in line[:-1] and b"\x1b" not in line for line in lines)
    assert verify(lines) == 6
    assert all(len(line) < 4096 for line in lines), "one write of a pipe keeps it whole"


def test_both_events_say_who_how_what_and_by_which_policy() -> None:
    before, after = map(json.loads, written("json", signatures=1))
    for event in (before, after):
        assert {**event} | {
            "issuer": "EstIssuer/devices/factory",
            "policy": "uid/3",
            "requester": "basic:device-1",
            "csr_sha256": "ab" * 32,
            "serial": "1ff",
        } == event
    assert (before["audit"], after["audit"], after["result"], after["sans"]) == ("signing", "signed", "issued", ["DNS:a.example"])
