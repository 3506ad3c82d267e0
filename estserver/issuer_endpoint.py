"""`GET /est-issuer/v1/issuers`: what the operator must know of every issuer, for the registration authority's token only.

The operator polls it every 2 seconds, so the body is made once per Registry and an unchanged one costs a 304 (RFC 9110 section 13.1.2).
"""

import hashlib
import json
from datetime import UTC
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.names import describe_name
from estserver.authentication import Authenticator
from estserver.issuers import Issuer, Issuers, Registry
from estserver.messages import EstResponse

MEDIA_JSON: Final = b"application/json"


class IssuerEndpoint:
    """Renders the current Registry. `public_url` is where clients outside reach the server, such as https://est.example.com:8443."""

    def __init__(self, issuers: Issuers, authenticator: Authenticator, *, public_url: str | None = None) -> None:
        self._issuers = issuers
        self._authenticator = authenticator
        self._public_url = public_url
        self._rendered: tuple[Registry, bytes, str] | None = None

    async def answer(self, *, authorization: str | None, if_none_match: str | None) -> EstResponse:
        """200 with the JSON, or 304 where the sender has it already. Raises Challenged, Forbidden or Unavailable."""
        await self._authenticator.registration_authority(authorization)
        body, etag = self._render()
        headers = ((b"etag", etag.encode()), (b"cache-control", b"no-cache"))
        if if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
            return EstResponse(status=304, body=b"", headers=headers)
        return EstResponse(status=200, body=body, headers=(*headers, (b"content-type", MEDIA_JSON)))

    def _render(self) -> tuple[bytes, str]:
        registry = self._issuers.current
        if self._rendered is None or self._rendered[0] is not registry:
            issuers = [self._describe(issuer) for _, issuer in sorted(registry.issuers.items())]
            body = json.dumps({"issuers": issuers}, ensure_ascii=False).encode()
            self._rendered = registry, body, f'"{hashlib.sha256(body).hexdigest()}"'
        return self._rendered[1], self._rendered[2]

    def _describe(self, issuer: Issuer) -> dict[str, object]:
        described: dict[str, object] = {
            "kind": issuer.kind,
            "namespace": issuer.namespace,
            "name": issuer.name,
            "uid": issuer.uid,
            "generation": issuer.generation,
            "state": "Ready" if issuer.ready else "NotReady",
            "reason": issuer.reason,
            "message": issuer.message,
            "label": issuer.label,
        }
        if self._public_url is not None and issuer.label is not None:
            described["url"] = f"{self._public_url}/.well-known/est/{issuer.label}"
        if issuer.spec is not None:
            described["defaultDurationSeconds"] = int(issuer.spec.policy.duration.default.total_seconds())
        if issuer.authority is not None:
            described["caBundle"] = "".join(_pem(certificate) for certificate in issuer.authority.certificates)
            described["ca"] = _describe_ca(issuer.authority.certificate)
        return described


def _describe_ca(certificate: x509.Certificate) -> dict[str, str]:
    return {
        "subject": describe_name(certificate.subject),
        "notAfter": certificate.not_valid_after_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sha256": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    }


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
