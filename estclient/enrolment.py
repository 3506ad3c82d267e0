"""Enrolling and renewing as a whole: build the CSR, send it, fetch the CA certificates, check that they belong together."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from estclient.client import EstClient
from estcore import csr_builder
from estcore.errors import MalformedResponse
from estcore.keys import PrivateKey
from estcore.usages import Usage

MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an enrolment yields. `intermediates` go from the leaf's issuer upwards without the root; `ca_certificates` have no order."""

    certificate: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    ca_certificates: tuple[x509.Certificate, ...]

    @property
    def chain_pem(self) -> bytes:
        """What a TLS server or client shows: leaf first, then the intermediates."""
        return pem((self.certificate, *self.intermediates))

    @property
    def ca_pem(self) -> bytes:
        """What the issuer's certificates verify against."""
        return pem(self.ca_certificates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new certificate is to hold."""

    subject: x509.Name
    sans: tuple[x509.GeneralName, ...] = ()
    usages: Collection[Usage] = ()


async def enroll(client: EstClient, key: PrivateKey, wanted: Wanted, *, bind: bool = True) -> Enrolment:
    """A first certificate for `key`. With `bind` the CSR is linked to its TLS connection (RFC 7030 section 3.5).

    Raises errors of the ClientError branch.
    """

    def build(binding: bytes | None) -> bytes:
        return csr_builder.build(key, subject=wanted.subject, sans=wanted.sans, usages=wanted.usages, channel_binding=binding)

    return await _complete(client, await client.simple_enroll(build if bind else build(None)))


async def renew(client: EstClient, certificate: x509.Certificate, key: PrivateKey, *, bind: bool = True) -> Enrolment:
    """A successor of `certificate`, which `client` authenticates with (RFC 7030 section 4.2.2); another `key` is a rekey."""

    def build(binding: bytes | None) -> bytes:
        return csr_builder.build_renewal(key, certificate, channel_binding=binding)

    return await _complete(client, await client.simple_reenroll(build if bind else build(None)))


def intermediates(certificate: x509.Certificate, bag: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The CA certificates between `certificate` and its root, lowest first, found in a bag without order.

    Raises MalformedResponse where nobody in the bag signed the certificate.
    """
    chain: list[x509.Certificate] = []
    below = certificate
    while len(chain) < MAX_CHAIN:
        above = next((ca for ca in bag if _issued(ca, below)), None)
        if above is None and not chain:
            raise MalformedResponse("the certificate is not signed by any of the CA certificates that the server gives out")
        if above is None or above.subject == above.issuer:
            break
        chain.append(above)
        below = above
    return tuple(chain)


async def _complete(client: EstClient, certificate: x509.Certificate) -> Enrolment:
    bag = await client.ca_certs()
    return Enrolment(certificate=certificate, intermediates=intermediates(certificate, bag), ca_certificates=bag)


def _issued(ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates one after the other in PEM."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
