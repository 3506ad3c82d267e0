import pytest

from tests.client.double import Identity, make_ca, make_server


@pytest.fixture(scope="session")
def ca() -> Identity:
    return make_ca("est-issuer test CA")


@pytest.fixture(scope="session")
def server(ca: Identity) -> Identity:
    return make_server(ca, "localhost", "127.0.0.1")
