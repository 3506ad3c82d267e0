"""CA key roll-over: the certificates that lead from an old CA key to a new one and back.

RFC 7030 section 4.1.3 and RFC 4210 section 4.4: OldWithOld, the old root; OldWithNew, the old key certified by the new one; NewWithOld, the
new key certified by the old one. A client that trusts only the old root gets to the new one through NewWithOld; one that trusts only
the new root verifies what the old key signed through OldWithNew. All of them are CA certificates that RFC 5280 path validation takes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509

from estcore.errors import ConfigurationError
from estcore.keys import PrivateKey, signature_hash, spki_der
from estcore.names import describe_name, same_name
from estcore.trust import issued

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)


def link_certificates(
    old: x509.Certificate, old_key: PrivateKey, new: x509.Certificate, new_key: PrivateKey, *, serials: tuple[int, int]
) -> tuple[x509.Certificate, x509.Certificate]:
    """Make OldWithNew and NewWithOld for two self-signed CA certificates of one name.

    OldWithNew lives as long as the old certificate; NewWithOld from the new one's beginning to the old one's end (RFC 4210 section
    4.4.1). Raises ConfigurationError where the two are no roll-over.
    """
    for certificate, key, which in ((old, old_key, "old"), (new, new_key, "new")):
        if spki_der(key.public_key()) != spki_der(certificate.public_key()):
            raise ConfigurationError("it is not the key of the certificate", where=f"the {which} CA")
        if not issued(certificate, certificate):
            raise ConfigurationError("its certificate is not a self-signed CA certificate", where=f"the {which} CA")
    if not same_name(old.subject, new.subject):
        raise ConfigurationError(
            f"the old CA is {describe_name(old.subject)} and the new one {describe_name(new.subject)}: a roll-over keeps the name"
        )
    if new.not_valid_before_utc >= old.not_valid_after_utc:
        raise ConfigurationError("the new CA certificate begins after the old one ended: there is nothing to roll over")
    old_with_new = _certify(old, new, new_key, not_before=old.not_valid_before_utc, not_after=old.not_valid_after_utc, serial=serials[0])
    end = min(old.not_valid_after_utc, new.not_valid_after_utc)
    new_with_old = _certify(new, old, old_key, not_before=new.not_valid_before_utc, not_after=end, serial=serials[1])
    return old_with_new, new_with_old


def _certify(
    subject: x509.Certificate, issuer: x509.Certificate, issuer_key: PrivateKey, *, not_before: datetime, not_after: datetime, serial: int
) -> x509.Certificate:
    """A CA certificate for the subject's name and key with the subject's own constraints, usages and key identifier."""
    public_key = subject.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for kind in (x509.BasicConstraints, x509.KeyUsage):
        extension = _extension(subject, kind)
        if extension is not None:
            builder = builder.add_extension(extension.value, critical=True)
    builder = builder.add_extension(_key_identifier(subject), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_identifier(issuer))
    return builder.add_extension(authority, critical=False).sign(issuer_key, signature_hash(issuer_key))


def _key_identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    if found is not None:
        return found.value
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


def _extension(certificate: x509.Certificate, kind: type[_ExtensionT]) -> x509.Extension[_ExtensionT] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def check(certificates: Sequence[x509.Certificate], *, path: Sequence[x509.Certificate], where: str) -> None:
    """Check that each of the certificates belongs to the roll-over of a CA: a CA's, linked to the others by name and signature.

    `path` is the present CA certificate and those above it. Raises ConfigurationError with the reason SecretInvalidData.
    """
    known = (*path, *certificates)
    for certificate in certificates:
        name = describe_name(certificate.subject)
        if not any(same_name(certificate.subject, ca.subject) for ca in path):
            raise _wrong(f"{name} has the name of no CA certificate in tls.crt or ca.crt: a roll-over keeps the name", where)
        if certificate in path:
            raise _wrong(f"{name} with serial {certificate.serial_number:x} is in tls.crt or ca.crt already", where)
        if not any(issued(certificate, ca) for ca in known):
            raise _wrong(f"{name} with serial {certificate.serial_number:x} was signed by none of the CA keys, old or new", where)


def _wrong(message: str, where: str) -> ConfigurationError:
    return ConfigurationError(message, where=where, field="rollover.crt", reason="SecretInvalidData")
