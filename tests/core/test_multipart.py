"""RFC 2046 section 5.1.1 and RFC 8951 section 3: the multipart/mixed of /serverkeygen, both ways."""

from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estcore import certs_only, key_package, multipart, transfer
from estcore.errors import EstError, MalformedBody
from estcore.multipart import Part
from tests.core import vectors

KEY = Part(content_type="application/pkcs8", der=b"\x30\x03key" * 100)
CERTIFICATE = Part(content_type="application/pkcs7-mime; smime-type=certs-only", der=b"\x30\x04cert" * 100)
KEY_B64, CERTIFICATE_B64 = (transfer.encode_body(part.der, wrap=True) for part in (KEY, CERTIFICATE))
PUBLISHED = "multipart/mixed ; boundary=estServerExampleBoundary"


def published() -> bytes:
    text = (Path(__file__).parent.parent / "vectors" / "rfc7030-a4-serverkeygen-multipart.txt").read_bytes()
    return text.split(b"\n", 1)[1]


def body(
    *parts: bytes, boundary: bytes = b"b", preamble: bytes = b"", close: bytes = b"--", epilogue: bytes = b"", end: bytes = b"\r\n"
) -> bytes:
    """A multipart with these parts, each headers, an empty line and content."""
    delimited = b"".join(b"--" + boundary + end + part + end for part in parts)
    return preamble + delimited + b"--" + boundary + close + end + epilogue


def part(content_type: bytes = b"application/pkcs8", content: bytes = KEY_B64, *headers: bytes, end: bytes = b"\r\n") -> bytes:
    return end.join((b"Content-Type: " + content_type, *headers, b"", content))


@pytest.mark.spec("EST-SKG-09", "EST-ENC-04", "EST-ENC-05")
def test_what_is_written_has_the_parts_in_order_base64_lines_and_crlf() -> None:
    content_type, written = multipart.encode([KEY, CERTIFICATE])
    assert content_type.startswith("multipart/mixed; boundary=")
    assert b"\n" not in written.replace(b"\r\n", b"")
    assert max(map(len, written.split(b"\r\n"))) <= 76
    whole, *parts = message_from_bytes(f"Content-Type: {content_type}\n\n".encode() + written).walk()
    assert whole.is_multipart()
    for read, wanted in zip(parts, (KEY, CERTIFICATE), strict=True):
        assert read["Content-Type"] == wanted.content_type
        assert read["Content-Transfer-Encoding"] == "base64"
        assert read.get_payload(decode=True) == wanted.der


@pytest.mark.spec("EST-SKG-09")
def test_what_is_written_reads_back() -> None:
    assert multipart.decode(*multipart.encode([KEY, CERTIFICATE])) == (KEY, CERTIFICATE)
    assert multipart.decode(*multipart.encode([CERTIFICATE, KEY])) == (CERTIFICATE, KEY)


@pytest.mark.spec("EST-SKG-16", "EST-SKG-10", "EST-SKG-15")
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_published_answer_reads_as_its_two_parts(line_end: bytes) -> None:
    key, certificate = multipart.decode(PUBLISHED, published().replace(b"\n", line_end))
    assert key.content_type == "application/pkcs8"
    assert key.der == transfer.decode_body(vectors.body("rfc7030-a4-serverkeygen-pkcs8-part"))
    assert certificate.content_type == "application/pkcs7-mime; smime-type=certs-only"
    assert certificate.der == transfer.decode_body(vectors.body("rfc7030-a4-serverkeygen-cert-part"))
    (issued,) = certs_only.decode(certificate.der)
    assert key_package.load_private_key(key.der).public_key() == issued.public_key()


GOOD = {
    "CRLF": ("multipart/mixed; boundary=b", body(part())),
    "LF": ("multipart/mixed; boundary=b", body(part(end=b"\n"), end=b"\n")),
    "mixed line ends": ("multipart/mixed; boundary=b", body(part(end=b"\n"))),
    "a quoted boundary": ('multipart/mixed; boundary="b"', body(part())),
    "a boundary with a space and colon": ('multipart/mixed; boundary="a b:c"', body(part(), boundary=b"a b:c")),
    "a boundary with an escaped letter": ('multipart/mixed; boundary="\\b"', body(part())),
    "an unquoted boundary that is no token": ("multipart/mixed; boundary=a/b=c", body(part(), boundary=b"a/b=c")),
    "70 characters": (f"multipart/mixed; boundary={'x' * 70}", body(part(), boundary=b"x" * 70)),
    "space before the semicolon": ("multipart/mixed ; boundary=b", body(part())),
    "space around the equals sign": ("multipart/mixed; boundary = b", body(part())),
    "upper case": ("Multipart/MIXED; BOUNDARY=b", body(part())),
    "another parameter": ("multipart/mixed; charset=us-ascii; boundary=b;", body(part())),
    "preamble and epilogue": ("multipart/mixed; boundary=b", body(part(), preamble=b"read\r\nme\r\n", epilogue=b"--b\r\nnot me")),
    "white space after the boundary": ("multipart/mixed; boundary=b", body(part()).replace(b"--b\r\n", b"--b \t\r\n")),
    "no line end at the end": ("multipart/mixed; boundary=b", body(part()).removesuffix(b"\r\n")),
    "no Content-Transfer-Encoding": ("multipart/mixed; boundary=b", body(part())),
    "Content-Transfer-Encoding: binary": (
        "multipart/mixed; boundary=b",
        body(part(b"application/pkcs8", KEY_B64, b"Content-Transfer-Encoding: binary")),
    ),
    "base64 in one line": ("multipart/mixed; boundary=b", body(part(content=transfer.encode_body(KEY.der)))),
    "empty lines around the base64": ("multipart/mixed; boundary=b", body(part(content=b"\r\n" + KEY_B64 + b"\r\n\r\n"))),
    "a header in two lines": ("multipart/mixed; boundary=b", body(part(b"application/pkcs8", KEY_B64, b"X-Note: a", b" b"))),
    "a header in lower case": ("multipart/mixed; boundary=b", body(part().replace(b"Content-Type", b"content-type"))),
    "a longer boundary within": ("multipart/mixed; boundary=b", body(part(), preamble=b"--bb\r\n--b-\r\n")),
}


@pytest.mark.spec("EST-SKG-16", "EST-ENC-02", "EST-ENC-03")
@pytest.mark.parametrize(("content_type", "octets"), GOOD.values(), ids=GOOD)
def test_what_the_rfcs_permit_is_read(content_type: str, octets: bytes) -> None:
    assert multipart.decode(content_type, octets) == (KEY,)


BAD = {
    "another type": ("multipart/related; boundary=b", body(part()), "is not multipart/mixed"),
    "no boundary": ("multipart/mixed", body(part()), "no boundary"),
    "an empty boundary": ('multipart/mixed; boundary=""', body(part(), boundary=b""), "no boundary"),
    "71 characters": (f"multipart/mixed; boundary={'x' * 71}", body(part(), boundary=b"x" * 71), "no boundary"),
    "a boundary that ends in a space": ('multipart/mixed; boundary="b "', body(part()), "no boundary"),
    "a boundary with an odd character": ('multipart/mixed; boundary="b<"', body(part(), boundary=b"b<"), "no boundary"),
    "two boundaries": ("multipart/mixed; boundary=b; boundary=c", body(part()), "twice"),
    "a quote that does not end": ('multipart/mixed; boundary="b', body(part()), "cannot be read"),
    "no parameter at all": ("multipart/mixed; b", body(part()), "cannot be read"),
    "no closing boundary": ("multipart/mixed; boundary=b", body(part(), close=b""), "cut off"),
    "another boundary": ("multipart/mixed; boundary=c", body(part()), "cut off"),
    "an empty body": ("multipart/mixed; boundary=b", b"", "cut off"),
    "only a closing boundary": ("multipart/mixed; boundary=b", b"--b--\r\n", "cut off"),
    "too many parts": ("multipart/mixed; boundary=b", body(*[part()] * 9), "more than 8"),
    "a part without an empty line": ("multipart/mixed; boundary=b", body(b"Content-Type: application/pkcs8"), "no empty line"),
    "an empty part": ("multipart/mixed; boundary=b", body(b""), "no Content-Type"),
    "a part without Content-Type": ("multipart/mixed; boundary=b", body(b"\r\n" + KEY_B64), "no Content-Type"),
    "Content-Type twice": (
        "multipart/mixed; boundary=b",
        body(part(b"application/pkcs8", KEY_B64, b"content-type: text/plain")),
        "twice",
    ),
    "a header without a colon": ("multipart/mixed; boundary=b", body(part(b"application/pkcs8", KEY_B64, b"nonsense")), "cannot be read"),
    "a header with a control character": ("multipart/mixed; boundary=b", body(part(b"a\x00b")), "cannot be read"),
    "a header that goes on at the start": ("multipart/mixed; boundary=b", body(b" x\r\n\r\n" + KEY_B64), "cannot be read"),
    "17 headers": (
        "multipart/mixed; boundary=b",
        body(part(b"application/pkcs8", KEY_B64, *(b"X-%d: a" % number for number in range(16)))),
        "too many headers",
    ),
    "a header of 1025 octets": ("multipart/mixed; boundary=b", body(part(b"a" * 1025)), "too long"),
    "PEM": ("multipart/mixed; boundary=b", body(part(content=b"-----BEGIN PRIVATE KEY-----")), "PEM"),
    "binary": ("multipart/mixed; boundary=b", body(part(content=KEY.der)), "base64|binary"),
    "nothing": ("multipart/mixed; boundary=b", body(part(content=b"")), "empty"),
    "too large": ("multipart/mixed; boundary=b", body(part(), preamble=bytes(256 * 1024)), "more than 262144"),
}


@pytest.mark.spec("EST-SKG-16")
@pytest.mark.parametrize(("content_type", "octets", "why"), BAD.values(), ids=BAD)
def test_anything_else_is_refused_with_a_reason(content_type: str, octets: bytes, why: str) -> None:
    with pytest.raises(MalformedBody, match=why):
        multipart.decode(content_type, octets)


def test_an_answer_cut_off_anywhere_is_refused() -> None:
    content_type, octets = multipart.encode([KEY, CERTIFICATE])
    for length in range(len(octets) - 2):
        with pytest.raises(MalformedBody):
            multipart.decode(content_type, octets[:length])


@given(st.text(max_size=60), st.binary(max_size=200))
def test_nothing_but_our_error_escapes(parameters: str, octets: bytes) -> None:
    for content_type in (f"multipart/mixed; boundary=b{parameters}", parameters, "multipart/mixed; boundary=b"):
        with suppress(EstError):
            multipart.decode(content_type, b"--b\r\n" + octets + b"\r\n--b--")


@given(st.lists(st.tuples(st.sampled_from(["application/pkcs8", "a/b; c=d"]), st.binary(min_size=1, max_size=200)), min_size=1, max_size=8))
def test_any_octets_travel(contents: list[tuple[str, bytes]]) -> None:
    parts = tuple(Part(content_type=content_type, der=der) for content_type, der in contents)
    assert multipart.decode(*multipart.encode(parts)) == parts


@pytest.mark.spec("THREAT-18")
def test_a_part_shows_nothing_of_its_octets() -> None:
    assert repr(KEY) == "Part(content_type='application/pkcs8')"
