"""CSRs that ask for names: the policy has `*.devices.example`, `10.1.0.0/16`, `*@devices.example` and a SPIFFE ID of the user's own."""

from estcore import der
from tests import pki
from tests.hostile.case import Case, Cases, csr, prefixed
from tests.pki import rdn, sequence, set_of, tlv

SAN = "2.5.29.17"
EMAIL, DNS, DIRECTORY, URI, IP, REGISTERED = 0x81, 0x82, 0xA4, 0x86, 0x87, 0x88
CN, SERIAL_NUMBER, COUNTRY, ORGANIZATION, UNIT = "2.5.4.3", "2.5.4.5", "2.5.4.6", "2.5.4.10", "2.5.4.11"
PRINTABLE, TELETEX, IA5, UNIVERSAL, BMP, NUMERIC, UTF8 = 0x13, 0x14, 0x16, 0x1C, 0x1E, 0x12, 0x0C


def san(*names: bytes, subject: bytes | None = None) -> bytes:
    return pki.raw_csr(pki.extension_request(pki.extension(SAN, sequence(*names))), subject_der=subject)


def _shown(name: bytes) -> str:
    text = repr(name)[2:-1]
    return text if len(text) <= 60 else f"{text[:40]}… of {len(name)} octets"


def _named(tag: int, names: dict[bytes, tuple[int, str]]) -> Cases:
    return {
        _shown(name): csr(lambda name=name: san(tlv(tag, name)), status, reason)  # type: ignore[misc]  # the loop's value is kept
        for name, (status, reason) in names.items()
    }


BAD = (400, "BadName")
UNREADABLE = (400, "BadCsr")
NOT_DER = (400, "MalformedBody")
NOT_PERMITTED = (403, "NameNotPermitted")
LONG_LABEL = b"a" * 64 + b".devices.example"
LONG_NAME = b".".join([b"a" * 60] * 4) + b".devices.example"

DNS_NAMES = _named(
    DNS,
    {
        # outside the policy
        b"devices.example": NOT_PERMITTED,
        b"evildevices.example": NOT_PERMITTED,
        b"a.evildevices.example": NOT_PERMITTED,
        b"a.b.devices.example": NOT_PERMITTED,
        b"a.devices.example.evil": NOT_PERMITTED,
        b"a.devices.exampl": NOT_PERMITTED,
        b"a.devices-example": NOT_PERMITTED,
        b"example": NOT_PERMITTED,
        b"localhost": NOT_PERMITTED,
        b"*.devices.example": NOT_PERMITTED,
        b"*.example.com": NOT_PERMITTED,
        b"*.evil.devices.example": NOT_PERMITTED,
        b"kubernetes": NOT_PERMITTED,
        b"kubernetes.default": NOT_PERMITTED,
        b"kubernetes.default.svc": NOT_PERMITTED,
        b"kubernetes.default.svc.cluster.local": NOT_PERMITTED,
        b"xn--dvices-bya.example": NOT_PERMITTED,
        # no DNS names, or such as two readers take for different ones
        b"": BAD,
        b".": BAD,
        b"..": BAD,
        b"*": BAD,
        b"*.": BAD,
        b"*.example": BAD,
        b"*.com": BAD,
        b"a.*.example": BAD,
        b"a.*.devices.example": BAD,
        b"*.*.devices.example": BAD,
        b"a*.devices.example": BAD,
        b"*a.devices.example": BAD,
        b"a.devices.*": BAD,
        b"**.devices.example": BAD,
        b"a.devices.example.": BAD,
        b".a.devices.example": BAD,
        b"a..devices.example": BAD,
        b"a_b.devices.example": BAD,
        b"-a.devices.example": BAD,
        b"a-.devices.example": BAD,
        b"xn--.devices.example": BAD,
        b"xn--a.devices.example": BAD,
        b"xn--zzzzzz99999.devices.example": BAD,
        b"ab--cd.devices.example": BAD,
        b"a b.devices.example": BAD,
        b" a.devices.example": BAD,
        b"a.devices.example ": BAD,
        b"a.devices.example\n": BAD,
        b"a\r\n.devices.example": BAD,
        b"a\x00.devices.example": BAD,
        b"a.devices.example\x00.evil.example": BAD,
        b"a\x1b[31m.devices.example": BAD,
        b"a/b.devices.example": BAD,
        b"a@b.devices.example": BAD,
        b"a:443.devices.example": BAD,
        b"a.devices.example:443": BAD,
        b"https://a.devices.example": BAD,
        b"a,b.devices.example": BAD,
        b"DNS:a.devices.example": BAD,
        b"%61.devices.example": BAD,
        b"a.devices.example#": BAD,
        b"a.devices.example?": BAD,
        b"'or'1.devices.example": BAD,
        b"<script>.devices.example": BAD,
        b"${jndi:ldap}.devices.example": BAD,
        b"{user}.devices.example": BAD,
        b"192.0.2.1": BAD,
        b"10.1.0.1": BAD,
        b"127.1": BAD,
        b"1": BAD,
        b"0x7f.0x1": BAD,
        b"a.0x7f": BAD,
        b"::1": BAD,
        b"[::1]": BAD,
        LONG_LABEL: BAD,
        LONG_NAME: BAD,
        b"a." * 200 + b"devices.example": BAD,
        # not ASCII, and not UTF-8
        "é.devices.example".encode(): BAD,
        "e\u0301.devices.example".encode(): BAD,
        "а.devices.example".encode(): BAD,  # noqa: RUF001 - a Cyrillic letter
        "a\u202e.devices.example".encode(): BAD,
        "a\u200b.devices.example".encode(): BAD,
        "ａ.devices.example".encode(): BAD,  # noqa: RUF001 - a full-width letter
        "a。devices.example".encode(): BAD,  # a full stop that IDNA maps to a dot
        b"\xff\xfe.devices.example": UNREADABLE,
        b"\xc0\xae.devices.example": UNREADABLE,
    },
)

URIS = _named(
    URI,
    {
        b"spiffe://factory.example/device/device-2": NOT_PERMITTED,
        b"spiffe://factory.example/device": NOT_PERMITTED,
        b"spiffe://factory.example/device/device-1/more": NOT_PERMITTED,
        b"spiffe://evil.example/device/device-1": NOT_PERMITTED,  # CVE-2021-27098
        b"spiffe://factory.example.evil/device/device-1": NOT_PERMITTED,
        b"https://factory.example/device/device-1": NOT_PERMITTED,
        b"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6": NOT_PERMITTED,
        b"spiffe://factory.example/Device/device-1": NOT_PERMITTED,
        b"": BAD,
        b"spiffe:": BAD,
        b"spiffe://": BAD,
        b"SPIFFE://factory.example/device/device-1": BAD,
        b"spiffe://FACTORY.example/device/device-1": BAD,
        b"spiffe://factory.example/device/device-1/": BAD,
        b"spiffe://factory.example//device/device-1": BAD,
        b"spiffe://factory.example/device/../device/device-1": BAD,
        b"spiffe://factory.example/device/./device-1": BAD,
        b"spiffe://factory.example/device/%64evice-1": BAD,
        b"spiffe://factory.example/device/device-1?x": BAD,
        b"spiffe://factory.example/device/device-1#x": BAD,
        b"spiffe://factory.example:443/device/device-1": BAD,
        b"spiffe://user@factory.example/device/device-1": BAD,
        b"spiffe:/factory.example/device/device-1": BAD,
        b"//factory.example/device/device-1": BAD,
        b"/device/device-1": BAD,
        b"device-1": BAD,
        b"https://user:pass@factory.example/": BAD,
        b"https://[fe80::1%25eth0]/": BAD,  # CVE-2024-45341
        b"https://[::1": BAD,
        b"https://factory.example:99999/": BAD,
        b"https://factory.example:x/": BAD,
        b"https://*.example/": BAD,
        b"https://a..b/": BAD,
        b"https:///x": BAD,
        b"https://factory.example/a b": BAD,
        b"https://factory.example/\x00": BAD,
        b"https://factory.example/\r\nX: y": BAD,
        b"https://factory.example/%zz": BAD,
        b"https://factory.example/%": BAD,
        b"http://[::ffff:127.0.0.1]/": NOT_PERMITTED,
        b"javascript:alert(1)": NOT_PERMITTED,
        b"https://factory.example/" + b"a" * 3000: BAD,
        "https://é.example/".encode(): BAD,
    },
)

IP_ADDRESSES = {
    text: csr(lambda octets=octets: san(tlv(IP, octets)), status, reason)  # type: ignore[misc]  # the loop's value is kept
    for text, octets, (status, reason) in [
        ("10.2.0.1", bytes([10, 2, 0, 1]), NOT_PERMITTED),
        ("127.0.0.1", bytes([127, 0, 0, 1]), NOT_PERMITTED),
        ("169.254.169.254", bytes([169, 254, 169, 254]), NOT_PERMITTED),
        ("192.0.2.1", bytes([192, 0, 2, 1]), NOT_PERMITTED),
        ("::1", bytes(15) + b"\x01", NOT_PERMITTED),
        ("fe80::1", b"\xfe\x80" + bytes(13) + b"\x01", NOT_PERMITTED),
        ("2001:db8:2::1", bytes.fromhex("20010db8000200000000000000000001"), NOT_PERMITTED),
        ("64:ff9b::10.1.0.1", bytes.fromhex("0064ff9b00000000000000000a010001"), NOT_PERMITTED),
        ("0.0.0.0", bytes(4), BAD),  # noqa: S104 - a name, not an address to listen at
        ("255.255.255.255", b"\xff" * 4, BAD),
        ("224.0.0.1", bytes([224, 0, 0, 1]), BAD),
        ("::", bytes(16), BAD),
        ("ff02::1", b"\xff\x02" + bytes(13) + b"\x01", BAD),
        ("::ffff:10.1.0.1", bytes(10) + b"\xff\xff" + bytes([10, 1, 0, 1]), BAD),
        ("a range of IPv4", bytes([10, 1, 0, 0, 255, 255, 0, 0]), BAD),
        ("a range of IPv6", bytes(32), BAD),
        ("no octets", b"", UNREADABLE),
        ("one octet", b"\x0a", UNREADABLE),
        ("three octets", b"\x0a\x01\x00", UNREADABLE),
        ("five octets", b"\x0a\x01\x00\x01\x00", UNREADABLE),
        ("17 octets", bytes(17), UNREADABLE),
        ("text", b"10.1.0.1", UNREADABLE),
    ]
}

EMAILS = _named(
    EMAIL,
    {
        b"a@evil.example": NOT_PERMITTED,
        b"a@devices.example.evil": NOT_PERMITTED,
        b"a@b.devices.example": NOT_PERMITTED,
        b"root@localhost": NOT_PERMITTED,
        b"": BAD,
        b"@": BAD,
        b"@devices.example": BAD,
        b"a@": BAD,
        b"devices.example": BAD,
        b"a@evil.example@devices.example": BAD,
        b"a b@devices.example": BAD,
        b'"a@b"@devices.example': BAD,
        b"a..b@devices.example": BAD,
        b".a@devices.example": BAD,
        b"a@*.example.com": BAD,
        b"a@devices.example\x00": BAD,
        b"a\x00@devices.example": BAD,
        b"a@devices.example\r\nBcc: b": BAD,
        b"<a@devices.example>": BAD,
        b"a" * 65 + b"@devices.example": BAD,
        "é@devices.example".encode(): BAD,
    },
)

OTHER_KINDS: Cases = {
    "otherName of Kerberos": csr(lambda: san(tlv(0xA0, pki.oid("1.3.6.1.5.2.2"), tlv(0xA0, sequence()))), *BAD),
    "directoryName": csr(lambda: san(tlv(DIRECTORY, sequence(rdn(CN, b"device-1")))), *BAD),
    "an empty directoryName": csr(lambda: san(tlv(DIRECTORY, sequence())), *BAD),
    "registeredID": csr(lambda: san(tlv(REGISTERED, b"\x2a\x03\x04")), *BAD),
    "x400Address": csr(lambda: san(tlv(0xA3, sequence())), *UNREADABLE),
    "ediPartyName": csr(lambda: san(tlv(0xA5, tlv(0xA1, tlv(UTF8, b"a")))), *UNREADABLE),
    "a kind that does not exist": csr(lambda: san(tlv(0x89, b"a")), *UNREADABLE),
    "a constructed dNSName": csr(lambda: san(tlv(0xA2, tlv(IA5, b"a.devices.example"))), *UNREADABLE),
    "a bare IA5String": csr(lambda: san(tlv(IA5, b"a.devices.example")), *UNREADABLE),
    "one good name and one bad": csr(lambda: san(tlv(DNS, b"a.devices.example"), tlv(DNS, b"evil.example")), *NOT_PERMITTED),
    "one good name and the name of another": csr(
        lambda: san(tlv(DNS, b"a.devices.example"), tlv(URI, b"spiffe://factory.example/device/device-2")), *NOT_PERMITTED
    ),
    "no names at all": csr(san, *UNREADABLE),
    "neither subject nor names": csr(lambda: pki.raw_csr(subject_der=sequence()), 400, "NoName"),
    "101 names": csr(lambda: san(*(tlv(DNS, b"h%d.devices.example" % number) for number in range(101))), *UNREADABLE, says="100"),
    "1,000 names": csr(lambda: san(*(tlv(DNS, b"h%d.devices.example" % number) for number in range(1000))), *UNREADABLE, says="100"),
    "the same name 101 times": csr(lambda: san(*[tlv(DNS, b"a.devices.example")] * 101), *UNREADABLE, says="100"),
}


UPN = "1.3.6.1.4.1.311.20.2.3"


def _principal(value: bytes, oid: str = UPN, *others: bytes) -> bytes:
    return tlv(0xA0, pki.oid(oid), tlv(0xA0, value), *others)


def _principals(*names: bytes) -> bytes:
    return san(*(_principal(tlv(UTF8, name)) for name in names))


OTHER_NAMES: Cases = {
    # the policy has *@ad.example for user principal names, and {user}@im.example for XMPP
    "another domain": csr(lambda: _principals(b"root@evil.example"), *NOT_PERMITTED, says="otherNames"),
    "another case": csr(lambda: _principals(b"root@AD.example"), *NOT_PERMITTED),
    "a subdomain": csr(lambda: _principals(b"root@sub.ad.example"), *NOT_PERMITTED),
    "another type": csr(lambda: san(_principal(tlv(UTF8, b"root@ad.example"), "1.2.3.4")), *NOT_PERMITTED),
    "another's XMPP address": csr(lambda: san(_principal(tlv(UTF8, b"device-2@im.example"), "1.3.6.1.5.5.7.8.5")), *NOT_PERMITTED),
    "a domain before a slash": csr(lambda: _principals(b"evil.example/@ad.example"), *NOT_PERMITTED),
    "a literal *": csr(lambda: _principals(b"*@ad.example"), *NOT_PERMITTED),
    "one permitted and one not": csr(lambda: _principals(b"a@ad.example", b"root@evil.example"), *NOT_PERMITTED),
    "two @": csr(lambda: _principals(b"root@evil.example@ad.example"), *BAD),
    "a wide @": csr(lambda: _principals("root\uff20evil.example@ad.example".encode()), *BAD),
    "no @": csr(lambda: _principals(b"root"), *BAD),
    "NUL": csr(lambda: _principals(b"root@ad.example\x00"), *BAD),
    "bidi": csr(lambda: _principals("\u202eroot@ad.example".encode()), *BAD),
    "a line": csr(lambda: _principals(b"root@ad.example\r\nx"), *BAD),
    "a comma": csr(lambda: _principals(b"a,DNS:evil@ad.example"), *BAD),
    "not composed": csr(lambda: _principals("u\u0308@ad.example".encode()), *BAD),
    "no UTF-8": csr(lambda: _principals(b"\xff@ad.example"), *BAD),
    "254 characters": csr(lambda: _principals(b"a" * 243 + b"@ad.example"), *BAD),
    "20,000 characters": csr(lambda: _principals(b"a" * 20_000 + b"@ad.example"), *BAD),
    "BMPString": csr(lambda: san(_principal(tlv(BMP, "root@ad.example".encode("utf-16-be")))), *BAD, says="no UTF8String"),
    "IA5String": csr(lambda: san(_principal(tlv(IA5, b"root@ad.example"))), *BAD, says="no UTF8String"),
    "OCTET STRING": csr(lambda: san(_principal(tlv(0x04, b"root@ad.example"))), *BAD, says="no UTF8String"),
    "a SEQUENCE": csr(lambda: san(_principal(sequence(tlv(UTF8, b"root@ad.example")))), *BAD, says="no UTF8String"),
    "two values": csr(lambda: san(_principal(tlv(UTF8, b"a@ad.example") + tlv(UTF8, b"root@ad.example"))), *UNREADABLE),
    "trailing octets": csr(lambda: san(_principal(tlv(UTF8, b"a@ad.example"), UPN, b"\x05\x00")), *UNREADABLE),
    "no value": csr(lambda: san(tlv(0xA0, pki.oid(UPN))), *UNREADABLE),
    "no type": csr(lambda: san(tlv(0xA0, tlv(0xA0, tlv(UTF8, b"a@ad.example")))), *UNREADABLE),
}


def subject(*rdns: bytes) -> bytes:
    return pki.raw_csr(subject_der=sequence(*rdns))


def _cn(text: bytes, string_type: int = UTF8) -> bytes:
    return subject(rdn(CN, text, string_type))


USER = b"device-1"
SUBJECTS: Cases = {
    # outside the policy
    "another device": csr(lambda: _cn(b"device-2"), *NOT_PERMITTED),
    "another case": csr(lambda: _cn(b"DEVICE-1"), *NOT_PERMITTED),
    "a longer name": csr(lambda: _cn(b"device-10"), *NOT_PERMITTED),
    "a shorter name": csr(lambda: _cn(b"device-"), *NOT_PERMITTED),
    "a pattern": csr(lambda: _cn(b"*"), *NOT_PERMITTED),
    "a placeholder": csr(lambda: _cn(b"{user}"), *NOT_PERMITTED),
    "a homoglyph": csr(lambda: _cn("dеvice-1".encode()), *NOT_PERMITTED),  # noqa: RUF001 - a Cyrillic letter
    "full-width letters": csr(lambda: _cn("ｄｅｖｉｃｅ－１".encode()), *NOT_PERMITTED),  # noqa: RUF001 - such letters
    "an organization of nobody's": csr(lambda: subject(rdn(CN, USER), rdn(ORGANIZATION, b"Evil")), *NOT_PERMITTED),
    "another country": csr(lambda: subject(rdn(CN, USER), rdn(COUNTRY, b"FR", PRINTABLE)), *NOT_PERMITTED),
    "a unit that no rule speaks of": csr(lambda: subject(rdn(CN, USER), rdn(UNIT, b"admins")), *NOT_PERMITTED),
    "system:masters": csr(lambda: subject(rdn(CN, USER), rdn(ORGANIZATION, b"system:masters")), *NOT_PERMITTED),
    "kubernetes-admin": csr(lambda: _cn(b"kubernetes-admin"), *NOT_PERMITTED),
    "the CA's own name": csr(lambda: _cn(b"Factory CA"), *NOT_PERMITTED),
    "SQL": csr(lambda: _cn(b"device-1'; DROP TABLE certificates; --"), *NOT_PERMITTED),
    "a path": csr(lambda: _cn(b"../../device-1"), *NOT_PERMITTED),
    "an emailAddress": csr(lambda: subject(rdn(CN, USER), rdn("1.2.840.113549.1.9.1", b"a@evil.example", IA5)), *NOT_PERMITTED),
    "a domainComponent": csr(lambda: subject(rdn(CN, USER), rdn("0.9.2342.19200300.100.1.25", b"evil", IA5)), *NOT_PERMITTED),
    "a userId": csr(lambda: subject(rdn(CN, USER), rdn("0.9.2342.19200300.100.1.1", b"root")), *NOT_PERMITTED),
    # what readers read differently
    "two CNs": csr(lambda: subject(rdn(CN, USER), rdn(CN, b"device-2")), *UNREADABLE, says="more than one commonName"),
    "the same CN twice": csr(lambda: subject(rdn(CN, USER), rdn(CN, USER)), *UNREADABLE),
    "an RDN of two CNs": csr(
        lambda: subject(set_of(*(sequence(pki.oid(CN), tlv(UTF8, text)) for text in (USER, b"device-2")))), *UNREADABLE, says="RDN"
    ),
    "an RDN of CN and O": csr(
        lambda: subject(set_of(sequence(pki.oid(CN), tlv(UTF8, USER)), sequence(pki.oid(ORGANIZATION), tlv(UTF8, b"Acme 1")))), *UNREADABLE
    ),
    "an empty RDN": csr(lambda: subject(set_of()), *NOT_DER),
    "21 RDNs": csr(lambda: subject(rdn(CN, USER), *[rdn(ORGANIZATION, b"Acme 1")] * 20), *UNREADABLE, says="20"),
    "2,000 RDNs": csr(lambda: subject(*[rdn(ORGANIZATION, b"Acme 1")] * 1000), *UNREADABLE),
    "65 characters": csr(lambda: _cn(b"d" * 65), *UNREADABLE, says="65 characters"),
    "1 MiB would be too much, 20 KiB are too": csr(lambda: _cn(b"d" * 20_000), *UNREADABLE),
    "no characters": csr(lambda: _cn(b""), *UNREADABLE),
    "a NUL": csr(lambda: _cn(b"device-1\x00.evil"), *UNREADABLE, says="cannot be seen"),
    "a NUL at the end": csr(lambda: _cn(b"device-1\x00"), *UNREADABLE),
    "a line feed": csr(lambda: _cn(b"device-1\nCN=root"), *UNREADABLE),
    "an escape sequence": csr(lambda: _cn(b"device-1\x1b[2J"), *UNREADABLE),
    "a delete": csr(lambda: _cn(b"device-1\x7f"), *UNREADABLE),
    "right to left": csr(lambda: _cn("device-\u202e1".encode()), *UNREADABLE),
    "an isolate": csr(lambda: _cn("\u2066device-1\u2069".encode()), *UNREADABLE),
    "zero width": csr(lambda: _cn("device\u200b-1".encode()), *UNREADABLE),
    "a byte order mark": csr(lambda: _cn("\ufeffdevice-1".encode()), *UNREADABLE),
    "a private character": csr(lambda: _cn("device-1\ue000".encode()), *UNREADABLE),
    "a line separator": csr(lambda: _cn("device-1\u2028".encode()), *UNREADABLE),
    "a no-break space": csr(lambda: _cn("device\u00a01".encode()), *UNREADABLE),
    "not NFC": csr(lambda: _cn("de\u0301vice-1".encode()), *UNREADABLE, says="normalization form C"),
    "a combining character first": csr(lambda: _cn("\u0301device-1".encode()), *UNREADABLE),
    "a space before": csr(lambda: _cn(b" device-1"), *UNREADABLE),
    "a space behind": csr(lambda: _cn(b"device-1 "), *UNREADABLE),
    "not UTF-8": csr(lambda: _cn(b"device-\xff"), *UNREADABLE),
    "overlong UTF-8": csr(lambda: _cn(b"device-\xc0\xb1"), *UNREADABLE),
    "a surrogate": csr(lambda: _cn(b"device-\xed\xa0\x80"), *UNREADABLE),
    "a PrintableString with an asterisk": csr(lambda: _cn(b"device*", PRINTABLE), *UNREADABLE),
    "a PrintableString with an @": csr(lambda: _cn(b"a@b", PRINTABLE), *UNREADABLE),
    "a PrintableString with a high octet": csr(lambda: _cn(b"device-\xe9", PRINTABLE), *UNREADABLE),
    "a TeletexString": csr(lambda: _cn(USER, TELETEX), *UNREADABLE),
    "a BMPString": csr(lambda: _cn("device-1".encode("utf-16-be"), BMP), *UNREADABLE),
    "a UniversalString": csr(lambda: _cn("device-1".encode("utf-32-be"), UNIVERSAL), *UNREADABLE),
    "an IA5String": csr(lambda: _cn(USER, IA5), *UNREADABLE),
    "a NumericString": csr(lambda: _cn(b"1", NUMERIC), *UNREADABLE),
    "a BIT STRING": csr(lambda: _cn(b"\x00device-1", 0x03), *UNREADABLE),
    "an INTEGER": csr(lambda: _cn(b"\x01", 0x02), *UNREADABLE),
    "a SEQUENCE": csr(lambda: subject(set_of(sequence(pki.oid(CN), sequence(tlv(UTF8, USER))))), *UNREADABLE),
    "a country of three letters": csr(lambda: subject(rdn(CN, USER), rdn(COUNTRY, b"DEU", PRINTABLE)), *UNREADABLE),
    "a country in UTF-8": csr(lambda: subject(rdn(CN, USER), rdn(COUNTRY, b"DE")), *UNREADABLE),
    "a serialNumber in UTF-8": csr(lambda: subject(rdn(CN, USER), rdn(SERIAL_NUMBER, b"1")), *UNREADABLE),
    "an unknown attribute": csr(lambda: subject(rdn(CN, USER), rdn("1.2.3.4", b"a")), *UNREADABLE),
    "a jurisdiction": csr(lambda: subject(rdn(CN, USER), rdn("1.3.6.1.4.1.311.60.2.1.3", b"DE", PRINTABLE)), *UNREADABLE),
    "an attribute of three members": csr(lambda: subject(set_of(sequence(pki.oid(CN), tlv(UTF8, USER), tlv(UTF8, b"x")))), *UNREADABLE),
    "an attribute without value": csr(lambda: subject(set_of(sequence(pki.oid(CN)))), *NOT_DER),
    "an RDN that is a SEQUENCE": csr(lambda: subject(sequence(sequence(pki.oid(CN), tlv(UTF8, USER)))), *NOT_DER),
    "a name that is a SET": csr(lambda: pki.raw_csr(subject_der=set_of(sequence(pki.oid(CN), tlv(UTF8, USER)))), *NOT_DER),
    "a name that is NULL": csr(lambda: pki.raw_csr(subject_der=b"\x05\x00"), *NOT_DER),
}

CASES: dict[str, Case] = prefixed(
    DNS=DNS_NAMES, URI=URIS, IP=IP_ADDRESSES, email=EMAILS, names=OTHER_KINDS, other=OTHER_NAMES, subject=SUBJECTS
)
assert der.MAX_CSR_OCTETS == 32 * 1024
