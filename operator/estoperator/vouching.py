"""What the operator says as registration authority of one Kubernetes object: pure.

    Wishes → Vouched (estcore.full_request) → a Full PKI Request

What a PKCS#10 CSR cannot carry (life, usages, CA, names that the policy gives) goes into modCertTemplate, whom it is for into regInfo, and
the object's UID is the transaction: a retry, a restart or a second operator gets the certificate that was issued. Possession of the key was
proven to us by the CSR's signature, or to kube-apiserver, which takes a bare key only with a proof.
Source: RFC 5272 sections 6.5, 6.6, 6.8 and 6.12.
"""

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from estcore import cert_template
from estcore.certification_request import CertificationRequest
from estcore.full_request import Vouched
from estcore.usages import Usage, extended_key_usage, key_usage
from estcore.visible_text import printable
from estoperator.resources import CertRequest

MAX_TEXT_OCTETS = 900
"""Longest name and requester in regInfo: the two together, each character of them escaped, are within what estserver takes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is wanted beyond the CSR. None, or False, leaves it to the CSR and the issuer's policy.

    `subject` and `sans` take the place of the CSR's names, for requests whose names come from policy.
    """

    duration: timedelta | None = None
    usages: frozenset[Usage] | None = None
    is_ca: bool = False
    subject: x509.Name | None = field(default=None, repr=False)
    sans: tuple[x509.GeneralName, ...] = field(default=(), repr=False)


def vouched(request: CertRequest, csr: CertificationRequest, wishes: Wishes, *, now: datetime) -> Vouched:
    """The CSR of a request as the registration authority passes it on. `now` is aware UTC.

    There is no senderNonce: the transaction does what it would do, and a success may then be the plain certs-only message.
    """
    return Vouched(
        csr_der=csr.csr_der,
        transaction_id=transaction_id(request.uid),
        cert_template_der=_template(wishes, now=now),
        reg_info=_reg_info(request),
        form=csr.form,
    )


def transaction_id(uid: str) -> int:
    """An object's UID as a number; Kubernetes makes UUIDs."""
    try:
        return uuid.UUID(uid).int
    except ValueError:
        return int.from_bytes(uid.encode())


def _template(wishes: Wishes, *, now: datetime) -> bytes | None:
    if wishes == Wishes():
        return None
    # Both ends, or the life would hang on two clocks: it is to be the duration to the second (contract 20).
    not_before = now.replace(microsecond=0) if wishes.duration is not None else None
    not_after = not_before + wishes.duration if not_before is not None and wishes.duration is not None else None
    return cert_template.build(subject=wishes.subject, not_before=not_before, not_after=not_after, extensions=_extensions(wishes))


def _extensions(wishes: Wishes) -> list[x509.Extension[x509.ExtensionType]]:
    values: list[tuple[x509.ExtensionType | None, bool]] = []
    if wishes.is_ca:
        values.append((x509.BasicConstraints(ca=True, path_length=None), True))
    elif wishes.usages is not None:
        values += [(key_usage(wishes.usages), True), (extended_key_usage(wishes.usages), False)]
    if wishes.sans:
        # Critical exactly where the subject is empty (RFC 5280 section 4.2.1.6).
        values.append((x509.SubjectAlternativeName(wishes.sans), wishes.subject is not None and not wishes.subject.rdns))
    return [x509.Extension(value.oid, critical, value) for value, critical in values if value is not None]


def _reg_info(request: CertRequest) -> bytes:
    told = {"door": str(request.key.door), "name": _recorded(request.key.name)}
    if request.key.namespace:
        told["namespace"] = request.key.namespace
    if request.username:
        told["requester"] = _recorded(request.username)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _recorded(text: str) -> str:
    """What the records keep of a name that may be anything: a CertificateSigningRequest's, or a user's of some identity provider."""
    return printable(text, instead="\ufffd").encode()[:MAX_TEXT_OCTETS].decode(errors="ignore")
