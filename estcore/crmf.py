"""CRMF: the certification request of RFC 4211 as a Full PKI Request carries it, both ways.

RFC 4211 sections 3 to 6 as RFC 5272 section 3.2.1.2.2 and RFC 5274 section 4.3 narrow them. What comes out of `parse` is the value that a
PKCS#10 CSR gives, after the same checks of names, key and extensions. Forbidden and unknown parts are refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cryptography import x509

from estcore import cert_template, extension_request, request_attributes
from estcore import der as der_module
from estcore.cert_template import CertTemplate
from estcore.certification_request import CertificationRequest, RequestForm
from estcore.cms_signature import signer_of
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    OTP_CHALLENGE,
    POP_LINK_WITNESS,
    POP_LINK_WITNESS_V2,
    REVOCATION_CHALLENGE,
)
from estcore.der import BIT_STRING, CONTEXT_0, CONTEXT_1, SEQUENCE, integer, object_identifier, tlv
from estcore.der_reader import Reader, only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.keys import PrivateKey, PublicKey, check_public_key
from estcore.proof_of_possession import load_public_key, verify

MAX_CERT_REQ_ID: Final = 0xFFFFFFFF
"""certReqId is the bodyPartID, and 0 is the whole message (RFC 5272 section 3.2.2)."""
MAX_CONTROLS: Final = 20
MAX_PUBLIC_KEY_OCTETS: Final = 4096
"""Of a SubjectPublicKeyInfo that comes alone; that of an RSA-4096 key has 550."""

_WHAT = "the CertReqMsg"
_RA_VERIFIED, _SIGNATURE, _KEY_ENCIPHERMENT, _KEY_AGREEMENT = 0x80, 0xA1, 0xA2, 0xA3
_PROOFS = (_RA_VERIFIED, _SIGNATURE, _KEY_ENCIPHERMENT, _KEY_AGREEMENT)
_SUBSEQUENT_MESSAGE = 0x81
_ENCR_CERT, _CHALLENGE_RESP = b"\x00", b"\x01"
_OTHER_PROOFS = {0x80: "thisMessage", 0x82: "dhMAC", 0xA3: "agreeMAC", 0xA4: "encryptedKey"}

_ATTRIBUTES = frozenset(
    {CHALLENGE_PASSWORD, OTP_CHALLENGE, REVOCATION_CHALLENGE, EST_IDENTITY_LINKING, POP_LINK_WITNESS, POP_LINK_WITNESS_V2}
)
"""Controls that are read as the PKCS#10 attributes of the same number: RFC 5272 section 6.3.1 says so of the last two, and channel binding
and RFC 7894 have no other place in CRMF."""
_REFUSED_CONTROLS = {
    "1.3.6.1.5.5.7.5.1.1": "regToken; use the controls identification and identityProofV2",
    "1.3.6.1.5.5.7.5.1.2": "authenticator; use the controls identification and identityProofV2",
    "1.3.6.1.5.5.7.5.1.3": "pkiPublicationInfo; use the control publishCert",
    "1.3.6.1.5.5.7.5.1.4": "pkiArchiveOptions; keys are not archived here",
    "1.3.6.1.5.5.7.5.1.5": "oldCertID; sign the message with the certificate that is to be renewed",
    "1.3.6.1.5.5.7.5.1.6": "protocolEncrKey; nothing is encrypted for it here",
}
"""RFC 5274 section 4.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertReqMsg:
    """A CRMF request that has been checked; `request.proven` is false where a challenge must still show the key (RFC 5272 section 6.7)."""

    cert_req_id: int
    """Its bodyPartID."""
    request: CertificationRequest
    template: CertTemplate
    """As sent: `template.issuer` is for `cert_template.check_issuer`."""


def parse(cert_req_msg_der: bytes, *, now: datetime) -> CertReqMsg:
    """Parse and check a DER CertReqMsg, with its own tag or the [1] that it has in a TaggedRequest.

    `now` is aware UTC: a validity is turned into a life. Raises MalformedBody; BadCsr as PKCS#10 does; CmcFailed: badRequest for what may
    not be there, popFailed for raVerified, popRequired for a proof that is not taken here.
    """
    if cert_req_msg_der[:1] == bytes((CONTEXT_1,)):
        cert_req_msg_der = bytes((SEQUENCE,)) + cert_req_msg_der[1:]
    der_module.check(cert_req_msg_der, what=_WHAT)
    message = only(cert_req_msg_der, what=_WHAT)
    cert_request_der = message.whole(SEQUENCE)
    fields = only(cert_request_der, what="the CertRequest")
    cert_req_id = fields.integer()
    if not 0 < cert_req_id <= MAX_CERT_REQ_ID:
        raise _bad(f"the certReqId is not a bodyPartID of 1 to {MAX_CERT_REQ_ID}")
    template = cert_template.read(fields.inside(SEQUENCE, what="the certTemplate"), what=_WHAT)
    controls = fields.inside(SEQUENCE, what="the controls") if fields.next_is(SEQUENCE) else None
    fields.close()
    attributes = _controls(controls) if controls is not None else {}
    proof_der = next((message.whole(tag) for tag in _PROOFS if message.next_is(tag)), b"")
    if message.next_is(SEQUENCE):
        raise _bad("the CertReqMsg has regInfo, which is not used in CMC; use the control regInfo (RFC 5272 section 3.2.1.2.2)")
    message.close()
    request = _request(cert_req_msg_der, template, attributes, now=now)
    algorithm = _check_proof(proof_der, request.public_key, cert_request_der)
    request = replace(request, proven=bool(algorithm), signature_algorithm_der=algorithm)
    return CertReqMsg(cert_req_id=cert_req_id, request=request, template=template)


def _bad(message: str) -> CmcFailed:
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, reason="UnsupportedCrmf")


def _controls(controls: Reader) -> dict[str, bytes]:
    """Dotted type → DER value."""
    attributes: dict[str, bytes] = {}
    for control_der in controls.each(SEQUENCE, at_most=MAX_CONTROLS):
        control = only(control_der, what="a CRMF control")
        oid = control.oid()
        value = control.opaque()
        control.close()
        if oid in attributes:
            raise _bad("the CertRequest has the same control twice")
        if oid not in _ATTRIBUTES:
            raise _bad(f"the CertRequest has the control {_REFUSED_CONTROLS.get(oid, oid + ', which is not known here')}")
        attributes[oid] = value
    return attributes


def _request(csr_der: bytes, template: CertTemplate, controls: Mapping[str, bytes], *, now: datetime) -> CertificationRequest:
    """All but the proof-of-possession."""
    if template.subject is None or template.subject_der is None or template.spki_der is None:
        raise _bad("the certTemplate has no subject or no publicKey; both are there in CMC, the subject perhaps empty")
    public_key = load_public_key(template.spki_der)
    algorithm = check_public_key(public_key)
    controls_by_der = {object_identifier(oid): value for oid, value in controls.items()}
    attributes, _ = request_attributes.read(controls_by_der)
    requested = extension_request.NOTHING
    if template.extensions_der is not None:
        requested = extension_request.read(cert_template.load_extensions(template.extensions_der, spki_der=template.spki_der), public_key)
    return CertificationRequest(
        csr_der=csr_der,
        public_key=public_key,
        spki_der=template.spki_der,
        key_algorithm=algorithm,
        subject=template.subject,
        subject_der=template.subject_der,
        sans=requested.sans,
        usages=requested.usages,
        cmc_ra=requested.cmc_ra,
        proven=False,
        subject_key_identifier=requested.subject_key_identifier,
        attribute_types=frozenset(controls_by_der),
        form=RequestForm.CRMF,
        **cert_template.life_asked(template.validity, now=now),
        **attributes,
    )


def _check_proof(proof_der: bytes, public_key: PublicKey, cert_request_der: bytes) -> bytes:
    """Check the popo, which may be absent: the AlgorithmIdentifier of the signature, or nothing where a challenge must follow."""
    if not proof_der:
        return b""
    if proof_der[0] == _RA_VERIFIED:
        raise CmcFailed(
            "the popo is raVerified, which no requester can say of itself; a registration authority sends lraPOPWitness",
            fail_info=CmcFailInfo.POP_FAILED,
        )
    if proof_der[0] == _SIGNATURE:
        return _check_signature(only(proof_der, _SIGNATURE, what="the popo"), public_key, cert_request_der)
    choice = only(proof_der, proof_der[0], what="the popo")
    if choice.next_is(_SUBSEQUENT_MESSAGE):
        subsequent = choice.content(_SUBSEQUENT_MESSAGE)
        choice.close()
        if subsequent == _CHALLENGE_RESP:
            return b""
        raise _bad("the popo asks for the certificate in encrypted form (encrCert), which CMC has not; ask for challengeResp")
    name = next((name for tag, name in _OTHER_PROOFS.items() if choice.next_is(tag)), None)
    if name is None:
        raise MalformedBody("the popo is of no form that RFC 4211 section 4 has")
    raise CmcFailed(
        f"the popo {name} is not taken as proof-of-possession here; sign the request, or ask for challengeResp",
        fail_info=CmcFailInfo.POP_REQUIRED,
    )


def _check_signature(proof: Reader, public_key: PublicKey, cert_request_der: bytes) -> bytes:
    if proof.next_is(CONTEXT_0):
        raise _bad("the popo has poposkInput, which is not used where subject and publicKey are there (RFC 5272 section 3.2.1.2.2)")
    algorithm = proof.whole(SEQUENCE)
    signature = proof.content(BIT_STRING)
    proof.close()
    if signature[:1] != b"\x00":
        raise MalformedBody("the popo does not hold a signature of whole octets")
    verify(public_key, signed=cert_request_der, algorithm=algorithm, signature=signature[1:])
    return algorithm


def for_public_key(spki_der: bytes, *, cert_req_id: int) -> CertificationRequest:
    """A request for a public key that came alone: with an empty subject and no popo, so that it proves nothing by itself.

    `spki_der` is a DER SubjectPublicKeyInfo from outside. For a registration authority that knows the key to be its owner's and says so in
    lraPOPWitness (RFC 5272 section 6.8). Raises MalformedBody where it is not DER, BadCsr for a key that is not accepted.
    """
    der_module.check(spki_der, what="the public key", max_octets=MAX_PUBLIC_KEY_OCTETS)
    public_key = load_public_key(spki_der)
    algorithm = check_public_key(public_key)
    subject = x509.Name([])
    template_der = cert_template.build(subject=subject, spki_der=spki_der)
    return CertificationRequest(
        csr_der=tlv(SEQUENCE, tlv(SEQUENCE, integer(cert_req_id) + template_der)),
        public_key=public_key,
        spki_der=spki_der,
        key_algorithm=algorithm,
        subject=subject,
        subject_der=subject.public_bytes(),
        proven=False,
        form=RequestForm.CRMF,
    )


def build(
    private_key: PrivateKey | None,
    template_der: bytes,
    *,
    cert_req_id: int,
    controls: Mapping[str, bytes] | None = None,
    key_agreement: bool = False,
) -> bytes:
    """A CertReqMsg, DER with its own SEQUENCE tag: signed by `private_key`, or without one asking for a challenge (`key_agreement`: of EC).

    `template_der` is a CertTemplate with subject and publicKey (`cert_template.build`); `controls` are DER values by dotted type.
    """
    encoded = b"".join(tlv(SEQUENCE, object_identifier(oid) + value) for oid, value in (controls or {}).items())
    cert_request = tlv(SEQUENCE, integer(cert_req_id) + template_der + (tlv(SEQUENCE, encoded) if encoded else b""))
    if private_key is None:
        proof = tlv(_KEY_AGREEMENT if key_agreement else _KEY_ENCIPHERMENT, tlv(_SUBSEQUENT_MESSAGE, _CHALLENGE_RESP))
    else:
        signer = signer_of(private_key)
        proof = tlv(_SIGNATURE, signer.algorithm + tlv(BIT_STRING, b"\x00" + signer.sign(cert_request)))
    return tlv(SEQUENCE, cert_request + proof)
