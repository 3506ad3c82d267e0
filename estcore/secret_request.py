"""Full PKI Requests of a newcomer who was given a shared secret: the counterpart of identity_proof, pop_link and authenticated_data.

RFC 5272 sections 3.2, 6.2 and 6.3.1. The secret shows who asks, the certification request's own signature that its key is there, and the
POP link that both are the same. Around that stands a SignedData by the new key, or an AuthenticatedData under the secret.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from estcore import authenticated_data, cmc_control_codec, csr_builder, full_request, identity_proof, pki_data, pop_link
from estcore.cmc_controls import Control, Identification, PopLinkRandom
from estcore.cms_signature import signer_of
from estcore.full_request import REQUEST
from estcore.keys import PrivateKey
from estcore.pki_data import ID_CCT_PKI_DATA, TaggedAttribute
from estcore.proof_algorithms import DEFAULT_PBKDF2_ITERATIONS
from estcore.usages import Usage

_IDENTITY_PROOF_V2_OID: Final = "1.3.6.1.5.5.7.7.34"


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """Who asks: the name and the secret that were handed over before, and a random value of `pop_link.RANDOM_OCTETS` for this message."""

    identification: str
    secret: str = field(repr=False)
    random: bytes

    @property
    def link(self) -> dict[str, bytes]:
        """What every certification request of the message signs: an attribute of PKCS#10, a control of CRMF (dotted type → DER value)."""
        return {pop_link.POP_LINK_WITNESS_V2_OID: pop_link.build_v2(secret=self.secret, random=self.random)}


def body(newcomer: Newcomer, requests_der: Sequence[bytes], *, further: Sequence[Control] = (), proof: bool = True) -> bytes:
    """The DER PKIData around TaggedRequests that hold `newcomer.link`, with the controls that prove the identity.

    Without `proof` there is no identityProofV2: the MAC of an AuthenticatedData takes its place. `further` are other controls.
    """
    values: list[Control] = [Identification(newcomer.identification), PopLinkRandom(newcomer.random), *further]
    number = REQUEST + len(requests_der)
    controls = [cmc_control_codec.write(each, value) for each, value in enumerate(values, start=number)]
    if proof:
        witness = identity_proof.build_v2(
            secret=newcomer.secret, identification=newcomer.identification, req_sequence_der=pki_data.req_sequence(requests_der)
        )
        controls.append(TaggedAttribute(body_part_id=number + len(values), attr_type=_IDENTITY_PROOF_V2_OID, values_der=(witness,)))
    return pki_data.encode(controls=controls, requests_der=requests_der)


def tagged_request(
    private_key: PrivateKey,
    newcomer: Newcomer,
    *,
    subject: x509.Name,
    sans: Sequence[x509.GeneralName] = (),
    usages: Collection[Usage] = (),
    channel_binding: bytes | None = None,
) -> bytes:
    """The first TaggedRequest of a message: a PKCS#10 CSR with the POP link and a subjectKeyIdentifier (as `csr_builder.build`)."""
    csr_der = csr_builder.build(
        private_key,
        subject=subject,
        sans=sans,
        usages=usages,
        channel_binding=channel_binding,
        key_identifier=True,
        attributes=newcomer.link,
    )
    return pki_data.tagged_pkcs10(REQUEST, csr_der)


def sign(pki_data_der: bytes, private_key: PrivateKey, *, signing_time: datetime | None = None) -> bytes:
    """The DER ContentInfo of a message signed with the key that `tagged_request` was made with."""
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()).digest
    return full_request.sign_by_key(pki_data_der, key_identifier, signer_of(private_key), signing_time=signing_time)


def authenticate(
    pki_data_der: bytes, newcomer: Newcomer, *, salt: bytes, mac_key: bytes, iterations: int = DEFAULT_PBKDF2_ITERATIONS
) -> bytes:
    """The DER ContentInfo of a message under the secret: for keys that do not sign, or instead of a signature.

    `salt` (`authenticated_data.SALT_OCTETS`) and `mac_key` (`authenticated_data.MAC_KEY_OCTETS`) are random and never used again.
    """
    password = authenticated_data.key_derivation_input(newcomer.identification, newcomer.secret)
    return authenticated_data.build(pki_data_der, ID_CCT_PKI_DATA, password, salt=salt, mac_key=mac_key, iterations=iterations)
