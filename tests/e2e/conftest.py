"""One cluster for all steps, gone afterwards whatever happens; E2E_KEEP=1 leaves it for a look. The first failing step is the last."""

import os
import socket
from collections.abc import Generator, Iterator

import pytest

from tests.e2e.cluster import NAME, Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), port=port)
    cluster.down()  # what a run that was killed left behind
    try:
        yield cluster
    finally:
        if os.environ.get("E2E_KEEP"):
            print(f"\nkept: kind export kubeconfig --name {NAME}; EST is on https://127.0.0.1:{port}")  # noqa: T201
        else:
            cluster.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.shouldfail = f"{item.name} failed, and the steps after it stand on it"
        cluster = getattr(item, "funcargs", {}).get("cluster")
        if cluster is not None:
            report.sections.append(("the cluster", cluster.what_happened()))
    return report
