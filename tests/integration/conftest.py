"""Fixtures of the tests on a real API server."""

from collections.abc import Iterator

import pytest

from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import CERT_MANAGER_CRD, install_cert_manager_crd


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One etcd and kube-apiserver for the session, the CRDs of crds/ applied. Tests share it: each uses a namespace of its own."""
    server = ApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def cert_manager_crd(apiserver: ApiServer) -> Iterator[None]:
    """cert-manager's kind of request is served while the tests of a module run."""
    install_cert_manager_crd(apiserver)
    yield
    apiserver.kubectl("delete", "-f", str(CERT_MANAGER_CRD))
