"""Identity proof: that the sender of a Full PKI Request knows the secret that was given to it beforehand.

RFC 5272 sections 6.2.1 (identityProofV2), 6.2.2 (identityProof) and 6.2.3 (identification). The MAC is over reqSequence as it was sent, tag
and length included (T-27): never over another encoding of it.
"""

from dataclasses import dataclass
from typing import Final

from estcore.der import SEQUENCE, tlv
from estcore.der_reader import OCTET_STRING, only
from estcore.errors import CmcFailed, CmcFailInfo
from estcore.proof_algorithms import HMAC_SHA1_DER, HMAC_SHA256_DER, SHA1_DER, SHA256_DER, digest, mac, same

MAX_WITNESS_OCTETS: Final = 64
"""That of HMAC-SHA512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProof:
    """IdentifyProofV2, or identityProof with the two algorithms that it is fixed to."""

    hash_algorithm_der: bytes
    mac_algorithm_der: bytes
    witness: bytes


def parse_v2(value_der: bytes) -> IdentityProof:
    """Parse the DER value of an id-cmc-identityProofV2 control. Raises MalformedBody."""
    fields = only(value_der, what="the identityProofV2")
    proof = IdentityProof(hash_algorithm_der=fields.whole(SEQUENCE), mac_algorithm_der=fields.whole(SEQUENCE), witness=fields.octets())
    fields.close()
    return proof


def parse_v1(value_der: bytes) -> IdentityProof:
    """Parse the DER value of an id-cmc-identityProof control: SHA-1 and HMAC-SHA1. Raises MalformedBody."""
    content = only(value_der, OCTET_STRING, what="the identityProof").rest()
    return IdentityProof(hash_algorithm_der=SHA1_DER, mac_algorithm_der=HMAC_SHA1_DER, witness=content)


def verify(proof: IdentityProof, *, secret: str, identification: str | None, req_sequence_der: bytes, accept_sha1: bool = False) -> None:
    """Check that whoever made the proof knows `secret`.

    `identification` is the text of that control, None where the request has none: it changes the key. `req_sequence_der` is the reqSequence
    as sent. Raises CmcFailed: badIdentity, or badAlg for an algorithm that is not accepted.
    """
    expected = _witness(proof, secret, identification, req_sequence_der, accept_sha1=accept_sha1)
    if not same(proof.witness, expected):
        raise wrong_identity()


def wrong_identity() -> CmcFailed:
    """The one answer to a name that is not known and to a wrong secret, so that names cannot be tried out."""
    return CmcFailed(
        "the identity proof is not that of a secret known here for this identification over this reqSequence (RFC 5272 section 6.2)",
        fail_info=CmcFailInfo.BAD_IDENTITY,
    )


def build_v2(*, secret: str, identification: str | None, req_sequence_der: bytes) -> bytes:
    """The DER value of an id-cmc-identityProofV2 control with SHA-256 and HMAC-SHA256, for a reqSequence that is sent as it is here."""
    proof = IdentityProof(hash_algorithm_der=SHA256_DER, mac_algorithm_der=HMAC_SHA256_DER, witness=b"")
    witness = _witness(proof, secret, identification, req_sequence_der, accept_sha1=False)
    return tlv(SEQUENCE, SHA256_DER + HMAC_SHA256_DER + tlv(OCTET_STRING, witness))


def _witness(proof: IdentityProof, secret: str, identification: str | None, req_sequence_der: bytes, *, accept_sha1: bool) -> bytes:
    # The secret, then the identity: the other way round than AuthenticatedData (RFC 5272 section 6.2.3; T-26).
    key_input = secret.encode() + (identification or "").encode()
    key = digest(proof.hash_algorithm_der, key_input, accept_sha1=accept_sha1, what="the identity proof")
    return mac(proof.mac_algorithm_der, req_sequence_der, key=key, accept_sha1=accept_sha1, what="the identity proof")
