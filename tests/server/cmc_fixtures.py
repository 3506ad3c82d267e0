"""Full PKI Requests against the application in memory, and what came back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import cert_template, certs_only, crmf, full_request, pki_data, pki_response, transfer
from estcore.cmc_controls import Control
from estcore.cmc_status import StatusInfo
from estcore.cms_signature import signer_of
from estcore.full_request import Vouched
from estcore.keys import PrivateKey, spki_der
from estcore.pki_response import PkiResponse
from estcore.signed_data import SignedData
from estserver.connection import TlsConnection
from tests import pki
from tests.collect import collect
from tests.server.app_fixtures import FACTORY_CA, RA, Answer, Server, basic, make_csr, name, new_key

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
CA_CERTIFICATE = x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])
REG_INFO = b'{"door":"cert-manager.io","name":"web-1","namespace":"shop","requester":"system:serviceaccount:cert-manager:cert-manager"}'


@dataclass(frozen=True)
class Reply:
    """An answer of fullcmc, read."""

    answer: Answer
    certificates: tuple[x509.Certificate, ...]
    message: SignedData | None = None
    response: PkiResponse | None = None

    @property
    def statuses(self) -> tuple[StatusInfo, ...]:
        assert self.response is not None, "a Simple PKI Response says no status"
        return self.response.statuses

    @property
    def values(self) -> list[Control]:
        assert self.response is not None
        return [value for _, value in self.response.controls]

    def certificate_for(self, key: PrivateKey) -> x509.Certificate:
        (found,) = [certificate for certificate in self.certificates if certificate.public_key() == key.public_key()]
        return found


def read(answer: Answer) -> Reply:
    """Read an answer: certs-only, or a Full PKI Response; whatever fullcmc says is one of these (RFC 7030 section 4.3.2)."""
    der = transfer.decode_body(answer.body)
    if answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only":
        assert answer.status == 200
        certificates = certs_only.decode(der)
        issued = [each for each in certificates if each != CA_CERTIFICATE]
        for certificate in issued:
            by_factory = certificate.issuer == CA_CERTIFICATE.subject  # others come from a signing program
            collect(certificate.public_bytes(Encoding.DER), CA_CERTIFICATE.public_bytes(Encoding.DER) if by_factory else None)
        return Reply(answer, certificates)
    assert answer.header("content-type") == "application/pkcs7-mime; smime-type=CMC-response", answer
    message, response = pki_response.parse_message(der)
    bag = tuple(map(x509.load_der_x509_certificate, message.certificates_der))
    return Reply(answer, bag, message, response)


async def send(
    server: Server,
    content_info_der: bytes,
    *,
    authorization: str | None = None,
    connection: TlsConnection | None = None,
    content_type: str = "application/pkcs7-mime; smime-type=CMC-request",
    label: str = "factory",
    source: str = "192.0.2.7",
) -> Reply:
    headers = [("Content-Type", content_type), *([("Authorization", authorization)] if authorization else [])]
    answer = await server.request(
        "POST",
        f"/.well-known/est/{label}/fullcmc",
        headers=headers,
        body=transfer.encode_body(content_info_der),
        connection=connection,
        source=source,
    )
    return read(answer)


@dataclass(frozen=True)
class Authority:
    """A registration authority of the factory: its certificate, key and token."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    token: str

    @property
    def bearer(self) -> str:
        return f"Bearer {self.token}"

    def sign(self, pki_data_der: bytes) -> bytes:
        return full_request.sign_by_certificate(pki_data_der, self.certificate, signer_of(self.key))

    def pass_on(self, vouched: Vouched) -> bytes:
        return self.sign(full_request.vouched_body(vouched))


async def make_authority(server: Server) -> Authority:
    """As the operator gets it: by its token, for a key of its own (design: the two programs)."""
    key, token = new_key(), server.reviewer.add(RA, audience="est-issuer", expires=server.clock.now + timedelta(hours=1))
    csr_der = pki.csr(key, subject=name("operator"), ekus=(ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA))
    answer = await server.enroll(csr_der, authorization=f"Bearer {token}")
    return Authority(answer.certificate, key, token)


def vouched(csr_der: bytes, *, transaction_id: int = 0x1F0C9A52, **others: object) -> Vouched:
    """What the operator says, without nonce unless given."""
    return replace(Vouched(csr_der=csr_der, transaction_id=transaction_id), **others)  # type: ignore[arg-type]  # fields of Vouched


def template(*extensions: x509.Extension[x509.ExtensionType], subject: x509.Name | None = None, **others: object) -> bytes:
    return cert_template.build(subject=subject, extensions=extensions, **others)  # type: ignore[arg-type]  # its own keywords


def extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def ski(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def newcomer_csr(key: PrivateKey, common_name: str = "device-1", *dns_names: str) -> bytes:
    """A CSR with the subjectKeyIdentifier that its key's signature on the message refers to (RFC 5272 section 3.2)."""
    return pki.csr(key, subject=name(common_name), sans=pki.dns(*dns_names), extensions=[ski(key)])


def newcomer(key: PrivateKey, csr_der: bytes, controls: Sequence[Control] = ()) -> bytes:
    """A Full PKI Request signed with the key that it wants certified."""
    body = full_request.body([pki_data.tagged_pkcs10(1, csr_der)], controls)
    return full_request.sign_by_key(body, ski(key).digest, signer_of(key))


def crmf_request(key: PrivateKey, *, common_name: str = "device-1", issuer: x509.Name | None = None) -> bytes:
    """A CertReqMsg with the subjectKeyIdentifier that its key's signature on the message refers to."""
    fields = cert_template.build(
        subject=name(common_name),
        spki_der=spki_der(key.public_key()),
        extensions=[x509.Extension(ski(key).oid, False, ski(key))],
    )
    if issuer is not None:
        fields = pki.sequence(pki.tlv(0xA3, issuer.public_bytes()), fields[2 if fields[1] < 128 else 3 :])
    return crmf.build(key, fields, cert_req_id=5)


def by_certificate(key: PrivateKey, certificate: x509.Certificate, csrs: Sequence[bytes] = (), controls: Sequence[Control] = ()) -> bytes:
    """A Full PKI Request signed with a certificate."""
    requests = [pki_data.tagged_pkcs10(number, csr_der) for number, csr_der in enumerate(csrs, start=1)]
    return full_request.sign_by_certificate(full_request.body(requests, controls), certificate, signer_of(key))


async def enrolled(server: Server, common_name: str = "device-1") -> tuple[PrivateKey, x509.Certificate]:
    """A device that has a certificate by simpleenroll."""
    key = new_key()
    answer = await server.enroll(make_csr(common_name, "a.devices.example", key=key), authorization=basic())
    return key, answer.certificate
