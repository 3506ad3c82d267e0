"""Fixtures of the tests on a real API server."""

from collections.abc import Iterator

import pytest

from tests.integration.apiserver import ApiServer


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One etcd and kube-apiserver for the session, the CRDs of crds/ applied. Tests share it: each uses a namespace of its own."""
    server = ApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
