"""EST client: enrols, renews and fetches CA certificates over TLS that it verified against explicit anchors (RFC 7030).

A thin layer of IO over `estcore.exchange`. As a library: `EstClient`; as a command: `est` (see `estclient.__main__`).
"""

from estclient.client import CsrBuilder, EstClient, JsonAnswer
from estclient.credentials import Basic, Bearer, CertificateAndPassword, ClientCertificate, Credentials, Digest

__all__ = [
    "Basic",
    "Bearer",
    "CertificateAndPassword",
    "ClientCertificate",
    "Credentials",
    "CsrBuilder",
    "Digest",
    "EstClient",
    "JsonAnswer",
]
