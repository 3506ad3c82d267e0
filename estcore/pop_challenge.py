"""The POP challenge of keys that do not sign: a random value is encrypted for the key, and its owner shows that it could be read.

RFC 5272 section 6.7, both sides. The server sends encryptedPOP with the request and y under the request's key; the client sends the same
request again, and decryptedPOP with an HMAC of the request under y. "The request" is the DER of its TaggedRequest, bodyPartID included
(docs/adr/0005: the RFC does not say to the octet), so the client keeps the bodyPartID.

Nothing has to be remembered between the two messages: `proof_value` makes y from the request and a key of the server.
"""

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estcore import enveloped_data
from estcore.certification_request import CertificationRequest
from estcore.der import SEQUENCE, integer, tlv
from estcore.der_reader import OCTET_STRING, only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.keys import PrivateKey
from estcore.proof_algorithms import HMAC_SHA256_DER, SHA256_DER, digest, mac, same
from estcore.recipient_info import (
    KeyAgreementRecipient,
    KeyTransportRecipient,
    Recipient,
    RecipientIdentifier,
    RecipientKey,
)
from estcore.signed_data import DATA, IssuerAndSerialNumber, SubjectKeyIdentifier

PROOF_VALUE_OCTETS: Final = 32
MIN_PROOF_VALUE_OCTETS: Final = 16
"""Long enough that y cannot be found from its hash (RFC 5272 section 6.7 step 2)."""
MAX_SECRET_OCTETS: Final = 64
"""RFC 5272 section 6.7: of a longer y the first 64 octets are the secret."""
CONTENT_KEY_OCTETS: Final = 32
_NO_NAME_DER = b"\x30\x00"


def proof_value(tagged_request_der: bytes, *, server_key: bytes, recipient: bytes = b"") -> bytes:
    """Make y as HMAC-SHA256(server key, what it is for), the way to keep no state that RFC 5272 section 6.7 describes.

    `server_key` is secret, at least 32 random octets, and changed now and then; `recipient` binds y to what else must be the same in the
    second message, such as who sent it and the transaction.
    """
    if len(server_key) < PROOF_VALUE_OCTETS:
        raise ValueError(f"the key for POP challenges has at least {PROOF_VALUE_OCTETS} octets")
    return hmac.digest(server_key, len(recipient).to_bytes(4) + recipient + tagged_request_der, "sha256")


def build_challenge(
    request: CertificationRequest, tagged_request_der: bytes, *, body_part_id: int, y: bytes, content_key: bytes, iv: bytes
) -> bytes:
    """The DER value of an id-cmc-encryptedPOP control for a request that proved nothing.

    `content_key` (CONTENT_KEY_OCTETS) and `iv` (16 octets) are random and never used again. Raises CmcFailed (popFailed) for a key that
    cannot decrypt, such as Ed25519: its owner can only sign.
    """
    enveloped = enveloped_data.encrypt(y, DATA, [_recipient(request, body_part_id)], content_key=content_key, iv=iv)
    witness = digest(SHA256_DER, y, accept_sha1=False, what="")
    return tlv(SEQUENCE, tagged_request_der + enveloped + HMAC_SHA256_DER + SHA256_DER + tlv(OCTET_STRING, witness))


def _recipient(request: CertificationRequest, body_part_id: int) -> Recipient:
    identifier = _identifier(request.subject_key_identifier, body_part_id)
    match request.public_key:
        case rsa.RSAPublicKey():
            return KeyTransportRecipient(public_key=request.public_key, identifier=identifier)
        case ec.EllipticCurvePublicKey():
            return KeyAgreementRecipient(public_key=request.public_key, identifier=identifier)
        case _:
            raise CmcFailed(f"{request.key_algorithm} keys cannot decrypt a challenge: sign the request", fail_info=CmcFailInfo.POP_FAILED)


def _identifier(subject_key_identifier: bytes | None, body_part_id: int) -> RecipientIdentifier:
    """RFC 5272 section 6.7 step 2: the request's own subjectKeyIdentifier, else no issuer and the bodyPartID as serial number."""
    if subject_key_identifier is not None:
        return SubjectKeyIdentifier(subject_key_identifier)
    return IssuerAndSerialNumber(issuer_der=_NO_NAME_DER, serial_number=body_part_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecryptedPop:
    """A decryptedPOP control: the answer to a challenge for the request with this bodyPartID in the same PKIData."""

    body_part_id: int
    algorithm_der: bytes
    proof: bytes


def parse_decrypted_pop(value_der: bytes) -> DecryptedPop:
    """Parse the DER value of an id-cmc-decryptedPOP control. Raises MalformedBody."""
    fields = only(value_der, what="the decryptedPOP")
    answer = DecryptedPop(body_part_id=fields.integer(), algorithm_der=fields.whole(SEQUENCE), proof=fields.octets())
    fields.close()
    return answer


def verify(answer: DecryptedPop, tagged_request_der: bytes, *, y: bytes, accept_sha1: bool = False) -> None:
    """Check that the answer was made with y, for this request. Raises CmcFailed (popFailed, badAlg)."""
    expected = _proof(answer.algorithm_der, tagged_request_der, y, accept_sha1=accept_sha1)
    if not same(answer.proof, expected):
        raise CmcFailed(
            "the decryptedPOP is not the answer to the challenge for this request (RFC 5272 section 6.7); send the request as it was,"
            " bodyPartID included",
            fail_info=CmcFailInfo.POP_FAILED,
        )


def _proof(algorithm_der: bytes, tagged_request_der: bytes, y: bytes, *, accept_sha1: bool) -> bytes:
    return mac(algorithm_der, tagged_request_der, key=y[:MAX_SECRET_OCTETS], accept_sha1=accept_sha1, what="the decryptedPOP")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedPop:
    """An encryptedPOP control as a client gets it."""

    tagged_request_der: bytes
    content_info_der: bytes = field(repr=False)
    proof_algorithm_der: bytes
    witness_algorithm_der: bytes
    witness: bytes


def parse_encrypted_pop(value_der: bytes) -> EncryptedPop:
    """Parse the DER value of an id-cmc-encryptedPOP control. Raises MalformedBody."""
    fields = only(value_der, what="the encryptedPOP")
    tag = next((tag for tag in (0xA0, 0xA1, 0xA2) if fields.next_is(tag)), None)
    if tag is None:
        raise MalformedBody("the encryptedPOP holds no TaggedRequest")
    challenge = EncryptedPop(
        tagged_request_der=fields.whole(tag),
        content_info_der=fields.whole(SEQUENCE),
        proof_algorithm_der=fields.whole(SEQUENCE),
        witness_algorithm_der=fields.whole(SEQUENCE),
        witness=fields.octets(),
    )
    fields.close()
    return challenge


def answer_challenge(
    challenge: EncryptedPop,
    private_key: PrivateKey,
    *,
    tagged_request_der: bytes,
    body_part_id: int,
    subject_key_identifier: bytes | None = None,
    accept_sha1: bool = False,
) -> bytes:
    """The DER value of the id-cmc-decryptedPOP control that goes with the request when it is sent again.

    `tagged_request_der` is what the client sent and will send again; a challenge for another request is not answered. Raises CmcFailed
    (popFailed) where that is so, where y cannot be decrypted or is not what the witness says: then the client gives up the enrolment.
    """
    if challenge.tagged_request_der != tagged_request_der or not isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise _no_answer("the challenge is for another request, or for a key that cannot decrypt")
    # The rid may be either form; RFC 5272 section 6.7 says SHOULD.
    identifiers = [_identifier(None, body_part_id)]
    if subject_key_identifier is not None:
        identifiers.append(_identifier(subject_key_identifier, body_part_id))
    key = RecipientKey(private_key=private_key, identifiers=tuple(identifiers))
    try:
        content_type, y = enveloped_data.decrypt(challenge.content_info_der, [key])
    except MalformedBody as error:
        raise _no_answer("the challenge cannot be decrypted") from error
    witness = digest(challenge.witness_algorithm_der, y, accept_sha1=accept_sha1, what="the encryptedPOP")
    if content_type != DATA or len(y) < MIN_PROOF_VALUE_OCTETS or not same(challenge.witness, witness):
        raise _no_answer("the challenge is not what its witness says")
    proof = _proof(challenge.proof_algorithm_der, tagged_request_der, y, accept_sha1=accept_sha1)
    return tlv(SEQUENCE, integer(body_part_id) + challenge.proof_algorithm_der + tlv(OCTET_STRING, proof))


def _no_answer(message: str) -> CmcFailed:
    return CmcFailed(f"{message} (RFC 5272 section 6.7 step 3)", fail_info=CmcFailInfo.POP_FAILED)
