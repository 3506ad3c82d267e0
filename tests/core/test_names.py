"""RFC 5280 sections 4.1.2.4, 4.2.1.6 and 7: what a name may hold, and when two are the same (threats rows 3, 4, 5 and 10)."""

import ipaddress
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from estcore import dns_names, names
from estcore.errors import BadCsr, EstError, MalformedBody
from tests import pki

CN, C, O, OU, SERIAL, DC = "2.5.4.3", "2.5.4.6", "2.5.4.10", "2.5.4.11", "2.5.4.5", "0.9.2342.19200300.100.1.25"  # noqa: E741  # as X.500 writes it
PRINTABLE, UTF8, T61, IA5, UNIVERSAL, BMP = 0x13, 0x0C, 0x14, 0x16, 0x1C, 0x1E


def dn(*rdns: bytes) -> bytes:
    return pki.sequence(*rdns)


# ---- distinguished names


@pytest.mark.spec("THREAT-04")
@pytest.mark.parametrize(
    ("name_der", "expected"),
    [
        (dn(), ""),
        (dn(pki.rdn(CN, b"device-1")), "CN=device-1"),
        (dn(pki.rdn(CN, b"device 1", PRINTABLE)), "CN=device 1"),
        (dn(pki.rdn(C, b"DE", PRINTABLE), pki.rdn(O, "Fabrik Süd".encode()), pki.rdn(CN, b"a")), "CN=a,O=Fabrik Süd,C=DE"),
        (dn(pki.rdn(OU, b"x"), pki.rdn(OU, b"y"), pki.rdn(CN, b"a")), "CN=a,OU=y,OU=x"),
        (dn(pki.rdn(DC, b"example", IA5), pki.rdn(DC, b"a", IA5)), "DC=a,DC=example"),
        (dn(pki.rdn(SERIAL, b"PID:Widget SN:10", PRINTABLE)), "2.5.4.5=PID:Widget SN:10"),
        (dn(pki.rdn(CN, "機器".encode())), "CN=機器"),
        (dn(pki.rdn(CN, b"x" * 64)), "CN=" + "x" * 64),
        (dn(pki.rdn(O, "ü".encode() * 64)), "O=" + "ü" * 64),
    ],
)
def test_a_good_name_is_read(name_der: bytes, expected: str) -> None:
    name = names.parse_name(name_der)
    assert name.rfc4514_string() == expected
    names.check_name(name)


@pytest.mark.spec("THREAT-04")
def test_a_name_is_encoded_in_our_string_types_whatever_it_came_in() -> None:
    """RFC 5280 section 4.1.2.4: text is UTF8String; country and serialNumber are PrintableString, a domainComponent is IA5String."""
    ours = dn(pki.rdn(C, b"DE", PRINTABLE), pki.rdn(CN, b"device 1"), pki.rdn(SERIAL, b"SN:10", PRINTABLE), pki.rdn(DC, b"example", IA5))
    theirs = dn(
        pki.rdn(C, b"DE", PRINTABLE),
        pki.rdn(CN, b"device 1", PRINTABLE),
        pki.rdn(SERIAL, b"SN:10", PRINTABLE),
        pki.rdn(DC, b"example", IA5),
    )
    assert names.parse_name(theirs).public_bytes() == names.parse_name(ours).public_bytes() == ours


BAD_NAMES = {
    "NUL": (pki.rdn(CN, b"a\x00b"), "cannot be seen"),
    "NUL at the end": (pki.rdn(CN, b"admin\x00"), "cannot be seen"),
    "LF": (pki.rdn(CN, b"a\nCN=b"), "cannot be seen"),
    "CR": (pki.rdn(CN, b"a\rb"), "cannot be seen"),
    "TAB": (pki.rdn(CN, b"a\tb"), "cannot be seen"),
    "ESC": (pki.rdn(CN, b"\x1b[31mred"), "cannot be seen"),
    "DEL": (pki.rdn(CN, b"a\x7f"), "cannot be seen"),
    "C1 control": (pki.rdn(CN, "a\x85b".encode()), "cannot be seen"),
    "right-to-left override": (pki.rdn(CN, "a\u202egnp.exe".encode()), "cannot be seen"),
    "right-to-left isolate": (pki.rdn(CN, "a\u2067b".encode()), "cannot be seen"),
    "zero width space": (pki.rdn(CN, "ad\u200bmin".encode()), "cannot be seen"),
    "zero width joiner": (pki.rdn(CN, "ad\u200dmin".encode()), "cannot be seen"),
    "byte order mark": (pki.rdn(CN, "\ufeffadmin".encode()), "cannot be seen"),
    "soft hyphen": (pki.rdn(CN, "ad\u00admin".encode()), "cannot be seen"),
    "variation selector": (pki.rdn(CN, "admin\ufe0f".encode()), "cannot be seen"),
    "supplementary variation selector": (pki.rdn(CN, "admin\U000e0100".encode()), "cannot be seen"),
    "combining grapheme joiner": (pki.rdn(CN, "ad\u034fmin".encode()), "cannot be seen"),
    "Hangul filler": (pki.rdn(CN, "ad\u3164min".encode()), "cannot be seen"),
    "Mongolian free variation selector": (pki.rdn(CN, "ad\u180bmin".encode()), "cannot be seen"),
    "tag character": (pki.rdn(CN, "admin\U000e0041".encode()), "cannot be seen"),
    "private use": (pki.rdn(CN, "\ue000".encode()), "cannot be seen"),
    "unassigned": (pki.rdn(CN, "\U000e0fff".encode()), "cannot be seen"),
    "no-break space": (pki.rdn(CN, "a\u00a0b".encode()), "cannot be seen"),
    "ideographic space": (pki.rdn(CN, "a\u3000b".encode()), "cannot be seen"),
    "line separator": (pki.rdn(CN, "a\u2028b".encode()), "cannot be seen"),
    "decomposed": (pki.rdn(CN, "a\u0308".encode()), "normalization form C"),
    "combining first": (pki.rdn(CN, "\u0300".encode()), "combining"),
    "surrogate in UTF-8": (pki.rdn(CN, b"\xed\xa0\x80"), "valid UTF8String"),
    "overlong UTF-8": (pki.rdn(CN, b"\xc0\x80"), "valid UTF8String"),
    "Latin-1 in UTF8String": (pki.rdn(CN, b"\xfc"), "valid UTF8String"),
    "leading space": (pki.rdn(CN, b" a"), "begins or ends with a space"),
    "trailing space": (pki.rdn(CN, b"a "), "begins or ends with a space"),
    "only a space": (pki.rdn(CN, b" "), "begins or ends with a space"),
    "empty": (pki.rdn(CN, b""), "0 characters"),
    "65 characters": (pki.rdn(CN, b"x" * 65), "65 characters"),
    "33 characters of two octets": (pki.rdn(CN, "ü".encode() * 33), "66 characters"),
    "a megabyte": (pki.rdn(CN, b"x" * 1_000_000), "1000000 characters"),
    "BMPString": (pki.rdn(CN, "admin".encode("utf-16-be"), BMP), "not a PrintableString or UTF8String"),
    "TeletexString": (pki.rdn(CN, b"admin", T61), "not a PrintableString or UTF8String"),
    "UniversalString": (pki.rdn(CN, "admin".encode("utf-32-be"), UNIVERSAL), "not a PrintableString or UTF8String"),
    "IA5String": (pki.rdn(CN, b"admin", IA5), "not a PrintableString or UTF8String"),
    "OCTET STRING": (pki.rdn(CN, b"admin", 0x04), "not a PrintableString or UTF8String"),
    "SEQUENCE": (pki.rdn(CN, b"", 0x30), "not a PrintableString or UTF8String"),
    "INTEGER": (pki.rdn(CN, b"\x01", 0x02), "not a PrintableString or UTF8String"),
    "asterisk in PrintableString": (pki.rdn(CN, b"*.example", PRINTABLE), "outside its alphabet"),
    "at in PrintableString": (pki.rdn(CN, b"a@b", PRINTABLE), "outside its alphabet"),
    "8 bits in PrintableString": (pki.rdn(CN, b"\xfc", PRINTABLE), "valid PrintableString"),
    "country of three letters": (pki.rdn(C, b"DEU", PRINTABLE), "3 characters"),
    "country in UTF8String": (pki.rdn(C, b"DE"), "countryName is not a PrintableString"),
    "serialNumber in UTF8String": (pki.rdn(SERIAL, b"1"), "serialNumber is not a PrintableString"),
    "two CNs": (pki.rdn(CN, b"a") + pki.rdn(CN, b"b"), "more than one commonName"),
    "the same CN twice": (pki.rdn(CN, b"a") + pki.rdn(CN, b"a"), "more than one commonName"),
    "two countries": (pki.rdn(C, b"DE", PRINTABLE) * 2, "more than one countryName"),
    "an unknown attribute": (pki.rdn("1.2.3.4", b"a"), "not issued"),
    "postalAddress": (pki.rdn("2.5.4.16", b"a"), "not issued"),
    "unstructuredName": (pki.rdn("1.2.840.113549.1.9.2", b"a"), "not issued"),
    "multi-valued RDN": (
        pki.set_of(pki.sequence(pki.oid(CN), pki.tlv(UTF8, b"a")), pki.sequence(pki.oid(O), pki.tlv(UTF8, b"b"))),
        "several attributes",
    ),
}


@pytest.mark.spec("THREAT-04")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_be_read_in_two_ways_is_refused_with_the_reason(name: str) -> None:
    rdns, reason = BAD_NAMES[name]
    with pytest.raises(BadCsr, match=reason) as refused:
        names.parse_name(dn(rdns))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "name_der",
    [
        b"",
        b"\x31\x00",
        dn(b"\x05\x00"),
        dn(pki.set_of()),
        dn(pki.set_of(b"\x05\x00")),
        dn(pki.set_of(pki.sequence())),
        dn(pki.set_of(pki.sequence(pki.oid(CN)))),
        dn(b"\x31\x80\x00\x00"),
    ],
    ids=bytes.hex,
)
def test_what_is_no_name_is_refused(name_der: bytes) -> None:
    with pytest.raises(MalformedBody):
        names.parse_name(name_der)


def test_something_after_a_name_or_a_value_is_refused() -> None:
    with pytest.raises(BadCsr, match="followed by something else"):
        names.parse_name(dn() + b"\x05\x00")
    with pytest.raises(BadCsr, match="more than a type and a value"):
        names.parse_name(dn(pki.set_of(pki.sequence(pki.oid(CN), pki.tlv(UTF8, b"a"), b"\x05\x00"))))


@pytest.mark.spec("THREAT-04")
@given(st.text(max_size=70), st.sampled_from([PRINTABLE, UTF8, IA5]))
def test_any_text_is_read_as_it_is_or_refused(text: str, string_type: int) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    with suppress(EstError):
        name = names.parse_name(dn(pki.rdn(CN, encoded, string_type)))
        assert name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == text
        assert text.isprintable()


# ---- the same name (RFC 5280 section 7.1)


def named(*attributes: tuple[str, bytes] | tuple[str, bytes, int]) -> x509.Name:
    return x509.Name.from_bytes(dn(*(pki.rdn(*attribute) for attribute in attributes)))


SAME = [
    (named((CN, b"Device-1")), named((CN, b"device-1")), "case"),
    (named((CN, b"device", PRINTABLE)), named((CN, b"device", UTF8)), "PrintableString (Go) and UTF8String (OpenSSL)"),
    (named((CN, "Gerät".encode(), UTF8)), named((CN, "GERÄT".encode("utf-16-be"), BMP)), "UTF8String and BMPString"),
    (named((CN, b"a  b")), named((CN, b"a b")), "inner spaces"),
    (named((CN, b" a b ")), named((CN, b"a b")), "outer spaces"),
    (named((CN, "Straße".encode())), named((CN, b"STRASSE")), "case folding of sharp s (RFC 3454 table B.2)"),
    (named((CN, "ﬁ".encode())), named((CN, b"fi")), "a ligature (NFKC)"),
    (named((CN, "a\u0308".encode())), named((CN, "ä".encode())), "composed and decomposed"),
    (named((CN, "ad\u00admin".encode())), named((CN, b"admin")), "a soft hyphen, mapped to nothing (RFC 3454 table B.1)"),
    (named((DC, b"Example", IA5)), named((DC, b"example", IA5)), "domainComponent"),
    (x509.Name([]), x509.Name([]), "both empty"),
]
DIFFERENT = [
    (named((CN, b"a")), named((CN, b"b")), "value"),
    (named((CN, b"a")), named((O, b"a")), "type"),
    (named((CN, b"a")), x509.Name([]), "empty"),
    (named((CN, b"a")), named((CN, b"a"), (O, b"b")), "one more RDN"),
    (named((O, b"b"), (CN, b"a")), named((CN, b"a"), (O, b"b")), "order of RDNs"),
    (named((OU, b"a"), (OU, b"b")), named((OU, b"b"), (OU, b"a")), "order of equal types"),
    (named((CN, b"ab")), named((CN, b"a b")), "a space"),
    (named((CN, b"admin")), named((CN, "аdmin".encode())), "a Cyrillic a"),  # noqa: RUF001  # the homoglyph is the point
    (named((CN, b"a")), named((CN, b"a\x00b")), "what follows NUL"),
    (named((CN, b"1")), named((CN, "²".encode())), "digits"),
]


@pytest.mark.spec("THREAT-10")
@pytest.mark.parametrize(("a", "b", "_why"), SAME, ids=[row[2] for row in SAME])
def test_names_are_the_same_whatever_their_case_spaces_and_string_types(a: x509.Name, b: x509.Name, _why: str) -> None:
    assert names.same_name(a, b)
    assert names.same_name(b, a)


@pytest.mark.spec("THREAT-10")
@pytest.mark.parametrize(("a", "b", "_why"), DIFFERENT, ids=[row[2] for row in DIFFERENT])
def test_near_names_are_different(a: x509.Name, b: x509.Name, _why: str) -> None:
    assert not names.same_name(a, b)
    assert not names.same_name(b, a)


def test_an_rdn_of_several_attributes_is_a_set() -> None:
    a, b = x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "b")
    assert names.same_name(x509.Name([x509.RelativeDistinguishedName([a, b])]), x509.Name([x509.RelativeDistinguishedName([b, a])]))
    assert not names.same_name(x509.Name([x509.RelativeDistinguishedName([a, b])]), x509.Name([a, b]))


DNS, URI, EMAIL, IP = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress


def ip(text: str) -> x509.IPAddress:
    return IP(ipaddress.ip_address(text))


@pytest.mark.spec("THREAT-10")
@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([], [], True),
        ([DNS("a.example"), DNS("b.example")], [DNS("b.example"), DNS("A.EXAMPLE")], True),
        ([DNS("a.example")], [DNS("a.example"), DNS("a.example")], True),
        ([DNS("a.example")], [DNS("a.example"), DNS("b.example")], False),
        ([DNS("a.example"), DNS("b.example")], [DNS("a.example")], False),
        ([DNS("a.example")], [], False),
        ([DNS("10.0.0.1")], [ip("10.0.0.1")], False),
        ([ip("10.0.0.1")], [ip("10.0.0.1")], True),
        ([ip("10.0.0.1")], [ip("::ffff:10.0.0.1")], False),
        ([EMAIL("a@Example.org")], [EMAIL("a@example.org")], True),
        ([EMAIL("A@example.org")], [EMAIL("a@example.org")], False),
        ([URI("SPIFFE://Td/ns/a")], [URI("spiffe://td/ns/a")], True),
        ([URI("spiffe://td/ns/A")], [URI("spiffe://td/ns/a")], False),
        ([URI("urn:Dev:a")], [URI("URN:Dev:a")], True),
        ([URI("urn:dev:a")], [URI("urn:Dev:a")], False),
        ([URI("https://H/p?Q")], [URI("https://h/p?Q")], True),
        ([DNS("a.example")], [URI("a.example")], False),
        ([x509.DirectoryName(named((CN, b"A")))], [x509.DirectoryName(named((CN, b"a")))], True),
        ([x509.RegisteredID(NameOID.COMMON_NAME)], [x509.RegisteredID(NameOID.COMMON_NAME)], True),
        ([x509.OtherName(NameOID.COMMON_NAME, b"\x05\x00")], [x509.OtherName(NameOID.COMMON_NAME, b"\x04\x00")], False),
    ],
)
def test_general_names_are_compared_as_sets_by_the_rule_of_their_kind(
    a: list[x509.GeneralName], b: list[x509.GeneralName], same: bool
) -> None:
    assert names.same_general_names(a, b) is same
    assert names.same_general_names(b, a) is same


# ---- dNSName


@pytest.mark.spec("THREAT-03")
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a.example", ("a", "example")),
        ("A.Example", ("a", "example")),
        ("*.pool.example", ("*", "pool", "example")),
        ("localhost", ("localhost",)),
        ("svc.ns.svc.cluster.local", ("svc", "ns", "svc", "cluster", "local")),
        ("xn--mnchen-3ya.example", ("xn--mnchen-3ya", "example")),
        ("XN--MNCHEN-3YA.example", ("xn--mnchen-3ya", "example")),
        ("1.a", ("1", "a")),
        ("a--b.example", ("a--b", "example")),
        ("x" * 63 + ".example", ("x" * 63, "example")),
        (".".join(["x" * 49] * 5) + ".abc", (*["x" * 49] * 5, "abc")),
    ],
)
def test_a_dns_name_is_normalised_to_its_labels(name: str, labels: tuple[str, ...]) -> None:
    assert dns_names.dns_labels(name) == labels


@pytest.mark.spec("THREAT-03", "THREAT-05")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "0 characters"),
        (".", "empty label"),
        ("a.", "empty label"),
        ("a.example.", "empty label"),
        (".a.example", "empty label"),
        ("a..example", "empty label"),
        ("*", "whole top-level domain"),
        ("*.com", "whole top-level domain"),
        ("*.*.example.com", "whole leftmost label"),
        ("a.*.example", "whole leftmost label"),
        ("a*.pool.example", "whole leftmost label"),
        ("**.pool.example", "whole leftmost label"),
        ("a_b.example", "other than letters"),
        ("_acme-challenge.example", "other than letters"),
        ("-a.example", "other than letters"),
        ("a-.example", "other than letters"),
        ("a b.example", "other than letters"),
        ("a\x00.example", "other than letters"),
        ("a\n.example", "other than letters"),
        ("a.example/", "other than letters"),
        ("a.example:443", "other than letters"),
        ("a@example", "other than letters"),
        ("münchen.example", "other than letters"),
        ("ａ.example", "other than letters"),  # noqa: RUF001  # a full width letter
        ("a。example", "other than letters"),
        ("\u212a.example", "other than letters"),  # the Kelvin sign, which lower() would make a k
        ("x" * 64 + ".example", "more than 63"),
        (".".join(["x" * 49] * 5) + ".abcd", "254 characters"),
        ("10.0.0.1", "IP address"),
        ("1.2.3", "IP address"),
        ("127.1", "IP address"),
        ("0x7f000001", "IP address"),
        ("0x7f.0.0.0x1", "IP address"),
        ("2130706433", "IP address"),
        ("*.0.0.1", "IP address"),
        ("::1", "other than letters"),
        ("xn--a.example", "A-label"),
        ("xn--.example", "other than letters"),
        ("xn--abc-.example", "other than letters"),
        ("xn--zzzzzzzzzz99999.example", "A-label"),
        ("xn--ls8h.example", "A-label"),  # an emoji
        ("xn--mnchen-3ya1.example", "A-label"),
        ("ab--cd.example", "A-label"),
        ("a." * 127 + "a", "255 characters"),
    ],
)
def test_a_dns_name_that_is_odd_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(BadCsr, match=reason) as refused:
        dns_names.dns_labels(name)
    assert str(refused.value).isprintable()
    assert refused.value.reason == "BadName"


@pytest.mark.spec("THREAT-03")
@given(st.text(max_size=80))
def test_whatever_is_accepted_as_dns_name_is_plain(name: str) -> None:
    with suppress(EstError):
        labels = dns_names.dns_labels(name)
        assert ".".join(labels) == name.lower()
        assert name.isascii()
        assert dns_names.dns_labels(".".join(labels)) == labels


@given(st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyz-", max_size=59))
def test_any_a_label_is_judged_and_never_breaks(rest: str) -> None:
    with suppress(EstError):
        dns_names.dns_labels(f"xn--{rest}.example")


# ---- other subjectAltNames


@pytest.mark.parametrize(
    "name",
    [
        DNS("a.example"),
        DNS("*.pool.example"),
        URI("spiffe://cluster.local/ns/default/sa/web"),
        URI("spiffe://trust_domain-1"),
        URI("https://a.example/path?query#fragment"),
        URI("https://a.example:8443/"),
        URI("https://10.0.0.1/"),
        URI("https://[2001:db8::1]:443/a"),
        URI("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        URI("urn:dev:mac:0024befffe804ff1"),
        URI("https://a.example/%7Ea"),
        ip("192.0.2.1"),
        ip("2001:db8::1"),
        EMAIL("first.last+tag@example.org"),
    ],
    ids=lambda name: str(name.value),
)
def test_a_good_general_name_is_accepted(name: x509.GeneralName) -> None:
    names.check_general_name(name)


def unchecked(kind: type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name], text: str) -> x509.GeneralName:
    return kind._init_without_validation(text)


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (ip("0.0.0.0"), "no address of a host"),  # noqa: S104  # a name, not a socket
        (ip("::"), "no address of a host"),
        (ip("224.0.0.1"), "no address of a host"),
        (ip("ff02::1"), "no address of a host"),
        (ip("255.255.255.255"), "no address of a host"),
        (ip("::ffff:10.0.0.1"), "IPv4 address in IPv6 form"),
        (IP(ipaddress.ip_network("10.0.0.0/8")), "is a range"),
        (IP(ipaddress.ip_network("2001:db8::/32")), "is a range"),
        (URI(""), "not an absolute URI"),
        (URI("spiffe"), "not an absolute URI"),
        (URI("//a.example/x"), "not an absolute URI"),
        (URI("https:"), "not an absolute URI"),
        (URI("https://"), "not an absolute URI"),
        (URI("https://a.example/a b"), "not an absolute URI"),
        (URI("https://a.example/\n"), "not an absolute URI"),
        (URI("https://a.example/%zz"), "not an absolute URI"),
        (URI("https://a.example\\@b.example"), "not an absolute URI"),
        (URI("https://a.example/" + "a" * 2048), "not an absolute URI"),
        (URI("https://user@a.example/"), "user name"),
        (URI("https://user:password@a.example/"), "user name"),
        (URI("https://a.example@b.example/"), "user name"),
        (URI("https://[fe80::1%25eth0]/"), "zone identifier"),
        (URI("https://[fe80::1%eth0]/"), "zone identifier"),
        (URI("https://a%2eexample/"), "zone identifier or an escape"),
        (URI("https://a.example:port/"), "port that is no number"),
        (URI("https://a.example:/"), "port that is no number"),
        (URI("https://a.example:65536/"), "port that is no number"),
        (URI("https://*.pool.example/"), "wildcard host"),
        (URI("https://a_b.example/"), "neither a DNS name"),
        (URI("https://10.0.0.256/"), "neither a DNS name"),
        (URI("https://[::1/"), "neither a DNS name"),
        (URI("https://::1/"), "neither a DNS name"),
        (URI("https://a.example/../b"), "dot segment"),
        (URI("https://a.example/./b"), "dot segment"),
        (URI("spiffe://td/ns/a/../b"), "dot segment"),
        (URI("spiffe://TD/ns/a"), "not a SPIFFE ID"),
        (URI("SPIFFE://td/ns/a"), "not a SPIFFE ID"),
        (URI("spiffe://td:8443/ns/a"), "not a SPIFFE ID"),
        (URI("spiffe://user@td/ns/a"), "not a SPIFFE ID"),
        (URI("spiffe://td/ns/a?b"), "not a SPIFFE ID"),
        (URI("spiffe://td/ns/a#b"), "not a SPIFFE ID"),
        (URI("spiffe://td/ns//a"), "not a SPIFFE ID"),
        (URI("spiffe://td/ns/a/"), "not a SPIFFE ID"),
        (URI("spiffe://td/ns/%61"), "not a SPIFFE ID"),
        (URI("spiffe:///ns/a"), "not a SPIFFE ID"),
        (URI("spiffe:td"), "not a SPIFFE ID"),
        (unchecked(EMAIL, "nobody"), "local-part@domain"),
        (unchecked(EMAIL, "@example.org"), "local-part@domain"),
        (unchecked(EMAIL, "a@"), "0 characters"),
        (unchecked(EMAIL, "a b@example.org"), "local-part@domain"),
        (unchecked(EMAIL, "a@b@example.org"), "local-part@domain"),
        (unchecked(EMAIL, '"a b"@example.org'), "local-part@domain"),
        (unchecked(EMAIL, "A <a@example.org>"), "local-part@domain"),
        (unchecked(EMAIL, "a" * 65 + "@example.org"), "local-part@domain"),
        (unchecked(EMAIL, "a@*.example.org"), "wildcard domain"),
        (unchecked(EMAIL, "a@[10.0.0.1]"), "other than letters|IP address"),
        (unchecked(DNS, "a\x00.example"), "other than letters"),
        (x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.2.2"), pki.sequence()), "holds an otherName of type 1.3.6.1.5.2.2 whose value"),
        (x509.DirectoryName(named((CN, b"a"))), "holds a directoryName"),
        (x509.RegisteredID(NameOID.COMMON_NAME), "holds a registeredID"),
    ],
    ids=lambda value: str(getattr(value, "value", value))[:40],
)
def test_a_general_name_that_is_odd_is_refused_with_the_reason(name: x509.GeneralName, reason: str) -> None:
    with pytest.raises(BadCsr, match=reason) as refused:
        names.check_general_name(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.spec("THREAT-05")
@given(st.text(max_size=60), st.sampled_from([DNS, URI, EMAIL]))
def test_any_general_name_is_judged_and_never_breaks(
    text: str, kind: type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name]
) -> None:
    with suppress(EstError):
        names.check_general_name(unchecked(kind, text))
        assert text.isascii()
        assert text.isprintable()


# ---- for people


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (DNS("a.example"), "DNS:a.example"),
        (URI("spiffe://td/a"), "URI:spiffe://td/a"),
        (ip("10.0.0.1"), "IP:10.0.0.1"),
        (EMAIL("a@example.org"), "email:a@example.org"),
        (x509.DirectoryName(named((O, b"b"), (CN, b"a"))), "DirName:CN=a,O=b"),
        (x509.RegisteredID(NameOID.COMMON_NAME), "RegisteredID:<ObjectIdentifier(oid=2.5.4.3, name=commonName)>"),
        (x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), "otherName:1.2.3"),
        (unchecked(DNS, "a\x1b[31m\r\n"), r"DNS:a\x1b[31m\r\n"),
        (unchecked(DNS, "a" * 300), "DNS:" + "a" * 255 + "…"),
    ],
)
def test_general_names_are_described_on_one_line(name: x509.GeneralName, expected: str) -> None:
    assert names.describe_general_name(name) == expected


@pytest.mark.spec("THREAT-36")
def test_names_are_described_on_one_line_whatever_they_hold() -> None:
    assert names.describe_name(named((O, "Süd".encode()), (CN, b"a"))) == "CN=a,O=Süd"
    assert names.describe_name(named((CN, b"a\nb"))).isprintable()
    assert names.describe_name(named((CN, "a\u202eb".encode()))) == r"CN=a\u202eb"
    assert len(names.describe_name(named(*[(OU, b"x" * 60)] * 10))) == 256
