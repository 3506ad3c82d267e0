"""Log lines: escaped, cut, one event each, and never a secret."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from estcore import transfer
from estserver import logs
from tests.server.app_fixtures import RA, basic, make_csr, running, tls


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    """What the program would write, with the root logger put back afterwards."""
    written: list[bytes] = []
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = structlog.get_config()
    logs.configure("json", write=written.append)
    structlog.configure(cache_logger_on_first_use=False)  # a logger that is first used here would write here for ever
    yield written
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


HOSTILE = ["a\r\nb", "\x1b[31mred", "\u202eevil", "\x00", "x" * 1_000_000, "\u2028", "'\"\\", "a=b c=d", "\ud800"]


@pytest.mark.spec("THREAT-36")
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("log_format", ["json", "keyvalue"])
def test_a_value_is_escaped_cut_and_stays_on_its_line(hostile: str, log_format: logs.LogFormat) -> None:
    line = logs.renderer(log_format)({"event": "refused", "value": logs.clean(hostile), "list": logs.clean((hostile,) * 100)}).decode()
    assert line.isprintable()
    assert len(line) < 256 * 6 * 20
    assert len(str(logs.clean(hostile))) <= 256 * 8


def test_events_and_other_libraries_lines_are_json_of_one_line(lines: list[bytes]) -> None:
    structlog.get_logger("estserver").info("refused", text="a\nb", status=403)
    logging.getLogger("httpx").warning("away: %s", "x\ny")
    logging.getLogger("httpx").info("chatter")
    try:
        raise ValueError("why")
    except ValueError as error:
        structlog.get_logger().error("internal error", exc_info=error)
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["refused", "away: x\\ny", "internal error"]
    assert events[0]["text"] == "a\\nb"
    assert events[0]["level"] == "info"
    assert events[1]["logger"] == "httpx"
    assert "ValueError: why" in events[2]["exception"]


@pytest.mark.spec("THREAT-18", "THREAT-36")
async def test_no_password_token_or_body_is_in_any_line_or_answer(lines: list[bytes], tmp_path: Path) -> None:
    """Canaries in every secret that a request can bring; good, wrong and malformed."""
    csr_der = make_csr("device-1")
    async with running(tmp_path) as server:
        token = server.reviewer.add(RA, audience="est-issuer")
        unknown = server.reviewer.add("team-a/web", audience="devices")
        server.reviewer.known.pop(unknown)
        answers = [
            await server.enroll(csr_der, authorization=basic()),
            await server.enroll(csr_der, authorization=basic("device-1", "canary-password")),
            await server.enroll(csr_der, authorization=basic("canary-user", "canary-password")),
            await server.enroll(csr_der, authorization="Basic canary-junk!"),
            await server.enroll(csr_der, authorization=f"Bearer {token}"),
            await server.enroll(csr_der, authorization=f"Bearer {unknown}"),
            await server.enroll(b"canary-body" * 10, authorization=basic()),
            await server.enroll(
                make_csr("device-1", channel_binding=b"canary-binding"), authorization=basic(), connection=tls(binding=b"other")
            ),
        ]
        written = b"".join([*lines, *server.audit_lines, *(answer.body for answer in answers if answer.status != 200)])
    assert len(lines) >= 6, "each refusal has its line"
    secrets = [b"correct horse", b"canary", basic().encode(), token.encode(), token.split(".")[2].encode(), unknown.encode()]
    secrets += [transfer.encode_body(csr_der)[:40], transfer.encode_body(b"canary-body" * 10)[:20]]
    for secret in secrets:
        assert secret not in written, secret
