"""Who signed a CMC message: the signature is verified, and what it was verified with is told. Whether that is believed is for others.

RFC 5272 section 3.2: with a certificate that goes along, or with the key that one of the message's requests wants certified, which the
SignerInfo names by the request's subjectKeyIdentifier and which then is the only signer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from estcore import signed_data, signer_certificate
from estcore.certification_request import CertificationRequest
from estcore.cmc_status import WHOLE_MESSAGE, BodyPartPath
from estcore.cms_signature import BadSignature
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.signed_data import SignedData, Signer, SubjectKeyIdentifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatory:
    """Who signed: the holder of `certificate` (then `bag_der` is what else came along), or of the key of the request at `own_request`.

    Neither is set where nobody signed, or only id-alg-noSignature stood for a signature.
    """

    certificate: x509.Certificate | None = None
    own_request: BodyPartPath | None = None
    bag_der: tuple[bytes, ...] = ()

    @property
    def nobody(self) -> bool:
        """Whether the message is not signed at all."""
        return self.certificate is None and self.own_request is None


def signatory_of(signed: SignedData, requests: Mapping[BodyPartPath, CertificationRequest]) -> Signatory:
    """Verify the signature of a message and say whose it is. `requests` are those of its own PKIData.

    Raises CmcFailed for the whole message: badMessageCheck for a signature that is not valid or whose signer cannot be found, badRequest
    for several signers or for unsigned attributes, which nobody vouches for.
    """
    if not signed.signers:
        return Signatory()
    if len(signed.signers) > 1:
        raise _failed("the message has several signers; one signs, as its requester", CmcFailInfo.BAD_REQUEST)
    [signer] = signed.signers
    if signer.unsigned_attributes:
        # CMCUnsignedData among them would be an instruction that nobody signed (RFC 5272 section 3.2.3).
        raise _failed(f"the message has the unsigned attribute {signer.unsigned_attributes[0]}; leave it out", CmcFailInfo.BAD_REQUEST)
    try:
        return _by_own_key(signer, requests) or _by_certificate(signer, signed)
    except (BadSignature, MalformedBody) as error:
        raise _failed(error.message, CmcFailInfo.BAD_MESSAGE_CHECK, reason=error.reason) from error


def _by_own_key(signer: Signer, requests: Mapping[BodyPartPath, CertificationRequest]) -> Signatory | None:
    if not isinstance(signer.identifier, SubjectKeyIdentifier):
        return None
    for path, request in requests.items():
        if request.subject_key_identifier == signer.identifier.octets:
            # A key that cannot sign stands for its message as it does for its request (RFC 5272 Appendix C.1).
            signed_data.verify(signer, request.public_key, allow_no_signature=not request.proven)
            return Signatory(own_request=path if request.proven else None)
    return None


def _by_certificate(signer: Signer, signed: SignedData) -> Signatory:
    certificate_der = signer_certificate.find(signer.identifier, signed.certificates_der)
    if certificate_der is None:
        raise BadSignature(
            "the message's signer is not known: send its certificate along, or name the key of a request by the subjectKeyIdentifier in it",
            reason="UnknownSigner",
        )
    public_key = signer_certificate.public_key(certificate_der)
    signed_data.verify(signer, public_key)  # type: ignore[arg-type]  # keys of other kinds do not verify
    return Signatory(certificate=signer_certificate.load(certificate_der), bag_der=signed.certificates_der)


def _failed(message: str, fail_info: CmcFailInfo, *, reason: str | None = None) -> CmcFailed:
    return CmcFailed(message, fail_info=fail_info, body_parts=(WHOLE_MESSAGE,), reason=reason)
