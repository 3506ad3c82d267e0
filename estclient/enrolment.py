"""Enrolling and renewing as a whole: build the CSR, send it, fetch the CA certificates, check that they belong together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from estclient.changed_names import changed_names
from estclient.client import EstClient
from estcore import csr_builder, csr_plan, csr_wishes, server_key
from estcore.csr_plan import Wanted
from estcore.csr_wishes import Wishes
from estcore.errors import ConfigurationError, MalformedResponse, Refused
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key
from estcore.recipient_info import DecryptionKey

__all__ = ["MAX_CHAIN", "Enrolment", "Wanted", "ask", "enroll", "generate", "intermediates", "pem", "renew"]

MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an enrolment yields. `intermediates` go from the leaf's issuer upwards without the root; `ca_certificates` have no order.

    `unmet` says in words what the server wanted in the CSR and nobody could fill in, or nobody could understand; `changed` which names
    were asked for and are not in the certificate, and which are there and were not asked for: the issuer's policy has the last word.
    """

    certificate: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    ca_certificates: tuple[x509.Certificate, ...]
    unmet: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        """What a TLS server or client shows: leaf first, then the intermediates."""
        return pem((self.certificate, *self.intermediates))

    @property
    def ca_pem(self) -> bytes:
        """What the issuer's certificates verify against."""
        return pem(self.ca_certificates)


async def ask(client: EstClient) -> Wishes:
    """What the server wants in a CSR (RFC 7030 section 4.5); nothing where it will not say or cannot be understood, for that is advice.

    Raises Refused where the credentials are wrong, for an enrolment would only try them again, ServerUnavailable and UntrustedServer.
    """
    try:
        return csr_wishes.read(await client.csr_attrs())
    except (Refused, MalformedResponse) as error:
        if isinstance(error, Refused) and error.http_status == 401:
            raise
        return Wishes(ignored=(f"CSR attributes, but {error.message}",))


async def enroll(
    client: EstClient,
    key: PrivateKey,
    wanted: Wanted,
    *,
    bind: bool = True,
    wishes: Wishes | None = None,
    one_time_password: str | None = None,
) -> Enrolment:
    """A first certificate for `key`. With `bind` the CSR is linked to its TLS connection (RFC 7030 section 3.5).

    The server is asked for its `wishes` unless they are given, and what `wanted` leaves unsaid is taken from them. A
    `one_time_password` goes into the CSR (RFC 7894 section 3.1). Raises errors of the ClientError branch, ConfigurationError where
    the server asks for no one-time password.
    """
    wishes = await ask(client) if wishes is None else wishes
    plan = csr_plan.plan(wishes, wanted)
    if one_time_password is not None and not plan.one_time_password_wanted:
        raise ConfigurationError("the issuer's CSR attributes ask for no one-time password (otpChallenge), so it was not sent")

    def build(binding: bytes | None) -> bytes:
        return csr_builder.build_planned(key, plan, channel_binding=binding, one_time_password=one_time_password)

    csr = _Csr(build)
    issued = await _complete(client, await client.simple_enroll(csr if bind else csr(None)), csr.der)
    return replace(issued, unmet=(*plan.unmet, *wishes.ignored))


async def generate(
    client: EstClient, wanted: Wanted, *, decryption_key: DecryptionKey | None = None, bind: bool = True
) -> tuple[PrivateKey, Enrolment]:
    """A key that the server makes, and its certificate (RFC 7030 section 4.4); encrypted for `decryption_key` where one is given.

    What `wanted` leaves unsaid is taken from the server's wishes. Raises errors of the ClientError branch.
    """
    unused = generate_private_key(KeyAlgorithm.ECDSA_P256)  # a CSR has a key, and this one's means nothing
    wishes = await ask(client)
    plan = csr_plan.plan(wishes, wanted)
    attributes = server_key.attributes_for(decryption_key) if decryption_key is not None else {}

    def build(binding: bytes | None) -> bytes:
        return csr_builder.with_attributes(csr_builder.build_planned(unused, plan, channel_binding=binding), attributes, unused)

    csr = _Csr(build)
    made = await client.server_keygen(csr if bind else csr(None), decryption_key=decryption_key)
    issued = await _complete(client, made.certificate, csr.der)
    return made.private_key, replace(issued, unmet=(*plan.unmet, *wishes.ignored))


async def renew(client: EstClient, certificate: x509.Certificate, key: PrivateKey, *, bind: bool = True) -> Enrolment:
    """A successor of `certificate`, which `client` authenticates with (RFC 7030 section 4.2.2); another `key` is a rekey."""

    def build(binding: bytes | None) -> bytes:
        return csr_builder.build_renewal(key, certificate, channel_binding=binding)

    csr = _Csr(build)
    return await _complete(client, await client.simple_reenroll(csr if bind else csr(None)), csr.der)


class _Csr:
    """A CSR that is built for each connection it is sent on; `der` is the last one, which the certificate is for."""

    def __init__(self, build: Callable[[bytes | None], bytes]) -> None:
        self._build = build
        self.der = b""

    def __call__(self, binding: bytes | None) -> bytes:
        self.der = self._build(binding)
        return self.der


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


async def _complete(client: EstClient, certificate: x509.Certificate, csr_der: bytes) -> Enrolment:
    bag = await client.ca_certs()
    return Enrolment(
        certificate=certificate,
        intermediates=intermediates(certificate, bag),
        ca_certificates=bag,
        changed=changed_names(csr_der, certificate),
    )


def _issued(ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates one after the other in PEM."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
