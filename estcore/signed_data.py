"""CMS SignedData: parse, verify and build, over content of any type.

RFC 5652 sections 3 (ContentInfo), 5 (SignedData), 11 (contentType, messageDigest, signingTime); RFC 8419 section 3 (Ed25519).
`parse` says what is there and proves nothing: who signed, whether the signature is right and whether the signer is believed are three
questions, answered by `Signer.identifier`, by `verify` and by the caller. Certificates are a bag: in no order, and none trusted.
Read by our own reader: parsing and signing stand on the path of every Full PKI Request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from estcore import cms_attributes
from estcore.cms_attributes import CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME
from estcore.cms_signature import BadSignature, Digest, MessageSigner, digest_of
from estcore.cms_signature import verify as verify_signature
from estcore.der import CONTEXT_0, CONTEXT_1, INTEGER, SEQUENCE, SET, integer, object_identifier, tlv
from estcore.der_reader import GENERALIZED_TIME, OCTET_STRING, UTC_TIME, Reader, only
from estcore.errors import MalformedBody
from estcore.keys import PublicKey

MAX_OCTETS: Final = 64 * 1024
MAX_CERTIFICATES: Final = 8
MAX_SIGNERS: Final = 4
MAX_ATTRIBUTES: Final = 16

DATA: Final = "1.2.840.113549.1.7.1"
SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"

_SIGNED_DATA_OID = object_identifier(SIGNED_DATA)
_PRIMITIVE_0 = 0x80
_WHAT = "the SignedData"


@dataclass(frozen=True, slots=True)
class IssuerAndSerialNumber:
    """A certificate by the DER Name of its issuer and its serial number."""

    issuer_der: bytes
    serial_number: int


@dataclass(frozen=True, slots=True)
class SubjectKeyIdentifier:
    """A key by the content of a subjectKeyIdentifier extension."""

    octets: bytes


SignerIdentifier = IssuerAndSerialNumber | SubjectKeyIdentifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One SignerInfo. `signed` are the octets that the signature is over; `signing_time` is what the signer says, aware, UTC.

    `unsigned_attributes` are OIDs, dotted: nobody vouches for them, so their values are not kept.
    """

    identifier: SignerIdentifier
    digest: Digest
    algorithm: bytes
    """DER AlgorithmIdentifier of the signature."""
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    signing_time: datetime | None = None
    unsigned_attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedData:
    """A SignedData as it came. `content` is None where it is detached; `certificates_der` are a bag; nothing has been verified."""

    content_type: str
    content: bytes | None = field(repr=False)
    certificates_der: tuple[bytes, ...]
    signers: tuple[Signer, ...]


def parse(content_info_der: bytes, *, max_octets: int = MAX_OCTETS, max_certificates: int = MAX_CERTIFICATES) -> SignedData:
    """Parse a DER ContentInfo that holds SignedData. Raises MalformedBody; BadSignature for a digest that is not accepted."""
    content_type, content = parse_content_info(content_info_der, max_octets=max_octets)
    if content_type != SIGNED_DATA:
        raise MalformedBody("the message is not SignedData")
    return parse_bare(content, max_octets=max_octets, max_certificates=max_certificates)


def parse_content_info(der: bytes, *, max_octets: int = MAX_OCTETS) -> tuple[str, bytes]:
    """The type of a DER ContentInfo and the DER of its content, not looked at. Raises MalformedBody."""
    if len(der) > max_octets:
        raise MalformedBody(f"the message has {len(der)} octets, more than {max_octets}")
    info = only(der, what="the ContentInfo")
    content_type = info.oid()
    wrapper = info.inside(CONTEXT_0)
    info.close()
    content = wrapper.whole(SEQUENCE)
    wrapper.close()
    return content_type, content


def parse_bare(der: bytes, *, max_octets: int = MAX_OCTETS, max_certificates: int = MAX_CERTIFICATES) -> SignedData:
    """As `parse`, for a SignedData that no ContentInfo is around, as within EnvelopedData."""
    if len(der) > max_octets:
        raise MalformedBody(f"{_WHAT} has {len(der)} octets, more than {max_octets}")
    reader = only(der, what=_WHAT)
    version = reader.integer()
    for algorithm in reader.inside(SET).each(SEQUENCE, at_most=MAX_SIGNERS):
        digest_of(algorithm)
    content_info = reader.inside(SEQUENCE, what="the encapsulated content")
    content_type = content_info.oid()
    content = None
    if not content_info.at_end:
        wrapper = content_info.inside(CONTEXT_0)
        content = wrapper.octets()
        wrapper.close()
        content_info.close()
    certificates: tuple[bytes, ...] = ()
    if reader.next_is(CONTEXT_0):
        # Attribute certificates and certificates of other formats have context tags, and nobody here reads them.
        bag = reader.inside(CONTEXT_0, what="the message's certificates")
        certificates = tuple(bag.each(SEQUENCE, at_most=max_certificates))
    if reader.next_is(CONTEXT_1):
        reader.opaque()  # CRLs: ours are in the ledger, and others' are for those whose certificates they are
    signer_infos = reader.inside(SET, what="the message's signers").each_inside(SEQUENCE, at_most=MAX_SIGNERS, what="a SignerInfo")
    signers = tuple(_signer(signer_info, content_type, content) for signer_info in signer_infos)
    reader.close()
    by_key = any(isinstance(signer.identifier, SubjectKeyIdentifier) for signer in signers)
    if version != _version(content_type, by_key=by_key):
        raise MalformedBody(f"{_WHAT} has version {version}, not the one of its content and signers (RFC 5652 section 5.1)")
    return SignedData(content_type=content_type, content=content, certificates_der=certificates, signers=signers)


def verify(signer: Signer, public_key: PublicKey | None, *, allow_no_signature: bool = False) -> None:
    """Verify one signature by the signer's key. That its digest is the content's was checked by `parse`. Raises BadSignature.

    With `allow_no_signature` an id-alg-noSignature passes, whatever the key: it proves that the message is whole and nothing more.
    """
    verify_signature(
        public_key,
        signed=signer.signed,
        algorithm=signer.algorithm,
        digest=signer.digest,
        signature=signer.signature,
        allow_no_signature=allow_no_signature,
    )


def build(
    content_type: str,
    content: bytes,
    signers: Sequence[tuple[SignerIdentifier, MessageSigner]],
    *,
    certificates_der: Sequence[bytes] = (),
    signing_time: datetime | None = None,
) -> bytes:
    """Build a DER ContentInfo with SignedData over `content`, signed by each of the signers, who may be none.

    `content_type` is a dotted OID. Signed attributes are contentType, messageDigest and, where given, signingTime (aware, UTC).
    """
    return content_info(
        SIGNED_DATA, build_bare(content_type, content, signers, certificates_der=certificates_der, signing_time=signing_time)
    )


def content_info(content_type: str, content_der: bytes) -> bytes:
    """DER ContentInfo around a content that is DER itself."""
    return tlv(SEQUENCE, object_identifier(content_type) + tlv(CONTEXT_0, content_der))


def build_bare(
    content_type: str,
    content: bytes,
    signers: Sequence[tuple[SignerIdentifier, MessageSigner]],
    *,
    certificates_der: Sequence[bytes] = (),
    signing_time: datetime | None = None,
) -> bytes:
    """As `build`, without the ContentInfo."""
    type_der = object_identifier(content_type)
    signer_infos = [
        _build_signer(identifier, signer, type_der=type_der, content=content, signing_time=signing_time) for identifier, signer in signers
    ]
    digests = sorted({signer.digest.identifier for _, signer in signers})
    by_key = any(isinstance(identifier, SubjectKeyIdentifier) for identifier, _ in signers)
    return tlv(
        SEQUENCE,
        b"".join(
            (
                integer(_version(content_type, by_key=by_key)),
                tlv(SET, b"".join(digests)),
                tlv(SEQUENCE, type_der + tlv(CONTEXT_0, tlv(OCTET_STRING, content))),
                tlv(CONTEXT_0, b"".join(sorted(certificates_der))) if certificates_der else b"",
                tlv(SET, b"".join(sorted(signer_infos))),
            )
        ),
    )


def _version(content_type: str, *, by_key: bool) -> int:
    """RFC 5652 section 5.1, for certificates and CRLs of X.509 only."""
    return 3 if by_key or content_type != DATA else 1


def _signer(reader: Reader, content_type: str, content: bytes | None) -> Signer:
    version = reader.integer()
    identifier = _signer_identifier(reader)
    if version != (3 if isinstance(identifier, SubjectKeyIdentifier) else 1):
        raise MalformedBody(f"a SignerInfo has version {version}, not the one of its signer identifier (RFC 5652 section 5.3)")
    digest = digest_of(reader.whole(SEQUENCE))
    signing_time = None
    if reader.next_is(CONTEXT_0):
        attributes = reader.inside(CONTEXT_0, what="the signed attributes")
        encoded = tuple(attributes.each(SEQUENCE, at_most=MAX_ATTRIBUTES))
        signing_time = _check_signed_attributes(encoded, content_type, content, digest)
        # The signature is over the DER of a SET OF: its own tag, sorted (RFC 5652 section 5.4, X.690 section 11.6).
        signed = tlv(SET, b"".join(sorted(encoded)))
    else:
        if content_type != DATA or content is None:
            raise MalformedBody("a SignerInfo has no signed attributes, which content of this type needs (RFC 5652 section 5.3)")
        signed = content
    algorithm = reader.whole(SEQUENCE)
    signature = reader.octets()
    unsigned: tuple[str, ...] = ()
    if reader.next_is(CONTEXT_1):
        attributes = reader.inside(CONTEXT_1, what="the unsigned attributes")
        unsigned = tuple(
            only(attribute, what="an unsigned attribute").oid() for attribute in attributes.each(SEQUENCE, at_most=MAX_ATTRIBUTES)
        )
    reader.close()
    return Signer(
        identifier=identifier,
        digest=digest,
        algorithm=algorithm,
        signed=signed,
        signature=signature,
        signing_time=signing_time,
        unsigned_attributes=unsigned,
    )


def _signer_identifier(reader: Reader) -> SignerIdentifier:
    if reader.next_is(_PRIMITIVE_0):
        return SubjectKeyIdentifier(reader.content(_PRIMITIVE_0))
    inner = reader.inside(SEQUENCE)
    identifier = IssuerAndSerialNumber(inner.whole(SEQUENCE), inner.integer())
    inner.close()
    return identifier


def _check_signed_attributes(attributes: Sequence[bytes], content_type: str, content: bytes | None, digest: Digest) -> datetime | None:
    """Check contentType and messageDigest, which must be there, and return the signingTime (RFC 5652 sections 5.3 and 11)."""
    values = cms_attributes.read(attributes, what="a signed attribute")
    if CONTENT_TYPE not in values or MESSAGE_DIGEST not in values:
        raise MalformedBody("a SignerInfo lacks the signed attribute contentType or messageDigest (RFC 5652 section 5.3)")
    signed_type = values[CONTENT_TYPE].oid()
    message_digest = values[MESSAGE_DIGEST].octets()
    signing_time = values[SIGNING_TIME].time() if SIGNING_TIME in values else None
    for known in (CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME):
        if known in values:
            values[known].close()
    if signed_type != content_type:
        raise BadSignature("the signed contentType is not the type of the content")
    if content is None or message_digest != digest.of(content):
        raise BadSignature("the signed messageDigest is not the digest of the content")
    return signing_time


def _build_signer(
    identifier: SignerIdentifier, signer: MessageSigner, *, type_der: bytes, content: bytes, signing_time: datetime | None
) -> bytes:
    attributes = [
        cms_attributes.attribute(CONTENT_TYPE, type_der),
        cms_attributes.attribute(MESSAGE_DIGEST, tlv(OCTET_STRING, signer.digest.of(content))),
    ]
    if signing_time is not None:
        attributes.append(cms_attributes.attribute(SIGNING_TIME, _time(signing_time)))
    encoded = b"".join(sorted(attributes))
    match identifier:
        case SubjectKeyIdentifier():
            head = tlv(INTEGER, b"\x03") + tlv(_PRIMITIVE_0, identifier.octets)
        case IssuerAndSerialNumber():
            head = tlv(INTEGER, b"\x01") + tlv(SEQUENCE, identifier.issuer_der + integer(identifier.serial_number))
    signature = signer.sign(tlv(SET, encoded))
    return tlv(SEQUENCE, head + signer.digest.identifier + tlv(CONTEXT_0, encoded) + signer.algorithm + tlv(OCTET_STRING, signature))


def _time(moment: datetime) -> bytes:
    """UTCTime from 1950 to 2049, else GeneralizedTime (RFC 5652 section 11.3)."""
    if 1950 <= moment.year < 2050:
        return tlv(UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())
