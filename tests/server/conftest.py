from collections.abc import Iterator

import pytest
import structlog

from tests.server.transport_fixtures import Recorder, Server, running

structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
"""Thousands of lines that are shown only with a test that fails: what structlog begins with takes ten times as long."""


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """The application of `transport`."""
    return Recorder()


@pytest.fixture(scope="module")
def transport(recorder: Recorder) -> Iterator[Server]:
    """The server's transport, with the limits of production, above a small application."""
    with running(recorder) as server:
        yield server


@pytest.fixture(autouse=True)
def _forget(request: pytest.FixtureRequest) -> None:
    if "recorder" in request.fixturenames:
        request.getfixturevalue("recorder").requests.clear()
