"""X.690: what the strict walk lets through, and what it does not."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estcore import der, transfer
from estcore.errors import EstError, MalformedBody
from tests import pki
from tests.core import vectors

GOOD = {
    "NULL": "0500",
    "BOOLEAN TRUE": "0101ff",
    "BOOLEAN FALSE": "010100",
    "INTEGER 0": "020100",
    "INTEGER -1": "0201ff",
    "INTEGER 128": "02020080",
    "INTEGER -128": "020180",
    "INTEGER -129": "0202ff7f",
    "empty BIT STRING": "030100",
    "BIT STRING of 7 bits": "03020180",
    "OBJECT IDENTIFIER": "06092a864886f70d010702",
    "empty OCTET STRING": "0400",
    "empty SEQUENCE": "3000",
    "SET in SEQUENCE": "30023100",
    "implicit context tag, opaque": "8003010203",
    "length 128 in one octet": "048180" + "00" * 128,
    "length 256 in two octets": "04820100" + "00" * 256,
}

BAD = {
    "nothing": ("", "empty"),
    "identifier only": ("30", "cut off"),
    "content cut off": ("300305", "cut off"),
    "length cut off": ("3082", "length"),
    "trailing octet": ("050000", "followed by 1 octets"),
    "two values": ("05000500", "followed by 2 octets"),
    "indefinite length": ("308005000000", "indefinite"),
    "indefinite length inside": ("3004308000 00".replace(" ", ""), "indefinite"),
    "long form of a short length": ("04810101", "not minimal"),
    "length with a leading zero": ("04820080" + "00" * 128, "not minimal"),
    "length of five octets": ("048501000000000", "length"),
    "reserved length octet FF": ("04ff" + "00" * 8, "length"),
    "member longer than its SEQUENCE": ("3003040500", "cut off"),
    "tag number above 30": ("1f8100", "tag number"),
    "end-of-contents": ("0000", "0x00"),
    "string in parts": ("2404040200 00".replace(" ", ""), "in parts"),
    "primitive SEQUENCE": ("1000", "0x10"),
    "primitive SET": ("1100", "0x11"),
    "BOOLEAN 01": ("010101", "0x01"),
    "BOOLEAN without content": ("0100", "0x01"),
    "INTEGER without content": ("0200", "0x02"),
    "INTEGER with a leading zero": ("0202007f", "0x02"),
    "INTEGER with leading ones": ("0202ff80", "0x02"),
    "ENUMERATED with a leading zero": ("0a020001", "0x0a"),
    "NULL with content": ("050100", "0x05"),
    "BIT STRING without content": ("0300", "0x03"),
    "BIT STRING of 8 unused bits": ("030208ff", "0x03"),
    "BIT STRING with unused bits set": ("03020181", "0x03"),
    "empty BIT STRING with unused bits": ("030101", "0x03"),
    "OBJECT IDENTIFIER without content": ("0600", "0x06"),
    "OBJECT IDENTIFIER that does not end": ("06022a86", "0x06"),
    "OBJECT IDENTIFIER with a leading zero digit": ("06032a8001", "0x06"),
    "OBJECT IDENTIFIER that begins with a zero digit": ("06028001", "0x06"),
}


@pytest.mark.parametrize("octets", GOOD.values(), ids=GOOD)
def test_der_passes(octets: str) -> None:
    der.check(bytes.fromhex(octets), what="it")


@pytest.mark.spec("EST-ENC-06", "EST-ENC-08", "THREAT-08")
@pytest.mark.parametrize(("octets", "reason"), BAD.values(), ids=BAD)
def test_what_is_not_der_is_refused_with_the_reason(octets: str, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason):
        der.check(bytes.fromhex(octets.ljust(len(octets) + len(octets) % 2, "0")), what="it")


@pytest.mark.spec("THREAT-08")
def test_depth_is_bounded_and_the_bound_is_exact() -> None:
    def nested(depth: int) -> bytes:
        value = b""
        for _ in range(depth):
            value = pki.sequence(value)
        return value

    der.check(nested(der.MAX_DEPTH), what="it")
    with pytest.raises(MalformedBody, match="nested deeper than 32"):
        der.check(nested(der.MAX_DEPTH + 1), what="it")
    with pytest.raises(MalformedBody, match="nested deeper than 32"):
        der.check(nested(5000), what="it")


@pytest.mark.spec("THREAT-08")
def test_size_is_bounded_and_the_bound_is_exact() -> None:
    der.check(pki.tlv(0x04, bytes(96)), what="it", max_octets=98)
    with pytest.raises(MalformedBody, match="98 octets, more than 97"):
        der.check(pki.tlv(0x04, bytes(96)), what="it", max_octets=97)


@pytest.mark.parametrize("name", vectors.names())
def test_published_values_are_der(name: str) -> None:
    der.check(transfer.decode_body(vectors.body(name)), what=name)


@pytest.mark.parametrize("dotted", ["1.2.840.113549.1.1.11", "2.5.4.3", "2.999.3", "0.9.2342.19200300.100.1.25", "1.3.6.1.5.5.7.3.2"])
def test_object_identifiers_are_encoded_as_the_test_pki_does(dotted: str) -> None:
    assert der.object_identifier(dotted) == pki.oid(dotted)


@pytest.mark.spec("THREAT-08")
@given(st.binary(max_size=64))
def test_junk_raises_nothing_but_the_error_tree(octets: bytes) -> None:
    with suppress(EstError):
        der.check(octets, what="it")
