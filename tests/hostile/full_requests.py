"""Full PKI Requests that are hostile: in their envelope, their controls, their requests, or in who sends them.

`PASSWORD` ones come with the right password and are signed by the key to be certified: what is wrong is what the name says. `RA` ones are
signed by a registration authority of the factory.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import (
    authenticated_data,
    cert_template,
    cmc_controls,
    enveloped_data,
    full_request,
    pki_data,
    ra_witness,
    signed_data,
    template_modification,
    transfer,
)
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus, StatusInfo
from estcore.cms_signature import signer_of
from estcore.full_request import Vouched
from estcore.keys import PrivateKey
from estcore.recipient_info import KeyEncryptionKey
from estcore.signed_data import SubjectKeyIdentifier
from estserver.snapshot import SecretManifest
from tests import pki
from tests.core.cmc_messages import EVERY_CONTROL
from tests.hostile.case import EST, Case, Cases, prefixed
from tests.hostile.messages_to_decoders import PKI_DATAS, SIGNED
from tests.pki import oid, sequence, tlv
from tests.server.app_fixtures import FACTORY_CA, MANUFACTURER_CA, NOW, OTHER_CA, basic, leaf, name, new_key

PATH = f"{EST}/factory/fullcmc"
CMC = ("Content-Type", "application/pkcs7-mime; smime-type=CMC-request")
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
DAY = timedelta(days=1)
KEY = new_key()
"""Of the device that asks, and signs."""


def full(
    make: Callable[[], bytes] | bytes,
    reason: str,
    status: int = 400,
    *,
    says: str = "",
    authorization: str | None = basic(),
    path: str = PATH,
) -> Case:
    headers = (CMC, ("Authorization", authorization)) if authorization else (CMC,)
    body = make if callable(make) else (lambda: make)
    return Case(status=status, reason=reason, says=says, path=path, headers=headers, body=lambda: transfer.encode_body(body()))


# ---- messages of a device that knows its password


def ski() -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()).digest


def csr(common_name: str = "device-1", *extensions: x509.ExtensionType, sans: Sequence[x509.GeneralName] = ()) -> bytes:
    own = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
    return pki.csr(KEY, subject=name(common_name), sans=sans, extensions=[own, *extensions])


def body_of(*requests: bytes, controls: Sequence[Control] = ()) -> bytes:
    return full_request.body(list(requests) or [pki_data.tagged_pkcs10(1, csr())], controls)


def by_key(body: bytes, key: PrivateKey = KEY) -> bytes:
    return full_request.sign_by_key(body, ski(), signer_of(key))


def asking(*controls: Control) -> bytes:
    return by_key(body_of(controls=controls))


def requesting(*requests: bytes) -> bytes:
    return by_key(body_of(*requests))


def for_csr(csr_der: bytes) -> bytes:
    return requesting(pki_data.tagged_pkcs10(1, csr_der))


def raw_controls(*controls: bytes) -> bytes:
    """PKIData with these DER controls and the device's request."""
    return by_key(sequence(sequence(*controls), sequence(pki_data.tagged_pkcs10(1, csr())), sequence(), sequence()))


def control(number: int, dotted: str, *values: bytes) -> bytes:
    return sequence(tlv(0x02, bytes([number])), oid(dotted), tlv(0x31, *values))


WITNESS = cmc_controls.LraPopWitness(ra_witness.build_pop_witness(1))


def modifying(template_der: bytes, request: int = 1) -> Control:
    return cmc_controls.ModCertTemplate(template_modification.build_mod_cert_template(template_der, requests=[request]))


ENVELOPES: Cases = {
    **{f"SignedData, {each}": full(octets, "") for each, (octets, _) in SIGNED.items() if len(octets) < 40_000},
    **{f"PKIData, {each}": full(partial(by_key, octets), "") for each, (octets, _) in PKI_DATAS.items() if len(octets) < 40_000},
    "a PKCS#10 CSR": full(csr, "MalformedBody"),
    "a certs-only message": full(
        lambda: bytes.fromhex("3023 06092a864886f70d010702 a0163014 020101 3100 300b06092a864886f70d010701 3100"), "MalformedBody"
    ),
    "a PKIResponse": full(lambda: signed_data.build("1.3.6.1.5.5.7.12.3", sequence(*[sequence()] * 3), []), "MalformedBody"),
    "data": full(lambda: signed_data.build("1.2.840.113549.1.7.1", body_of(), []), "MalformedBody"),
    "EnvelopedData for nobody": full(
        lambda: enveloped_data.encrypt(
            by_key(body_of()),
            signed_data.SIGNED_DATA,
            [KeyEncryptionKey(key=bytes(16), key_identifier=b"nobody")],
            content_key=bytes(range(16)),
            iv=bytes(16),
        ),
        "CannotDecrypt",
    ),
    "AuthenticatedData of nobody": full(
        lambda: authenticated_data.build(
            body_of(), pki_data.ID_CCT_PKI_DATA, b"nobody knows it", salt=bytes(16), mac_key=bytes(range(32)), iterations=1000
        ),
        "CmcFailed",
    ),
    "a message within a message": full(lambda: signed_data.build(pki_data.ID_CCT_PKI_DATA, by_key(body_of()), []), "MalformedBody"),
    "64 KiB": full(lambda: by_key(sequence(sequence(), sequence(), sequence(), sequence()) + bytes(60_000)), "TooLarge", 413),
}

SIGNERS: Cases = {
    "another key": full(lambda: by_key(body_of(), new_key()), "BadSignature"),
    "no signer, no password": full(
        lambda: signed_data.build(pki_data.ID_CCT_PKI_DATA, body_of(), []), "Unauthenticated", 401, authorization=None
    ),
    "the key, no password": full(lambda: by_key(body_of()), "Unauthenticated", 401, authorization=None),
    "the key, another password": full(lambda: by_key(body_of()), "WrongPassword", 401, authorization=basic(password="wrong")),
    "another's password": full(lambda: by_key(body_of(pki_data.tagged_pkcs10(1, csr("device-2")))), "NameNotPermitted", 403),
    "a key identifier of nobody": full(
        lambda: full_request.sign_by_key(body_of(), bytes(20), signer_of(KEY)),
        "UnknownSigner",
    ),
    "a flipped bit": full(lambda: _flipped(by_key(body_of())), "BadSignature"),
    "two signers": full(
        lambda: signed_data.build(
            pki_data.ID_CCT_PKI_DATA,
            body_of(),
            [(SubjectKeyIdentifier(ski()), signer_of(KEY)), (SubjectKeyIdentifier(bytes(20)), signer_of(new_key()))],
        ),
        "CmcFailed",
    ),
    "a certificate of another CA": full(lambda: _by_leaf(OTHER_CA), "SignerNotAccepted", authorization=None),
    "a certificate of another CA with cmcRA": full(lambda: _by_leaf(OTHER_CA, CMC_RA), "SignerNotAccepted", authorization=None),
    "a certificate of the manufacturer with cmcRA": full(
        lambda: _as_ra(MANUFACTURER_CA, WITNESS), "NotRegistrationAuthority", authorization=None
    ),
    "an expired certificate": full(lambda: _by_leaf(FACTORY_CA, not_after=NOW - DAY), "SignerNotAccepted", authorization=None),
    "a certificate for servers": full(
        lambda: _by_leaf(FACTORY_CA, ExtendedKeyUsageOID.SERVER_AUTH), "SignerNotAccepted", authorization=None
    ),
    "a forged certificate": full(lambda: _by_leaf(FACTORY_CA, signed_by=OTHER_CA), "SignerNotAccepted", authorization=None),
    "a certificate whose key did not sign": full(lambda: _by_leaf(FACTORY_CA, key=new_key()), "BadSignature", authorization=None),
}


def _flipped(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


def _by_leaf(
    ca: SecretManifest,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    *,
    csr_der: bytes | None = None,
    key: object = None,
    **others: object,
) -> bytes:
    """Signed with a certificate of this CA."""
    device = new_key()
    certificate = leaf(ca, purpose=purpose, key=device, **others)  # type: ignore[arg-type]  # as leaf takes them
    body = body_of(pki_data.tagged_pkcs10(1, csr() if csr_der is None else csr_der))
    return full_request.sign_by_certificate(body, certificate, signer_of(key or device))  # type: ignore[arg-type]  # an EC key


# ---- messages of a registration authority


def _ca(secret: SecretManifest) -> pki.Ca:
    key = load_pem_private_key(secret.data["tls.key"], None)
    return pki.Ca(certificate=x509.load_pem_x509_certificate(secret.data["tls.crt"]), key=key)  # type: ignore[arg-type]  # an EC key


def _ra_certificate(ca: SecretManifest, key: object) -> x509.Certificate:
    return pki.leaf(
        _ca(ca),
        subject=name("ra"),
        ekus=(ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA),
        public_key=key.public_key(),  # type: ignore[attr-defined]  # a private key
        not_before=NOW - DAY,
        not_after=NOW + DAY,
    )


def _as_ra(ca: SecretManifest, *controls: Control, csr_der: bytes | None = None) -> bytes:
    key = new_key()
    body = body_of(pki_data.tagged_pkcs10(1, csr() if csr_der is None else csr_der), controls=controls)
    return full_request.sign_by_certificate(body, _ra_certificate(ca, key), signer_of(key))


def vouching(template_der: bytes, csr_der: bytes | None = None) -> bytes:
    """A registration authority of the factory that puts a template on top of a CSR."""
    key = new_key()
    vouched = Vouched(
        csr_der=csr() if csr_der is None else csr_der, transaction_id=7, sender_nonce=b"nonce-of-16-octets", cert_template_der=template_der
    )
    return full_request.sign_by_certificate(full_request.vouched_body(vouched), _ra_certificate(FACTORY_CA, key), signer_of(key))


def extension(value: x509.ExtensionType) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, False, value)


def template(*values: x509.ExtensionType, **fields: object) -> bytes:
    return cert_template.build(extensions=[extension(value) for value in values], **fields)  # type: ignore[arg-type]  # its own keywords


def ra(make: Callable[[], bytes], reason: str = "", status: int = 400) -> Case:
    return full(make, reason, status, authorization=None)


REGISTRATION_AUTHORITY: Cases = {
    "CA:TRUE": ra(lambda: vouching(template(x509.BasicConstraints(ca=True, path_length=None))), "CaRequested", status=403),
    "CA:TRUE, pathLen 5": ra(lambda: vouching(template(x509.BasicConstraints(ca=True, path_length=5))), "UnsupportedTemplate"),
    "keyCertSign": ra(lambda: vouching(template(pki.key_usage("key_cert_sign"))), "CaRequested"),
    "anyExtendedKeyUsage": ra(
        lambda: vouching(template(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))), "UnsupportedUsage"
    ),
    "a key usage that RFC 5280 has not": ra(
        lambda: vouching(template(x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x03\x03\x06\x80\x40"))), "UnsupportedUsage"
    ),
    "OCSPSigning": ra(lambda: vouching(template(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]))), "UnsupportedUsage"),
    "cmcRA": ra(lambda: vouching(template(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA]))), "UnsupportedTemplate"),
    "a usage outside the policy": ra(
        lambda: vouching(template(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]))), "UsageNotPermitted", status=403
    ),
    "name constraints": ra(lambda: vouching(template(x509.NameConstraints([x509.DNSName("a")], None))), "UnsupportedExtension"),
    "an unknown extension": ra(
        lambda: vouching(template(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"))), "UnsupportedExtension"
    ),
    "a malformed name": ra(lambda: vouching(template(x509.SubjectAlternativeName([x509.DNSName("a..b")]))), "BadName"),
    "a link-local address": ra(
        lambda: vouching(template(x509.SubjectAlternativeName([x509.IPAddress(ip_address("fe80::1"))]))), "NameNotPermitted", status=403
    ),
    "a directoryName": ra(lambda: vouching(template(x509.SubjectAlternativeName([x509.DirectoryName(name("a"))]))), "BadName"),
    "no name at all": ra(lambda: vouching(template(subject=x509.Name([]))), "NoName"),
    "a life of a century": ra(lambda: vouching(template(not_after=datetime(2126, 1, 1, tzinfo=UTC))), "DurationNotPermitted", status=403),
    "a life that is over": ra(lambda: vouching(template(not_after=NOW - DAY)), "UnsupportedTemplate"),
    "another public key": ra(lambda: vouching(template(spki_der=pki.spki_der(new_key().public_key()))), "UnsupportedTemplate"),
    "a template of version 1": ra(lambda: vouching(sequence(tlv(0x80, b"\x00"))), "UnsupportedTemplate"),
    "a serial number": ra(lambda: vouching(sequence(tlv(0x81, b"\x07"))), "UnsupportedTemplate"),
    "a template that is NULL": ra(lambda: vouching(b"\x05\x00"), "MalformedBody"),
    "a template for request 9": ra(lambda: _as_ra(FACTORY_CA, modifying(sequence(), 9)), "UnsupportedTemplate"),
    "two templates for one field": ra(lambda: _as_ra(FACTORY_CA, *[modifying(template(subject=name("web")))] * 2), "UnsupportedTemplate"),
    "a CSR that proves nothing": ra(lambda: vouching(template(), _flipped(csr())), "BadSignature"),
    "the CA's own key": ra(lambda: vouching(template(), _of_the_ca()), "KeyRefused"),
    "a CSR of CA:TRUE": ra(
        lambda: vouching(template(), csr("device-1", x509.BasicConstraints(ca=True, path_length=None))), "CaRequested", status=403
    ),
    "a batch of nothing": ra(lambda: _as_ra(FACTORY_CA, cmc_controls.BatchRequests((7,))), "UnknownReference"),
    "of another issuer": ra(lambda: _as_ra(OTHER_CA), "SignerNotAccepted"),
}


def _of_the_ca() -> bytes:
    key = load_pem_private_key(FACTORY_CA.data["tls.key"], None)
    return pki.csr(key, subject=name("device-1"))  # type: ignore[arg-type]  # an EC key


# ---- controls and requests of a device

FORBIDDEN = "NotRegistrationAuthority"
CONTROLS: Cases = {
    "an unknown control (CVE-2025-44005)": full(
        lambda: raw_controls(control(2, "1.2.3.4", b"\x05\x00")), "UnknownControl", says="BAD_REQUEST"
    ),
    "a control of Microsoft's": full(
        lambda: raw_controls(control(2, "1.3.6.1.4.1.311.10.10.1", sequence())), "UnknownControl", says="BAD_REQUEST"
    ),
    "a control beyond those of CMC": full(lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.99", b"\x05\x00")), "UnknownControl"),
    "changeSubjectName as a control": full(lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.36", sequence())), "UnknownControl"),
    "a control without value": full(lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.5")), "BadControl"),
    "a control with two values": full(
        lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.5", b"\x02\x01\x01", b"\x02\x01\x02")), "BadControl"
    ),
    "a transactionId that is text": full(lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.5", tlv(0x0C, b"1"))), "BadControl"),
    "a transactionId of 1,000 octets": full(lambda: raw_controls(control(2, "1.3.6.1.5.5.7.7.5", tlv(0x02, b"\x01" * 1000))), "BadControl"),
    "two transactionIds": full(lambda: asking(cmc_controls.TransactionId(1), cmc_controls.TransactionId(2)), "BadControl"),
    "two senderNonces": full(lambda: asking(cmc_controls.SenderNonce(bytes(16)), cmc_controls.SenderNonce(bytes(range(16)))), "BadControl"),
    "lraPOPWitness of a device": full(lambda: asking(WITNESS), "NotRegistrationAuthority"),
    "modCertTemplate of a device": full(lambda: asking(modifying(template(subject=name("root")))), "NotRegistrationAuthority"),
    "addExtensions of a device": full(
        lambda: asking(cmc_controls.AddExtensions(sequence(b"\x02\x01\x00", sequence(b"\x02\x01\x01"), sequence()))),
        "NotRegistrationAuthority",
    ),
    "controlProcessed of a device": full(
        lambda: raw_controls(control(2, "1.2.3.4", b"\x05\x00"), control(3, "1.3.6.1.5.5.7.7.32", sequence(sequence(b"\x02\x01\x02")))),
        "UnknownControl",
    ),
    "raIdentityWitness of a device": full(lambda: asking(cmc_controls.RaIdentityWitness((1,))), "NotRegistrationAuthority"),
    "batchRequests of a device": full(lambda: asking(cmc_controls.BatchRequests((1,))), "NotRegistrationAuthority"),
    "a status that failed": full(
        lambda: asking(cmc_controls.Status(StatusInfo(status=CmcStatus.FAILED, body_parts=((1,),)))), "BadControl"
    ),
    "a status of success": full(
        lambda: asking(cmc_controls.Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=((1,),)))), "BadControl"
    ),
    "responseBody": full(lambda: asking(EVERY_CONTROL[37]), "BadControl"),
    "batchResponses": full(lambda: asking(EVERY_CONTROL[29]), "BadControl"),
    "responseInfo": full(lambda: asking(EVERY_CONTROL[19]), "BadControl"),
    "encryptedPOP": full(lambda: asking(EVERY_CONTROL[9]), "BadControl"),
    "decryptedPOP of nothing": full(lambda: asking(EVERY_CONTROL[10]), "CmcFailed"),
    "identityProof of nobody": full(lambda: asking(cmc_controls.Identification("nobody"), EVERY_CONTROL[34]), "CmcFailed"),
    "identityProof by SHA-1": full(lambda: asking(cmc_controls.Identification("nobody"), EVERY_CONTROL[3]), "CmcFailed"),
    "popLinkRandom without proof": full(lambda: asking(EVERY_CONTROL[22]), "NoSecret"),
    "getCRL": full(lambda: asking(EVERY_CONTROL[16]), "NotSupported"),
    "getCert of nothing": full(lambda: by_key(body_of(controls=[EVERY_CONTROL[15]])), "CmcFailed"),
    "revokeRequest of nothing": full(lambda: asking(EVERY_CONTROL[17]), "CmcFailed"),
    "queryPending of nothing": full(lambda: asking(cmc_controls.QueryPending(b"token")), "UnknownToken"),
    "queryPending of 40,000 octets": full(lambda: asking(cmc_controls.QueryPending(bytes(40_000))), "BadControl"),
    "confirmCertAcceptance of nothing": full(lambda: asking(EVERY_CONTROL[24]), "CmcFailed"),
    "publishCert": full(lambda: asking(EVERY_CONTROL[30]), "NotSupported"),
    "publishTrustAnchors": full(lambda: asking(EVERY_CONTROL[26]), "BadControl"),
    "authData of nothing": full(lambda: asking(cmc_controls.AuthData(4)), "NotSupported"),
    "65 controls": full(
        lambda: raw_controls(*(control(number, f"1.3.6.1.5.5.7.7.{number}", b"\x05\x00") for number in range(2, 100))), "MalformedBody"
    ),
}

REQUESTS: Cases = {
    "none": full(lambda: by_key(sequence(*[sequence()] * 4)), "UnknownSigner"),
    "another form": full(lambda: requesting(tlv(0xA2, b"\x02\x01\x01", oid("1.2.3"), b"\x05\x00")), "NotSupported", says="NO_SUPPORT"),
    "a good one and another form": full(
        lambda: requesting(pki_data.tagged_pkcs10(1, csr()), tlv(0xA2, b"\x02\x01\x02", oid("1.2.3"), b"\x05\x00")),
        "NotSupported",
        says="NO_SUPPORT",
    ),
    "a good one and one outside the policy": full(
        lambda: requesting(pki_data.tagged_pkcs10(1, csr()), pki_data.tagged_pkcs10(2, csr("device-2"))), "NameNotPermitted", 403
    ),
    "the same number twice": full(lambda: requesting(*[pki_data.tagged_pkcs10(1, csr())] * 2), "BadBodyPart"),
    "number 0": full(lambda: requesting(pki_data.tagged_pkcs10(0, csr())), "BadBodyPart"),
    "17 requests": full(lambda: requesting(*(pki_data.tagged_pkcs10(number, csr()) for number in range(1, 18))), "MalformedBody"),
    "a CSR with a bad signature": full(lambda: for_csr(_flipped(csr())), "BadSignature"),
    "CA:TRUE": full(lambda: for_csr(csr("device-1", x509.BasicConstraints(ca=True, path_length=None))), "CaRequested", status=403),
    "a name outside the policy": full(lambda: for_csr(csr(sans=pki.dns("evil.example"))), "NameNotPermitted", 403),
    "cmcRA": full(
        lambda: for_csr(csr("device-1", x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA]))), "CmcRaRequested", 403
    ),
    "a weak key": full(lambda: for_csr(pki.csr(pki.curve_key(ec.SECP224R1))), "KeyNotAllowed"),
    "a CSR that nobody signed": full(lambda: for_csr(_unsigned()), "BadSignature"),
    "an empty CSR": full(lambda: for_csr(sequence()), "MalformedBody"),
    "CRMF that the RA is to have verified": full(lambda: requesting(_crmf(tlv(0x80))), "CmcFailed"),
    "CRMF without proof": full(lambda: requesting(_crmf(b"")), "UnknownSigner"),
    "an empty CRMF": full(lambda: requesting(tlv(0xA1)), "MalformedBody"),
    "CRMF of number 0": full(lambda: requesting(tlv(0xA1, sequence(b"\x02\x01\x00", sequence()))), "BadBodyPart"),
}


def _unsigned() -> bytes:
    """By id-alg-noSignature, which proves nothing."""
    return pki.raw_csr(private_key=KEY, algorithm=sequence(oid("1.3.6.1.5.5.7.6.2"), b"\x05\x00"), signature=bytes(32))


def _crmf(proof: bytes) -> bytes:
    template_der = cert_template.build(subject=name("device-1"), spki_der=pki.spki_der(KEY.public_key()))
    return pki_data.tagged_crmf(sequence(sequence(b"\x02\x01\x01", template_der), proof))


HEADERS: Cases = {
    media_type: Case(
        status=415,
        reason="UnsupportedMediaType",
        path=PATH,
        headers=(("Content-Type", media_type), ("Authorization", basic())),
        body=lambda: transfer.encode_body(by_key(body_of())),
    )
    for media_type in (
        "application/pkcs10",
        "application/pkcs7-mime; smime-type=certs-only",
        "application/pkcs7-mime; smime-type=CMC-response",
        "application/pkcs7-mime; smime-type=signed-data",
        "application/pkcs7-signature",
        "application/cms",
        "text/plain",
        "",
    )
}

CASES: dict[str, Case] = prefixed(
    **{
        "CMC": ENVELOPES,
        "CMC signer": SIGNERS,
        "CMC control": CONTROLS,
        "CMC request": REQUESTS,
        "CMC of an RA": REGISTRATION_AUTHORITY,
        "CMC type": HEADERS,
    }
)
