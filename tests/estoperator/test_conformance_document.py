"""docs/conformance-cert-manager.md says what the table says that the integration tests hold."""

from tests.integration.cert_manager_cases import DOCUMENT, document


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m tests.integration.cert_manager_cases"
