"""/serverkeygen: a key and a certificate for it, for a device that cannot make a good key itself (RFC 7030 section 4.4).

The path is that of an enrolment, and every check of one is made before the key is:

    authenticate → parse, for a stand-in key → wrapping_keys.choose → registration → approval → make the key → issuing.issue, for it

The CSR's own key and signature mean nothing (section 4.4.1). The private key is in this answer and nowhere else: no ledger, log or audit
line has it, and a repeat gets another key, whereupon the certificate of the first try is revoked. A key that was asked for encrypted, or
that the issuer sends encrypted only, never leaves in plain.
"""

from dataclasses import replace
from functools import cache
from typing import Final

from estcore import auth_enveloped_data, authority, certs_only, enveloped_data, key_package, multipart, pkcs10, registration, wrapping_keys
from estcore.authority import Authority
from estcore.certification_request import CertificationRequest
from estcore.errors import SignerError, UnknownLabel
from estcore.issuer_spec import Encryption as EncryptionPolicy
from estcore.issuer_spec import IssuerSpec, KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key
from estcore.multipart import Part
from estcore.names import same_general_names, same_name
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estcore.signed_data import SIGNED_DATA
from estcore.smime_capabilities import Mode
from estcore.wrapping_keys import Encryption, WrappingKeys
from estserver import issuing, operations, revocation
from estserver.issuers import Issuer
from estserver.issuing import Order, Service
from estserver.ledger_entry import Entry
from estserver.messages import MEDIA_CERTS_ONLY, MEDIA_PKCS10, EstRequest, EstResponse

MEDIA_PKCS8: Final = "application/pkcs8"
MEDIA_SERVER_GENERATED_KEY: Final = "application/pkcs7-mime; smime-type=server-generated-key"
NO_KEYS: Final = WrappingKeys()


async def serverkeygen(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """A new key, and a certificate for it and the names of the CSR."""
    if issuer.spec is not None and not issuer.spec.est.server_key_generation.enabled:
        raise UnknownLabel("this issuer makes no keys for others (serverkeygen); make a key and use simpleenroll", reason="NotEnabled")
    spec, ca = operations.ready(request, issuer, service, media_type=MEDIA_PKCS10)
    # What is refused costs no key: a cheap one stands in for the key that is not made yet.
    read_csr = cache(
        lambda: pkcs10.parse_for_key(operations.decode_csr(request, spec), generate_private_key(KeyAlgorithm.ECDSA_P256).public_key())
    )
    requester = await service.authenticator.enroller(request, issuer, read_csr)
    algorithm = spec.est.server_key_generation.key_algorithm
    service.key_generator.check_room(algorithm)
    csr = read_csr()
    operations.check_binding(request, requester, csr, spec)
    encryption = _encryption(csr, issuer, spec)
    authorized = _register(requester, csr, spec)
    service.csr_advice.check(issuer, spec, requester, csr, names=not _is_renewal(requester, csr), own_key=False)
    order = Order(
        issuer=issuer,
        spec=spec,
        authority=ca,
        operation=request.operation,
        requester=requester,
        csr=csr,
        authorized=authorized,
        source=request.source,
        exempt=True,
    )
    approved = await service.approvals.require(order, now=service.clock())
    private_key = await service.key_generator.generate(algorithm)
    key_part = _key_part(private_key, encryption, ca, service)
    csr = pkcs10.parse_for_key(csr.csr_der, private_key.public_key())
    order = replace(order, csr=csr, authorized=_register(requester, csr, spec), approved=approved)
    standing = await _issue(order, service)
    return _answer(key_part, standing)


async def _issue(order: Order, service: Service) -> Entry:
    standing = await issuing.issue(order, service)
    now = service.clock()
    for serial in await revocation.supersede(service.ledger, standing, within=service.retry_window, now=now):
        service.audit.revoked(order.issuer.key, f"{serial:x}", revocation.SUPERSEDED, requester=str(order.requester), now=now)
    return standing


def _register(requester: Requester, csr: CertificationRequest, spec: IssuerSpec) -> Authorized:
    """As simplereenroll for the names of the certificate that the requester came with, else as simpleenroll (RFC 7030 section 4.4.1)."""
    register = registration.authorize_renewal if _is_renewal(requester, csr) else registration.authorize
    return register(requester, csr, spec.policy)


def _is_renewal(requester: Requester, csr: CertificationRequest) -> bool:
    certificate = requester.certificate
    return (
        requester.authenticated_by is AuthenticatedBy.CERTIFICATE
        and certificate is not None
        and same_name(certificate.subject, csr.subject)
        and same_general_names(registration.subject_alternative_names(certificate), csr.sans)
    )


def _encryption(csr: CertificationRequest, issuer: Issuer, spec: IssuerSpec) -> Encryption | None:
    """For whom and how the key is encrypted; None for a plain one, which only an issuer with `encryption: Optional` sends."""
    required = spec.est.server_key_generation.encryption is EncryptionPolicy.REQUIRED
    wanted = wrapping_keys.wanted_by(csr, required=required)
    return None if wanted is None else wrapping_keys.choose(issuer.wrapping_keys or NO_KEYS, wanted)


def _key_part(private_key: PrivateKey, encryption: Encryption | None, ca: Authority, service: Service) -> Part:
    if encryption is None:
        return Part(content_type=MEDIA_PKCS8, der=key_package.private_key_info(private_key))
    signer = authority.message_signer(ca)
    if signer is None:
        raise SignerError("the key of this CA is elsewhere: it signs no key packages")
    package = key_package.sign([private_key], certificate=ca.certificate, signer=signer[1], signing_time=service.clock())
    recipients = [encryption.recipient]
    content_key = service.random_octets(encryption.cipher.key_octets)
    if encryption.cipher.mode is Mode.GCM:
        nonce = service.random_octets(auth_enveloped_data.NONCE_OCTETS)
        enveloped = auth_enveloped_data.encrypt(package, SIGNED_DATA, recipients, content_key=content_key, nonce=nonce)
    else:
        iv = service.random_octets(enveloped_data.IV_OCTETS)
        enveloped = enveloped_data.encrypt(package, SIGNED_DATA, recipients, content_key=content_key, iv=iv)
    return Part(content_type=MEDIA_SERVER_GENERATED_KEY, der=enveloped)


def _answer(key_part: Part, standing: Entry) -> EstResponse:
    """RFC 7030 section 4.4.2: the key first, as in its example, then what simpleenroll would have answered with. No cache may keep it."""
    certificate_part = Part(content_type=MEDIA_CERTS_ONLY.decode("ascii"), der=certs_only.encode([standing.der]))
    content_type, body = multipart.encode([key_part, certificate_part])
    return EstResponse(status=200, body=body, headers=((b"content-type", content_type.encode("ascii")), (b"cache-control", b"no-store")))
