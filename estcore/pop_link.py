"""POP link: that a certification request was signed by whoever knows the secret of the Full PKI Request that it is in.

RFC 5272 section 6.3.1. The control popLinkRandom holds a random R; each certification request signs the MAC of R under the secret, as an
attribute of PKCS#10 or a control of CRMF.
"""

from collections.abc import Mapping
from typing import Final

from estcore.certification_request import CertificationRequest
from estcore.der import SEQUENCE, tlv
from estcore.der_reader import OCTET_STRING, only
from estcore.errors import CmcFailed, CmcFailInfo
from estcore.proof_algorithms import HMAC_SHA1_DER, HMAC_SHA256_DER, SHA1_DER, SHA256_DER, key_from_secret, mac, same

RANDOM_OCTETS: Final = 64
"""RFC 5272 section 6.3.1.1 step 1: at least 512 bits."""
MIN_RANDOM_OCTETS: Final = 16
"""An R that could be met twice would let a request be carried into another message."""
MAX_RANDOM_OCTETS: Final = 1024

POP_LINK_WITNESS_OID: Final = "1.3.6.1.5.5.7.7.23"
POP_LINK_WITNESS_V2_OID: Final = "1.3.6.1.5.5.7.7.33"


def verify_all(
    requests: Mapping[tuple[int, ...], CertificationRequest], *, secret: str, random: bytes | None, accept_sha1: bool = False
) -> None:
    """Check the witness of every certification request; the keys are their BodyPartPaths, for the bodyList of a failure.

    `random` is the value of popLinkRandom, None where the message has none. Raises CmcFailed (popFailed, badAlg).
    """
    for path, request in requests.items():
        try:
            verify(request, secret=secret, random=random, accept_sha1=accept_sha1)
        except CmcFailed as failed:
            raise failed.about(path) from failed


def verify(request: CertificationRequest, *, secret: str, random: bytes | None, accept_sha1: bool = False) -> None:
    """Check the popLinkWitnessV2 of a certification request, and its popLinkWitness where it has that one too.

    Raises CmcFailed: popFailed for a witness that is missing or of another secret or R; badAlg; MalformedBody.
    """
    if random is None or not MIN_RANDOM_OCTETS <= len(random) <= MAX_RANDOM_OCTETS:
        raise CmcFailed(
            f"there is no popLinkRandom of {MIN_RANDOM_OCTETS} to {MAX_RANDOM_OCTETS} octets; {RANDOM_OCTETS} are advised"
            " (RFC 5272 section 6.3.1)",
            fail_info=CmcFailInfo.POP_FAILED,
        )
    witnesses: list[tuple[bytes, bytes, bytes]] = []
    if request.pop_link_witness_v2_der is not None:
        witnesses.append(_parse_v2(request.pop_link_witness_v2_der))
    if request.pop_link_witness is not None:
        witnesses.append((SHA1_DER, HMAC_SHA1_DER, request.pop_link_witness))
    if not witnesses:
        raise CmcFailed(
            "the certification request is not linked to the identity: it has no popLinkWitnessV2 (RFC 5272 section 6.3.1)",
            fail_info=CmcFailInfo.POP_FAILED,
        )
    for key_algorithm, mac_algorithm, witness in witnesses:
        key = key_from_secret(key_algorithm, secret.encode(), accept_sha1=accept_sha1, what="the popLinkWitness")
        if not same(witness, mac(mac_algorithm, random, key=key, accept_sha1=accept_sha1, what="the popLinkWitness")):
            raise CmcFailed(
                "the popLinkWitness is not that of this secret and popLinkRandom (RFC 5272 section 6.3.1)", fail_info=CmcFailInfo.POP_FAILED
            )


def _parse_v2(value_der: bytes) -> tuple[bytes, bytes, bytes]:
    """keyGenAlgorithm, macAlgorithm, witness."""
    fields = only(value_der, what="the popLinkWitnessV2")
    value = fields.whole(SEQUENCE), fields.whole(SEQUENCE), fields.octets()
    fields.close()
    return value


def build_v2(*, secret: str, random: bytes) -> bytes:
    """The DER PopLinkWitnessV2 of a secret and R, with SHA-256 and HMAC-SHA256: one value of the attribute or the control."""
    key = key_from_secret(SHA256_DER, secret.encode(), accept_sha1=False, what="")
    witness = mac(HMAC_SHA256_DER, random, key=key, accept_sha1=False, what="")
    return tlv(SEQUENCE, SHA256_DER + HMAC_SHA256_DER + tlv(OCTET_STRING, witness))
