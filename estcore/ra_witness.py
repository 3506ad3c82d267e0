"""RA witness: for which certification requests a registration authority says that it saw the proof-of-possession.

RFC 5272 section 6.8 (lraPOPWitness). Whether the signer of that layer may say so is a fact that the caller knows; where it may not, the
message fails and no challenge is started.

A BodyPartPath begins at the outermost PKIData.
"""

from collections.abc import Collection
from typing import Final

from estcore.cmc_status import BodyPartPath
from estcore.der import SEQUENCE, integer, tlv
from estcore.der_reader import only
from estcore.errors import CmcFailed, CmcFailInfo

MAX_BODY_IDS: Final = 100


def parse_pop_witness(value_der: bytes) -> tuple[int, tuple[int, ...]]:
    """Parse the DER value of an id-cmc-lraPOPWitness control: pkiDataBodyid and bodyIds. Raises MalformedBody, CmcFailed (badRequest)."""
    fields = only(value_der, what="the lraPOPWitness")
    pki_data = fields.integer()
    ids = fields.inside(SEQUENCE)
    fields.close()
    body_ids: list[int] = []
    while not ids.at_end and len(body_ids) < MAX_BODY_IDS:
        body_ids.append(ids.integer())
    if not ids.at_end or not body_ids or not all(0 < each <= 0xFFFFFFFF for each in body_ids) or not 0 <= pki_data <= 0xFFFFFFFF:
        raise CmcFailed(f"the lraPOPWitness does not name 1 to {MAX_BODY_IDS} requests", fail_info=CmcFailInfo.BAD_REQUEST)
    return pki_data, tuple(body_ids)


def witnessed(
    value_der: bytes, *, layer: BodyPartPath, body_part_id: int, requests: Collection[BodyPartPath], authorized: bool
) -> frozenset[BodyPartPath]:
    """The requests whose proof-of-possession a registration authority asserts by this lraPOPWitness.

    `layer` is the path of the PKIData that the control stands in, empty for the outermost, `body_part_id` the control's own; `requests` are
    all the certification requests of the message. `authorized` says whether the signer of that layer is a registration authority of
    this CA. Raises CmcFailed: popFailed where it is not, about the requests named, and badRequest for a request that is not there.
    """
    pki_data, body_ids = parse_pop_witness(value_der)
    inner = () if pki_data == 0 else (pki_data,)
    named = frozenset((*layer, *inner, each) for each in body_ids)
    if not named <= frozenset(requests):
        raise CmcFailed(
            "the lraPOPWitness names a certification request that is not there",
            fail_info=CmcFailInfo.BAD_REQUEST,
            body_parts=[(*layer, body_part_id)],
        )
    if not authorized:
        raise CmcFailed(
            "the lraPOPWitness is not from a registration authority of this CA (RFC 5272 section 6.8)",
            fail_info=CmcFailInfo.POP_FAILED,
            body_parts=sorted(named),
        )
    return named


def build_pop_witness(*body_ids: int, pki_data: int = 0) -> bytes:
    """The DER value of an id-cmc-lraPOPWitness control for requests of the current PKIData, or of the nested message `pki_data`."""
    return tlv(SEQUENCE, integer(pki_data) + tlv(SEQUENCE, b"".join(map(integer, body_ids))))
