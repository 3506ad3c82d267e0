"""Explicit trust anchors from a PEM file (RFC 7030 section 3.1). There are no implicit ones: the system's store is never read."""

from cryptography import x509

from estcore.errors import ConfigurationError

MAX_OCTETS = 1024 * 1024


def load(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The CA certificates of a PEM bundle, at least one; raises ConfigurationError for anything else in it.

    A leaf is refused: an anchor may be an intermediate CA, but never the server's own certificate.
    """
    if len(pem) > MAX_OCTETS:
        raise ConfigurationError(f"the trust anchors are longer than {MAX_OCTETS} octets", field="anchors")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError("the trust anchors are no PEM certificates", field="anchors") from error
    for certificate in certificates:
        if not _is_ca(certificate):
            raise ConfigurationError(f"{certificate.subject.rfc4514_string()} is no CA certificate", field="anchors")
    return tuple(certificates)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
