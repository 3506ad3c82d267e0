"""RFC 5272 section 6.8: only a registration authority vouches for proof-of-possession, and only for requests that are there."""

import pytest
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc6402

from estcore import ra_witness
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from tests import pki

REQUESTS = [(1,), (2,), (5, 1), (5, 7, 1)]


def witnessed(*body_ids: int, pki_data: int = 0, layer: tuple[int, ...] = (), authorized: bool = True) -> frozenset[tuple[int, ...]]:
    value = ra_witness.build_pop_witness(*body_ids, pki_data=pki_data)
    return ra_witness.witnessed(value, layer=layer, body_part_id=9, requests=REQUESTS, authorized=authorized)


@pytest.mark.spec("EST-CMC-26", "EST-POP-16")
def test_the_asn1_module_reads_what_is_built() -> None:
    value = ra_witness.build_pop_witness(1, 4_294_967_295, pki_data=5)
    decoded, rest = decode(value, asn1Spec=rfc6402.LraPopWitness())
    assert (int(decoded["pkiDataBodyid"]), [int(each) for each in decoded["bodyIds"]], rest) == (5, [1, 4_294_967_295], b"")
    assert encode(decoded) == value
    assert ra_witness.parse_pop_witness(value) == (5, (1, 4_294_967_295))


@pytest.mark.spec("EST-CMC-26", "EST-POP-16")
def test_it_names_requests_of_its_own_pki_data_by_0_and_of_a_nested_one_by_its_body_part() -> None:
    assert witnessed(1) == {(1,)}
    assert witnessed(1, 2) == {(1,), (2,)}
    assert witnessed(1, pki_data=5) == {(5, 1)}
    assert witnessed(1, layer=(5,)) == {(5, 1)}
    assert witnessed(1, layer=(5,), pki_data=7) == {(5, 7, 1)}


@pytest.mark.spec("EST-CMC-26", "EST-CLI-05", "THREAT-17")
def test_from_anybody_but_a_registration_authority_it_is_pop_failed_about_the_requests() -> None:
    with pytest.raises(CmcFailed) as raised:
        witnessed(2, 1, authorized=False)
    assert raised.value.fail_info is CmcFailInfo.POP_FAILED
    assert raised.value.body_parts == ((1,), (2,))


@pytest.mark.spec("EST-CMC-26", "THREAT-17")
@pytest.mark.parametrize("authorized", [True, False])
@pytest.mark.parametrize(
    ("body_ids", "pki_data", "layer"), [((3,), 0, ()), ((1, 3), 0, ()), ((2,), 5, ()), ((1,), 6, ()), ((2,), 0, (5,)), ((7,), 5, ())]
)
def test_a_request_that_is_not_there_is_a_bad_request_about_the_control(
    body_ids: tuple[int, ...], pki_data: int, layer: tuple[int, ...], authorized: bool
) -> None:
    with pytest.raises(CmcFailed) as raised:
        witnessed(*body_ids, pki_data=pki_data, layer=layer, authorized=authorized)
    assert raised.value.fail_info is CmcFailInfo.BAD_REQUEST
    assert raised.value.body_parts == ((*layer, 9),)


@pytest.mark.spec("THREAT-08", "THREAT-17")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence()), id="no request"),
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x02\x01\x00")), id="the message itself"),
        pytest.param(pki.sequence(b"\x02\x01\xff", pki.sequence(b"\x02\x01\x01")), id="a negative message"),
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x02\x01\x01" * 101)), id="101 requests"),
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x02\x05\x01\x00\x00\x00\x00")), id="2^32"),
        pytest.param(pki.sequence(b"\x02\x01\x00"), id="cut off"),
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x02\x01\x01"), b"\x05\x00"), id="something behind"),
        pytest.param(pki.sequence(b"\x02\x01\x00", pki.sequence(b"\x04\x01\x01")), id="an OCTET STRING for an id"),
    ],
)
def test_values_of_no_sense_are_refused(value: bytes) -> None:
    with pytest.raises((CmcFailed, MalformedBody)):
        ra_witness.witnessed(value, layer=(), body_part_id=9, requests=REQUESTS, authorized=True)
