"""`GET /est-issuer/v1/issuers`: what the operator must know of every issuer, for the registration authority's token only.

The operator polls it every 2 seconds, so the body is made once per Registry and an unchanged one costs a 304 (RFC 9110 section 13.1.2).

It is never longer than the operator reads, or no issuer of the cluster would be known. Where all of them do not fit, each namespace gets
an equal share, what the small ones leave goes to the others, and issuers of those that still have too much stand there without their CA.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.names import describe_name
from estserver.authentication import Authenticator
from estserver.issuers import Issuer, Issuers, Registry
from estserver.messages import EstResponse

MEDIA_JSON: Final = b"application/json"
MAX_LIST_OCTETS: Final = 16 * 1024 * 1024
"""What the operator's client reads (estclient.client.MAX_JSON_OCTETS)."""

_HEAD, _BETWEEN, _TAIL = b'{"issuers": [', b", ", b"]}"

log = structlog.get_logger(__name__)


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
            body = _HEAD + _BETWEEN.join(self._entries([issuer for _, issuer in sorted(registry.issuers.items())])) + _TAIL
            self._rendered = registry, body, f'"{hashlib.sha256(body).hexdigest()}"'
        return self._rendered[1], self._rendered[2]

    def _entries(self, issuers: Iterable[Issuer]) -> list[bytes]:
        """The issuers as JSON, those of a namespace together, and no longer than fits."""
        by_namespace: defaultdict[str, list[tuple[Issuer, bytes]]] = defaultdict(list)
        for issuer in issuers:
            by_namespace[issuer.namespace].append((issuer, _json(self._describe(issuer))))
        taken = {namespace: sum(len(whole) + len(_BETWEEN) for _, whole in own) for namespace, own in by_namespace.items()}
        share = equal_share(taken.values(), MAX_LIST_OCTETS - len(_HEAD) - len(_TAIL))
        entries: list[bytes] = []
        for namespace, own in by_namespace.items():
            if taken[namespace] <= share:
                entries += [whole for _, whole in own]
                continue
            log.warning("issuers_list_too_long", namespace=namespace, octets=taken[namespace], share_octets=share)
            without_ca = [_without_ca(self._describe(issuer), octets=taken[namespace], share=share) for issuer, _ in own]
            entries += squeezed([whole for _, whole in own], without_ca, share)
        return entries

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


def equal_share(sizes: Iterable[int], room: int) -> int:
    """The most that each may take so that all fit into `room`, where what the small ones leave goes to the others."""
    ordered = sorted(sizes)
    for index, size in enumerate(ordered):
        if size * (len(ordered) - index) > room:
            return room // (len(ordered) - index)
        room -= size
    return ordered[-1] if ordered else room


def squeezed(whole: Sequence[bytes], without_ca: Sequence[bytes], room: int) -> list[bytes]:
    """As many entries whole as fit when the others stand there without their CA; where even those are too long, the last ones alone."""
    taken = sum(len(short) + len(_BETWEEN) for short in without_ca)
    entries: list[bytes] = []
    for long, short in zip(whole, without_ca, strict=True):
        if taken + len(long) - len(short) <= room:
            entries.append(long)
            taken += len(long) - len(short)
        elif taken <= room:
            entries.append(short)
        else:
            taken -= len(short) + len(_BETWEEN)
    return entries


def _without_ca(described: dict[str, object], *, octets: int, share: int) -> bytes:
    if "caBundle" not in described:
        return _json(described)
    whose = f"those of namespace {described['namespace']}" if described["namespace"] else "EstClusterIssuers"
    reason = {
        "state": "NotReady",
        "reason": "IssuersTooLarge",
        "message": f"the issuers of the cluster, with their CA certificates, do not fit into the {MAX_LIST_OCTETS} octets that the "
        f"operator reads, and this one is left out: {whose} take {octets}, where {share} are left; have fewer of them, or smaller CA "
        "certificates",
    }
    return _json({name: value for name, value in described.items() if name not in {"caBundle", "ca"}} | reason)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _describe_ca(certificate: x509.Certificate) -> dict[str, str]:
    return {
        "subject": describe_name(certificate.subject),
        "notAfter": certificate.not_valid_after_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sha256": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    }


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
