"""The controls of CMC, each as a frozen value.

RFC 5272 section 6, RFC 6402 section 2; who must support which: RFC 5274 section 4.2. A control that has a module of its own keeps its
value as DER, which that module reads. A control that is not listed is an `UnknownControl`, never dropped. `estcore.cmc_control_codec`
reads and writes them.
"""

from dataclasses import dataclass, field
from datetime import datetime

from estcore.cmc_status import BodyPartPath, StatusInfo


@dataclass(frozen=True, slots=True)
class Status:
    """id-cmc-statusInfo or id-cmc-statusInfoV2; only the latter is written."""

    info: StatusInfo


@dataclass(frozen=True, slots=True)
class Identification:
    """id-cmc-identification: who the sender says it is, by a name that goes with a shared secret."""

    text: str


@dataclass(frozen=True, slots=True)
class IdentityProof:
    """id-cmc-identityProof: HMAC-SHA1 over reqSequence under a shared secret; see `estcore.identity_proof`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class IdentityProofV2:
    """id-cmc-identityProofV2: the same with algorithms named; see `estcore.identity_proof`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataReturn:
    """id-cmc-dataReturn: octets to send back as they are."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransactionId:
    """id-cmc-transactionId: a number for a request and all that belongs to it."""

    number: int


@dataclass(frozen=True, slots=True)
class SenderNonce:
    """id-cmc-senderNonce."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class RecipientNonce:
    """id-cmc-recipientNonce: the senderNonce of the message that is answered."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class AddExtensions:
    """id-cmc-addExtensions, deprecated; see `estcore.template_modification`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModCertTemplate:
    """id-cmc-modCertTemplate: what a registration authority changes in requests; see `estcore.template_modification`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EncryptedPop:
    """id-cmc-encryptedPOP: a challenge to the holder of an encryption key, in the response; see `estcore.pop_challenge`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DecryptedPop:
    """id-cmc-decryptedPOP: the answer to it, in the next request; see `estcore.pop_challenge`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LraPopWitness:
    """id-cmc-lraPOPWitness: an RA says that senders have their keys; see `estcore.ra_witness`."""

    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PopLinkRandom:
    """id-cmc-popLinkRandom: what each request's popLinkWitness is a MAC over."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class GetCert:
    """id-cmc-getCert; `issuer_name_der` is a GeneralName."""

    issuer_name_der: bytes
    serial_number: int


@dataclass(frozen=True, slots=True)
class GetCrl:
    """id-cmc-getCRL; `issuer_name_der` is a Name."""

    issuer_name_der: bytes
    crl_name_der: bytes | None = None
    time: datetime | None = None
    reasons_der: bytes | None = None


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """id-cmc-revokeRequest; `issuer_name_der` is a Name, `reason` a number of CRLReason."""

    issuer_name_der: bytes
    serial_number: int
    reason: int
    invalidity_date: datetime | None = None
    passphrase: bytes | None = field(default=None, repr=False)
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class RegInfo:
    """id-cmc-regInfo: octets by agreement, in a request."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """id-cmc-responseInfo: octets by agreement, in a response."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class QueryPending:
    """id-cmc-queryPending: asks what became of a request, by the token of its pendInfo."""

    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfirmCertAcceptance:
    """id-cmc-confirmCertAcceptance: a certificate by its issuer's DER Name and its serial number."""

    issuer_der: bytes
    serial_number: int


@dataclass(frozen=True, slots=True)
class PublishTrustAnchors:
    """id-cmc-trustedAnchors: which of the certificates in the bag are trust anchors, by hash."""

    sequence_number: int
    hash_algorithm_der: bytes
    anchor_hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AuthData:
    """id-cmc-authData: the number of a member of cmsSequence that is AuthenticatedData."""

    body_part_id: int


@dataclass(frozen=True, slots=True)
class BatchRequests:
    """id-cmc-batchRequests: which members of cmsSequence are requests."""

    body_part_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchResponses:
    """id-cmc-batchResponses: which members of cmsSequence are responses."""

    body_part_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PublishCert:
    """id-cmc-publishCert, as DER: nothing is published here."""

    value_der: bytes


@dataclass(frozen=True, slots=True)
class ControlProcessed:
    """id-cmc-controlProcessed: controls that a registration authority has dealt with."""

    references: tuple[BodyPartPath, ...]


@dataclass(frozen=True, slots=True)
class RaIdentityWitness:
    """id-cmc-raIdentityWitness: a registration authority checked the identity proof at this path."""

    path: BodyPartPath


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """id-cmc-responseBody: the embedded response at this path is for the end entity."""

    path: BodyPartPath


@dataclass(frozen=True, slots=True)
class UnknownControl:
    """A control of no meaning here, by its dotted OID."""

    attr_type: str


Control = (
    Status
    | Identification
    | IdentityProof
    | IdentityProofV2
    | DataReturn
    | TransactionId
    | SenderNonce
    | RecipientNonce
    | AddExtensions
    | ModCertTemplate
    | EncryptedPop
    | DecryptedPop
    | LraPopWitness
    | PopLinkRandom
    | GetCert
    | GetCrl
    | RevokeRequest
    | RegInfo
    | ResponseInfo
    | QueryPending
    | ConfirmCertAcceptance
    | PublishTrustAnchors
    | AuthData
    | BatchRequests
    | BatchResponses
    | PublishCert
    | ControlProcessed
    | RaIdentityWitness
    | ResponseBody
    | UnknownControl
)
