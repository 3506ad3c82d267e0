from collections.abc import Iterator

import pytest

from tests.server.transport_fixtures import Recorder, Server, running


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
