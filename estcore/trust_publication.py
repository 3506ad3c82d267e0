"""Trust anchors that a CA gives out in a Full PKI Response while its key rolls over: id-cmc-trustedAnchors, both sides.

RFC 5272 section 6.15. The control lists hashes; the certificates stand in the bag of the same message. What a client does with them is its
own policy: this says which ones a trust anchor that it has already vouches for, now, and for the first time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.cmc_controls import Control, PublishTrustAnchors
from estcore.cms_signature import Digest, digest_of
from estcore.errors import EstError
from estcore.trust import issued

MAX_AGE: Final = timedelta(minutes=15)
"""How far the signing time may be from the client's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """New anchors, and the number that a later publication must exceed."""

    sequence_number: int
    anchors: tuple[x509.Certificate, ...]


def publish(certificates: Iterable[x509.Certificate], *, now: datetime) -> PublishTrustAnchors:
    """The control that lists the self-signed ones among a CA's certificates; its number is the time in seconds, which only grows."""
    roots = [certificate for certificate in certificates if issued(certificate, certificate)]
    hashes = tuple(sha256(root.public_bytes(Encoding.DER)).digest() for root in roots)
    return PublishTrustAnchors(int(now.timestamp()), Digest.SHA256.identifier, hashes)


def published(
    values: Sequence[Control],
    bag: Sequence[x509.Certificate],
    *,
    signer: x509.Certificate | None,
    signing_time: datetime | None,
    trusted: Sequence[x509.Certificate],
    last_sequence_number: int,
    now: datetime,
) -> Published | None:
    """The anchors that a verified message publishes; None where it publishes none that count.

    `signer` is whose signature was verified: it must be one of `trusted`, the anchors that the client has, for nobody else may give it
    others. `signing_time` must be near `now` and the number above the last one, so an old message says nothing. Certificates of the bag
    that are not listed, and hashes without a certificate, are ignored.
    """
    control = next((value for value in values if isinstance(value, PublishTrustAnchors)), None)
    if control is None or signer is None or signer not in trusted:
        return None
    if signing_time is None or abs(now - signing_time) > MAX_AGE or control.sequence_number <= last_sequence_number:
        return None
    try:
        digest = digest_of(control.hash_algorithm_der)
    except EstError:
        return None
    listed = frozenset(control.anchor_hashes)
    anchors = tuple(each for each in bag if digest.of(each.public_bytes(Encoding.DER)) in listed and issued(each, each))
    return Published(sequence_number=control.sequence_number, anchors=anchors) if anchors else None
