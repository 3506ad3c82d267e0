"""What an object asks a certificate for: the PKCS#10 CSR in it, or the bare public key of a pod on a node before 1.36. Pure.

Of a bare key kube-apiserver verified the proof-of-possession, a signature over the pod's UID, before it took the object (KEP-4317); so the
operator, as registration authority, vouches for it as for a CSR that it verified itself.
"""

import base64
import re
from dataclasses import replace

from estcore import crmf, pkcs10
from estcore.certification_request import CertificationRequest
from estcore.der import MAX_CSR_OCTETS
from estcore.errors import BadCsr, MalformedBody
from estcore.full_request import REQUEST
from estoperator.resources import MAX_REQUEST_CHARACTERS, CertRequest

_PEM = re.compile(rb"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([^-]*)-----END (?:NEW )?CERTIFICATE REQUEST-----")


def read(request: CertRequest) -> CertificationRequest:
    """What is asked for, checked but not permitted. Raises MalformedBody, BadCsr."""
    if request.pod is None:
        return pkcs10.parse(_csr_der(request.csr_b64), accept_ca=True)
    try:
        if request.pod.public_key_b64 != "":
            spki_der = _decoded(request.pod.public_key_b64, field="spec.pkixPublicKey")
            return replace(crmf.for_public_key(spki_der, cert_req_id=REQUEST), proven=True)  # to kube-apiserver
        csr = pkcs10.parse(_decoded(request.csr_b64, field="spec.stubPKCS10Request"), accept_ca=True)
    except BadCsr as error:
        if error.reason == "KeyNotAllowed":
            raise BadCsr(error.message, reason="UnsupportedKeyType") from error  # the API's own word for it
        raise
    if csr.subject.rdns or csr.attribute_types:
        raise BadCsr("spec.stubPKCS10Request asks for names or extensions: a kubelet's is empty but for the key", reason="StubNotEmpty")
    return csr


def _csr_der(csr_b64: str | None) -> bytes:
    """spec.request is base64 of one PEM block (RFC 7468 section 7)."""
    blocks = _PEM.findall(_decoded(csr_b64, field="spec.request"))
    if len(blocks) != 1:
        raise MalformedBody(f"spec.request holds {len(blocks) or 'no'} PEM blocks of type CERTIFICATE REQUEST instead of one")
    try:
        return base64.b64decode(b"".join(blocks[0].split()), validate=True)
    except ValueError as error:
        raise MalformedBody("spec.request holds a CERTIFICATE REQUEST that is not base64 between its lines") from error


def _decoded(text: str | None, *, field: str) -> bytes:
    if text is None:
        raise MalformedBody(
            f"{field} takes more than {MAX_REQUEST_CHARACTERS} characters; a CSR of up to {MAX_CSR_OCTETS} octets of DER is read"
        )
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedBody(f"{field} is not base64") from error
