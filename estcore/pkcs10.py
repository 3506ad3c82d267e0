"""PKCS#10: parse a certification request and prove that its sender has the key.

RFC 2986, RFC 5272 section 3.1; the attributes are read by estcore.request_attributes. What comes out of `parse` is bounded, strictly
DER, signed by its own key, and asks only for what can be issued; whatever is asked for and cannot be is refused here by name, never
dropped in silence.

The outer shape is read by our own reader, which also gives the octets that were signed; names, keys and extensions by `cryptography`.
"""

from typing import Final, NamedTuple

from cryptography import x509

from estcore import der, extension_request, request_attributes
from estcore.certification_request import CertificationRequest
from estcore.der import BIT_STRING, CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, SET, member
from estcore.errors import BadCsr, MalformedBody
from estcore.foreign import foreign
from estcore.keys import PublicKey, check_public_key, spki_der
from estcore.names import parse_name
from estcore.proof_of_possession import check_no_signature, is_no_signature, load_public_key, verify

MAX_ATTRIBUTES: Final = 20


class _Sections(NamedTuple):
    """The parts of a CertificationRequest: DER slices, and the content of each attribute's SET of values by the DER of its OID."""

    signed: bytes
    subject: bytes
    spki: bytes
    attributes: dict[bytes, bytes]
    algorithm: bytes
    signature: bytes


def parse(csr_der: bytes, *, accept_no_signature: bool = False, accept_ca: bool = False) -> CertificationRequest:
    """Parse and check a DER CSR.

    With `accept_no_signature` one signed by id-alg-noSignature is returned as not `proven` (RFC 5272 Appendix C.1): a Full PKI Request
    has other proofs. With `accept_ca` it may ask for a CA certificate, which a registration authority may send on. Raises MalformedBody
    where it is not DER of a CertificationRequest, BadCsr for all else that is not acceptable.
    """
    sections = _sections(csr_der)
    public_key = load_public_key(sections.spki)
    unsigned = accept_no_signature and is_no_signature(sections.algorithm)
    if unsigned:
        check_no_signature(signed=sections.signed, signature=sections.signature)
    else:
        verify(public_key, signed=sections.signed, algorithm=sections.algorithm, signature=sections.signature)
    return _request(csr_der, sections, public_key, sections.spki, proven=not unsigned, own_key=True, accept_ca=accept_ca)


def parse_for_key(csr_der: bytes, public_key: PublicKey) -> CertificationRequest:
    """Parse and check a DER CSR whose own key and signature mean nothing, as a request for `public_key` (RFC 7030 section 4.4.1).

    Raises as `parse` does.
    """
    return _request(csr_der, _sections(csr_der), public_key, spki_der(public_key), proven=True, own_key=False)


def _request(
    csr_der: bytes, sections: _Sections, public_key: PublicKey, spki: bytes, *, proven: bool, own_key: bool, accept_ca: bool = False
) -> CertificationRequest:
    algorithm = check_public_key(public_key)
    subject = parse_name(sections.subject)
    if not sections.attributes:
        return CertificationRequest(
            csr_der=csr_der,
            public_key=public_key,
            spki_der=spki,
            key_algorithm=algorithm,
            subject=subject,
            subject_der=sections.subject,
            proven=proven,
            signature_algorithm_der=sections.algorithm,
        )
    csr = foreign(lambda: x509.load_der_x509_csr(csr_der), lambda: MalformedBody("the CSR's attributes are not DER (a SET OF is sorted)"))
    attributes, extensions_der = request_attributes.read(sections.attributes)
    requested = extension_request.NOTHING
    if extensions_der:
        extensions = extension_request.load(extensions_der, lambda: csr.extensions)
        requested = extension_request.read(extensions, public_key if own_key else None, accept_ca=accept_ca)
    return CertificationRequest(
        csr_der=csr_der,
        public_key=public_key,
        spki_der=spki,
        key_algorithm=algorithm,
        subject=subject,
        subject_der=sections.subject,
        sans=requested.sans,
        usages=requested.usages,
        cmc_ra=requested.cmc_ra,
        ca=requested.ca,
        proven=proven,
        subject_key_identifier=requested.subject_key_identifier,
        attribute_types=frozenset(sections.attributes),
        signature_algorithm_der=sections.algorithm,
        **attributes,
    )


def _sections(csr: bytes) -> _Sections:
    size = len(csr)
    if size > der.MAX_CSR_OCTETS:
        raise MalformedBody(f"the CSR has {size} octets, more than {der.MAX_CSR_OCTETS}")
    start, end = member(csr, 0, size, SEQUENCE, what="the CSR")
    if end != size:
        raise MalformedBody(f"the CSR is followed by {size - end} octets that do not belong to it")
    version, info_end = member(csr, start, size, SEQUENCE, what="the CertificationRequestInfo")
    _, algorithm_end = member(csr, info_end, size, SEQUENCE, what="the signature algorithm")
    unused_bits, signature_end = member(csr, algorithm_end, size, BIT_STRING, what="the signature")
    if signature_end != size or csr[unused_bits : unused_bits + 1] != b"\x00":
        raise MalformedBody("the CSR does not end in a signature of whole octets")
    subject = version + 3
    if csr[version:subject] != b"\x02\x01\x00":
        raise MalformedBody("the CSR's version is not 0, the only one there is (RFC 2986 section 4.1)")
    _, subject_end = member(csr, subject, info_end, SEQUENCE, what="the subject")
    _, spki_end = member(csr, subject_end, info_end, SEQUENCE, what="the public key")
    return _Sections(
        signed=csr[start:info_end],
        subject=csr[subject:subject_end],
        spki=csr[subject_end:spki_end],
        # Some encoders leave the field out when it is empty, though it is not OPTIONAL.
        attributes=_split_attributes(csr, spki_end, info_end) if spki_end < info_end else {},
        algorithm=csr[info_end:algorithm_end],
        signature=csr[unused_bits + 1 :],
    )


def _split_attributes(csr: bytes, position: int, end: int) -> dict[bytes, bytes]:
    position, field_end = member(csr, position, end, CONTEXT_0, what="the attributes")
    if field_end != end:
        raise MalformedBody("the CertificationRequestInfo holds more than its attributes")
    attributes: dict[bytes, bytes] = {}
    while position < end:
        oid, attribute_end = member(csr, position, end, SEQUENCE, what="an attribute")
        _, oid_end = member(csr, oid, attribute_end, OBJECT_IDENTIFIER, what="an attribute's type")
        values, values_end = member(csr, oid_end, attribute_end, SET, what="an attribute's values")
        if values_end != attribute_end:
            raise MalformedBody("an attribute holds more than a type and values")
        if csr[oid:oid_end] in attributes:
            raise BadCsr("the CSR has the same attribute twice")
        attributes[csr[oid:oid_end]] = csr[values:values_end]
        if len(attributes) > MAX_ATTRIBUTES:
            raise BadCsr(f"the CSR has more than {MAX_ATTRIBUTES} attributes")
        position = attribute_end
    return attributes
