"""Full PKI Requests as a client or a registration authority makes them: the counterpart of what estserver reads.

RFC 5272 section 3.2. Three senders:

    a registration authority   signs with its certificate (id-kp-cmcRA), vouches for possession, and says in modCertTemplate what a
                               PKCS#10 CSR cannot; of a key without CSR it makes a CRMF request
    the holder of a certificate signs with that certificate's key, and needs no proof of identity (section 3.2)
    a newcomer                 signs with the key that is to be certified, named by its subjectKeyIdentifier, and is known by a shared
                               secret or by how it came (HTTP authentication)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_control_codec, pki_data, ra_witness, signed_data, template_modification
from estcore.certification_request import RequestForm
from estcore.cmc_controls import Control, LraPopWitness, ModCertTemplate, RegInfo, SenderNonce, TransactionId
from estcore.cms_signature import MessageSigner
from estcore.pki_data import ID_CCT_PKI_DATA
from estcore.signed_data import IssuerAndSerialNumber, SubjectKeyIdentifier

REQUEST: Final = 1
"""The bodyPartID of the first certification request; the others follow, and then the controls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What a registration authority says of a request that somebody else made: a PKCS#10 CSR, or a CRMF one whose certReqId is REQUEST.

    `transaction_id`: the same for a retry, another for anything else. `sender_nonce`: fresh for each message; one asks for a Full PKI
    Response, which repeats it, and without one a success is certs-only. `cert_template_der`: a CertTemplate (RFC 4211 section 5) whose
    fields take the place of the CSR's. `reg_info`: octets for the CA's records. `possession`: it checked that the sender has the key.
    """

    csr_der: bytes
    transaction_id: int
    sender_nonce: bytes | None = None
    cert_template_der: bytes | None = None
    reg_info: bytes | None = field(default=None, repr=False)
    possession: bool = True
    form: RequestForm = RequestForm.PKCS10


def body(requests_der: Sequence[bytes], controls: Sequence[Control]) -> bytes:
    """A DER PKIData. `requests_der` are TaggedRequests (`pki_data.tagged_pkcs10`, `pki_data.tagged_crmf`), numbered from REQUEST on."""
    first = REQUEST + len(requests_der)
    tagged = [cmc_control_codec.write(number, value) for number, value in enumerate(controls, start=first)]
    return pki_data.encode(controls=tagged, requests_der=requests_der)


def vouched_body(vouched: Vouched) -> bytes:
    """The DER PKIData in which a registration authority passes on one request, as it is (RFC 5272 sections 6.5, 6.8 and 7)."""
    controls: list[Control] = [TransactionId(vouched.transaction_id)]
    if vouched.sender_nonce is not None:
        controls.append(SenderNonce(vouched.sender_nonce))
    if vouched.possession:
        controls.append(LraPopWitness(ra_witness.build_pop_witness(REQUEST)))
    if vouched.cert_template_der is not None:
        value_der = template_modification.build_mod_cert_template(vouched.cert_template_der, requests=[REQUEST])
        controls.append(ModCertTemplate(value_der))
    if vouched.reg_info is not None:
        controls.append(RegInfo(vouched.reg_info))
    return body([_tagged(vouched)], controls)


def _tagged(vouched: Vouched) -> bytes:
    match vouched.form:
        case RequestForm.PKCS10:
            return pki_data.tagged_pkcs10(REQUEST, vouched.csr_der)
        case RequestForm.CRMF:
            return pki_data.tagged_crmf(vouched.csr_der)


def sign_by_certificate(
    pki_data_der: bytes, certificate: x509.Certificate, signer: MessageSigner, *, signing_time: datetime | None = None
) -> bytes:
    """The DER ContentInfo of a Full PKI Request signed with the key of `certificate`, which goes with it."""
    identifier = IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
    return signed_data.build(
        ID_CCT_PKI_DATA,
        pki_data_der,
        [(identifier, signer)],
        certificates_der=[certificate.public_bytes(Encoding.DER)],
        signing_time=signing_time,
    )


def sign_by_key(
    pki_data_der: bytes, subject_key_identifier: bytes, signer: MessageSigner, *, signing_time: datetime | None = None
) -> bytes:
    """The DER ContentInfo of a Full PKI Request signed with the key that one of its requests wants certified.

    That request must hold a subjectKeyIdentifier extension of the same content (RFC 5272 section 3.2).
    """
    return signed_data.build(
        ID_CCT_PKI_DATA, pki_data_der, [(SubjectKeyIdentifier(subject_key_identifier), signer)], signing_time=signing_time
    )
