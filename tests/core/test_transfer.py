"""RFC 8951 section 3: base64 of DER, whatever the white space."""

import base64
import textwrap
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estcore import transfer
from estcore.errors import EstError, MalformedBody
from tests.core import vectors

DER = bytes(range(256))
TEXT = base64.b64encode(DER)


def wrapped(columns: int, end: bytes) -> bytes:
    return end.join(line.encode() for line in textwrap.wrap(TEXT.decode(), columns)) + end


@pytest.mark.spec("EST-ENC-01", "EST-ENC-03")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(TEXT, id="one line without newline (strongSwan)"),
        pytest.param(TEXT + b"\n", id="one line and LF"),
        pytest.param(wrapped(64, b"\n"), id="64 columns LF (libest, Bouncy Castle)"),
        pytest.param(wrapped(76, b"\n"), id="76 columns LF (globalsign)"),
        pytest.param(wrapped(64, b"\r\n"), id="64 columns CRLF"),
        pytest.param(b"  \t" + TEXT + b"\r\n\r\n\n", id="leading space, trailing newlines (Cisco)"),
        pytest.param(b" ".join(TEXT[i : i + 1] for i in range(len(TEXT))), id="a space between all characters"),
    ],
)
def test_white_space_is_skipped_anywhere(body: bytes) -> None:
    assert transfer.decode_body(body) == DER


@pytest.mark.spec("EST-ENC-04")
def test_a_body_is_encoded_as_one_line_or_in_lines_of_64_columns() -> None:
    assert transfer.encode_body(DER) == TEXT + b"\n"
    assert transfer.encode_body(DER, wrap=True) == wrapped(64, b"\n")
    assert transfer.encode_body(b"123", wrap=True) == b"MTIz\n"
    assert max(map(len, transfer.encode_body(DER * 20, wrap=True).splitlines())) == 64


@pytest.mark.spec("EST-ENC-06", "EST-ENC-07", "THREAT-08")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n", "PEM"),
        (bytes.fromhex("3082014930 81f1 020100"), "binary DER"),
        (TEXT[:-1], "not base64"),
        (TEXT + b"=", "not base64"),
        (TEXT + TEXT, "not base64"),
        (TEXT.rstrip(b"="), "not base64"),
        (b"_-8=", "holds - or _"),
        (b"M", "not base64"),
        (b"MQ", "not base64"),
        (b"MR==", "bits before the padding"),
        (b"====", "not base64"),
        (b"MT\x00Iz", "not base64"),
        (b"MT\x0bIz", "not base64"),
        ("MTÍz".encode(), "not base64"),
        (b'{"csr": "MTIz"}', "not base64"),
    ],
)
def test_what_is_not_base64_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason) as refused:
        transfer.decode_body(body)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", vectors.names())
def test_published_bodies_decode_and_encode_back(name: str) -> None:
    body = vectors.body(name)
    assert b"".join(transfer.encode_body(transfer.decode_body(body), wrap=True).split()) == b"".join(body.split())


@given(st.binary(max_size=300), st.booleans())
def test_every_value_encodes_and_decodes_back(der: bytes, wrap: bool) -> None:
    if der:
        assert transfer.decode_body(transfer.encode_body(der, wrap=wrap)) == der


@pytest.mark.spec("THREAT-08")
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_junk_raises_nothing_but_the_error_tree(body: bytes) -> None:
    with suppress(EstError):
        transfer.decode_body(body)
