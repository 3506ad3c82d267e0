"""Building the PKCS#10 CSR that a client sends: the counterpart of `estcore.pkcs10`, which reads it.

RFC 2986 (PKCS#10), RFC 2985 sections 5.4.1 (challengePassword) and 5.4.2 (extensionRequest), RFC 7030 sections 3.5 (linking the
CSR to its TLS connection) and 4.2.2 (a renewal asks for the very names it has), RFC 9908 (a server's wishes).
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import AttributeOID

from estcore import der
from estcore.cms_signature import NO_SIGNATURE, signer_of
from estcore.csr_plan import CsrPlan
from estcore.csr_vocabulary import OTP_CHALLENGE
from estcore.der import BIT_STRING, CONTEXT_0, INTEGER, SEQUENCE, SET, object_identifier, tlv
from estcore.der_reader import only
from estcore.keys import PrivateKey, SignatureHash, signature_hash
from estcore.pkcs10 import MAX_ATTRIBUTES
from estcore.usages import Usage, extended_key_usage, key_usage

_RENEWED_EXTENSIONS = (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage)


def build(
    private_key: PrivateKey,
    *,
    subject: x509.Name,
    sans: Sequence[x509.GeneralName] = (),
    usages: Collection[Usage] = (),
    channel_binding: bytes | None = None,
    key_identifier: bool = False,
    attributes: Mapping[str, bytes] | None = None,
) -> bytes:
    """A CSR for a new certificate, DER, signed with its own key.

    `subject` may be empty when there are `sans`; without `usages` the issuer's policy decides them. `channel_binding` is the raw
    value of the TLS connection that the CSR is for. With `key_identifier` it has a subjectKeyIdentifier, which a Full PKI Request that
    is signed with the same key needs (RFC 5272 section 3.2). `attributes` are further ones: dotted type → the one value, DER.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if sans:
        # Critical exactly where the subject is empty (RFC 5280 section 4.2.1.6).
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=not list(subject))
    if asked := key_usage(usages):
        builder = builder.add_extension(asked, critical=True)
    if purposes := extended_key_usage(usages):
        builder = builder.add_extension(purposes, critical=False)
    if key_identifier:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
    csr_der = _sign(builder, private_key, channel_binding)
    return with_attributes(csr_der, attributes, private_key) if attributes else csr_der


def build_planned(
    private_key: PrivateKey, plan: CsrPlan, *, channel_binding: bytes | None = None, one_time_password: str | None = None
) -> bytes:
    """A CSR as `estcore.csr_plan` laid it down, DER: what the server wants, and what the client does.

    `one_time_password` goes in where the server takes one (RFC 7894 section 3.1).
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(plan.subject)
    for extension in plan.extensions:
        as_given = x509.UnrecognizedExtension(x509.ObjectIdentifier(extension.oid), extension.value or b"")
        builder = builder.add_extension(as_given, critical=extension.critical)
    for attribute in plan.attributes:
        for value in attribute.values:
            string_type, content, end = der.read(value, 0, len(value), what="an attribute's value")
            builder = builder.add_attribute(x509.ObjectIdentifier(attribute.type), value[content:end], _tag=_ASN1Type(string_type))
    if one_time_password is not None and plan.one_time_password_wanted:
        builder = builder.add_attribute(x509.ObjectIdentifier(OTP_CHALLENGE), one_time_password.encode())
    return _sign(builder, private_key, channel_binding, linking=x509.ObjectIdentifier(plan.linking), digest=plan.hash_for(private_key))


def build_renewal(private_key: PrivateKey, certificate: x509.Certificate, *, channel_binding: bytes | None = None) -> bytes:
    """A CSR that asks for `certificate` again: its subject, SAN and usages (RFC 7030 section 4.2.2).

    With the certificate's own key it is a renewal, with another one a rekey. DER.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(certificate.subject)
    for extension in certificate.extensions:
        if isinstance(extension.value, _RENEWED_EXTENSIONS):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    return _sign(builder, private_key, channel_binding)


def challenge_password(channel_binding: bytes) -> str:
    """How channel-binding bytes stand in challengePassword: base64 on one line (RFC 7030 section 3.5)."""
    return base64.b64encode(channel_binding).decode("ascii")


def _sign(
    builder: x509.CertificateSigningRequestBuilder,
    private_key: PrivateKey,
    channel_binding: bytes | None,
    *,
    linking: x509.ObjectIdentifier = AttributeOID.CHALLENGE_PASSWORD,
    digest: SignatureHash | None = None,
) -> bytes:
    if channel_binding is not None:
        # RFC 2985 section 5.4.1 wants PrintableString where its alphabet suffices, and base64 lies within it. The library's
        # own default is UTF8String, and the tag is the only way to say otherwise.
        value = challenge_password(channel_binding).encode("ascii")
        builder = builder.add_attribute(linking, value, _tag=_ASN1Type.PrintableString)
    return builder.sign(private_key, digest or signature_hash(private_key)).public_bytes(Encoding.DER)


def without_signature(csr_der: bytes) -> bytes:
    """The same CSR under id-alg-noSignature, which proves nothing: for keys that only decrypt (RFC 5272 Appendix C.1)."""
    info = only(csr_der, what="the CSR").whole(SEQUENCE)
    return tlv(SEQUENCE, info + NO_SIGNATURE + tlv(BIT_STRING, b"\x00" + sha256(info).digest()))


def with_attributes(csr_der: bytes, attributes: Mapping[str, bytes], private_key: PrivateKey) -> bytes:
    """The CSR with further attributes, signed anew: the library writes none whose value is not a string."""
    info = only(csr_der, what="the CSR").inside(SEQUENCE)
    members = info.whole(INTEGER) + info.whole(SEQUENCE) + info.whole(SEQUENCE)
    encoded = [*info.inside(CONTEXT_0).each(SEQUENCE, at_most=MAX_ATTRIBUTES)]
    encoded += (tlv(SEQUENCE, object_identifier(oid) + tlv(SET, value)) for oid, value in attributes.items())
    signed = tlv(SEQUENCE, members + tlv(CONTEXT_0, b"".join(sorted(encoded))))
    signer = signer_of(private_key)
    return tlv(SEQUENCE, signed + signer.algorithm + tlv(BIT_STRING, b"\x00" + signer.sign(signed)))
