"""CertTemplate: what a certificate shall hold, as CRMF requests and CMC's modCertTemplate say it, both ways.

RFC 4211 section 5, IMPLICIT tags but for Name and Time, which are CHOICEs. What a requester may not set (serialNumber, signingAlg, unique
identifiers) and what cannot be honoured is refused by name. Names, keys and extensions go through the checks that a PKCS#10 CSR has.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509

from estcore import extension_request
from estcore.csr_vocabulary import EXTENSION_REQUEST
from estcore.der import BIT_STRING, CONTEXT_0, CONTEXT_1, SEQUENCE, SET, algorithm_identifier, integer, object_identifier, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.errors import BadCsr, CmcFailed, CmcFailInfo
from estcore.names import parse_name

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far from now a notBefore may lie: every certificate begins now, so it says no more than what its sender's clock shows."""

_ISSUER, _VALIDITY, _SUBJECT, _PUBLIC_KEY, _EXTENSIONS = 0xA3, 0xA4, 0xA5, 0xA6, 0xA9
_VERSION = 0x80
_VERSION_3 = b"\x02"
_NEVER_SET = {0x81: "serialNumber", 0xA2: "signingAlg", 0x87: "issuerUID", 0x88: "subjectUID"}
"""RFC 4211 section 5: these are the CA's to choose, or deprecated."""
_GENERALIZED_TIME, _UTC_TIME = 0x18, 0x17
_BOOLEAN_TRUE = b"\x01\x01\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertTemplate:
    """The fields that a template has; None are those that it does not.

    `extensions_der` is the SEQUENCE Extensions, its contents unread. `validity` holds notBefore and notAfter, one of which may be absent.
    """

    issuer: x509.Name | None = None
    validity: tuple[datetime | None, datetime | None] | None = None
    subject: x509.Name | None = None
    subject_der: bytes | None = None
    spki_der: bytes | None = None
    extensions_der: bytes | None = None


def read(fields: Reader, *, what: str) -> CertTemplate:
    """Read the fields of a CertTemplate up to its end; `what` names it. Raises MalformedBody, BadCsr, CmcFailed (badRequest)."""
    if fields.next_is(_VERSION) and fields.content(_VERSION) != _VERSION_3:
        raise _refused(f"{what} asks for a version other than 3 (RFC 4211 section 5)")
    _refuse_next(fields, what)
    issuer = _name(fields.inside(_ISSUER), what="the issuer")[0] if fields.next_is(_ISSUER) else None
    validity = _validity(fields.inside(_VALIDITY, what="the validity"), what) if fields.next_is(_VALIDITY) else None
    subject, subject_der = _name(fields.inside(_SUBJECT), what="the subject") if fields.next_is(_SUBJECT) else (None, None)
    spki_der = tlv(SEQUENCE, fields.content(_PUBLIC_KEY)) if fields.next_is(_PUBLIC_KEY) else None
    _refuse_next(fields, what)
    extensions_der = tlv(SEQUENCE, fields.content(_EXTENSIONS)) if fields.next_is(_EXTENSIONS) else None
    fields.close()
    return CertTemplate(
        issuer=issuer, validity=validity, subject=subject, subject_der=subject_der, spki_der=spki_der, extensions_der=extensions_der
    )


def _refuse_next(fields: Reader, what: str) -> None:
    for identifier, name in _NEVER_SET.items():
        if fields.next_is(identifier):
            raise _refused(f"{what} sets {name}, which the CA alone chooses (RFC 4211 section 5); leave it out")


def _refused(message: str) -> CmcFailed:
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, reason="UnsupportedTemplate")


def _name(explicit: Reader, *, what: str) -> tuple[x509.Name, bytes]:
    name_der = explicit.whole(SEQUENCE)
    explicit.close()
    try:
        return parse_name(name_der), name_der
    except BadCsr as error:
        raise BadCsr(error.message.replace("the subject", what), reason=error.reason) from error


def _validity(validity: Reader, what: str) -> tuple[datetime | None, datetime | None]:
    times: list[datetime | None] = []
    for identifier in (CONTEXT_0, CONTEXT_1):
        if not validity.next_is(identifier):
            times.append(None)
            continue
        explicit = validity.inside(identifier)
        times.append(explicit.time())
        explicit.close()
    validity.close()
    if times == [None, None]:
        raise _refused(f"{what} has a validity without notBefore and notAfter (RFC 4211 section 5)")
    return times[0], times[1]


def duration(validity: tuple[datetime | None, datetime | None], *, now: datetime) -> timedelta | None:
    """The life that a validity asks for: from its notBefore, or from now, to its notAfter; None where it has no notAfter.

    Every certificate begins now, so a notBefore further away than CLOCK_SKEW cannot be honoured. Raises CmcFailed (badTime for that, else
    badRequest).
    """
    not_before, not_after = validity
    if not_before is not None and abs(not_before - now) > CLOCK_SKEW:
        raise CmcFailed(
            f"the validity begins more than {CLOCK_SKEW // timedelta(minutes=1)} minutes from now, and every certificate begins now: "
            "set the clock, or leave notBefore out",
            fail_info=CmcFailInfo.BAD_TIME,
            reason="UnsupportedTemplate",
        )
    if not_after is None:
        return None
    life = not_after - (not_before or now)
    if life <= timedelta(0):
        raise _refused("the validity ends before it begins")
    return life


def life_asked(validity: tuple[datetime | None, datetime | None] | None, *, now: datetime) -> dict[str, Any]:
    """The members `duration` and `ends_at` of a CertificationRequest with this validity, or with none. Raises as `duration`."""
    if validity is None:
        return {"duration": None, "ends_at": None}
    not_before, not_after = validity
    return {"duration": duration(validity, now=now), "ends_at": not_after if not_before is None else None}


def check_issuer(template: CertTemplate, *, same: bool) -> None:
    """Refuse a template that names another issuer than the CA that is asked; `same` says whether the two names are the same."""
    if template.issuer is not None and not same:
        raise _refused("the template names another issuer than this CA; leave issuer out, or ask at the path of that one")


def load_extensions(extensions_der: bytes, *, spki_der: bytes) -> x509.Extensions:
    """Load a SEQUENCE Extensions by the reader of the library that PKCS#10 goes through; `spki_der` is any key that it knows.

    The library reads extensions only where they usually stand: so they are put into a CSR, which is signed by nobody and goes nowhere.
    Raises BadCsr.
    """
    request = tlv(SEQUENCE, _EXTENSION_REQUEST + tlv(SET, extensions_der))
    info = tlv(SEQUENCE, integer(0) + _NO_NAME + spki_der + tlv(CONTEXT_0, request))
    carrier = tlv(SEQUENCE, info + _ECDSA_WITH_SHA256 + tlv(BIT_STRING, b"\x00"))
    return extension_request.load(extensions_der, lambda: x509.load_der_x509_csr(carrier).extensions)


_EXTENSION_REQUEST = object_identifier(EXTENSION_REQUEST)
_ECDSA_WITH_SHA256 = algorithm_identifier("1.2.840.10045.4.3.2")
_NO_NAME = b"\x30\x00"


def build(
    *,
    subject: x509.Name | None = None,
    spki_der: bytes | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    extensions: Iterable[x509.Extension[x509.ExtensionType]] = (),
) -> bytes:
    """The DER SEQUENCE CertTemplate with the fields that are given."""
    fields = b""
    if not_before is not None or not_after is not None:
        times = ((CONTEXT_0, not_before), (CONTEXT_1, not_after))
        fields += tlv(_VALIDITY, b"".join(tlv(identifier, _time(time)) for identifier, time in times if time is not None))
    if subject is not None:
        fields += tlv(_SUBJECT, subject.public_bytes())
    if spki_der is not None:
        fields += tlv(_PUBLIC_KEY, only(spki_der, what="the public key").rest())
    encoded = b"".join(extension_der(extension) for extension in extensions)
    return tlv(SEQUENCE, fields + (tlv(_EXTENSIONS, encoded) if encoded else b""))


def extension_der(extension: x509.Extension[x509.ExtensionType]) -> bytes:
    """The DER Extension (RFC 5280 section 4.1)."""
    critical = _BOOLEAN_TRUE if extension.critical else b""
    return tlv(SEQUENCE, object_identifier(extension.oid.dotted_string) + critical + tlv(OCTET_STRING, extension.value.public_bytes()))


def _time(time: datetime) -> bytes:
    """RFC 5280 section 4.1.2.5: UTCTime through 2049."""
    utc = time.astimezone(UTC)
    if utc.year < 2050:
        return tlv(_UTC_TIME, utc.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(_GENERALIZED_TIME, utc.strftime("%Y%m%d%H%M%SZ").encode())
