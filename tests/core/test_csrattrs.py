"""The codec of CsrAttrs: reads all that was ever published, writes only what RFC 9908 calls well-formed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der.decoder import decode as pyasn1_decode
from pyasn1.codec.der.encoder import encode as pyasn1_encode
from pyasn1_alt_modules import rfc7030, rfc9908

from estcore import csrattrs, der, transfer
from estcore.attribute import MAX_VALUES, Attribute
from estcore.csr_template import (
    ANY_DIRECTORY_NAME,
    ANY_IP_ADDRESS,
    ExtensionTemplate,
    KeyTemplate,
    NameComponent,
    Template,
    encode_extensions,
    rsa_bits,
    rsa_placeholder,
)
from estcore.csr_vocabulary import (
    CERTIFICATION_REQUEST_INFO_TEMPLATE,
    CHALLENGE_PASSWORD,
    EC_PUBLIC_KEY,
    EXTENSION_REQ_TEMPLATE,
    EXTENSION_REQUEST,
    RSA_ENCRYPTION,
    SUBJECT_ALT_NAME,
)
from estcore.errors import MalformedBody
from tests.core import vectors

PUBLISHED = [name for name in vectors.names() if "csrattrs" in name]
TEMPLATE = "derived-rfc9908-3.4-template-csrattrs"
MALFORMED = "rfc7030-452-csrattrs"
P384, KEY_USAGE, EXTENDED_KEY_USAGE = "1.3.132.0.34", "2.5.29.15", "2.5.29.37"


def vector(name: str) -> bytes:
    return transfer.decode_body(vectors.body(name))


def oid(dotted: str) -> bytes:
    return der.object_identifier(dotted)


def attribute(of_type: str, *values: bytes) -> bytes:
    """Written by hand, with the values in the order given."""
    return der.tlv(0x30, oid(of_type) + der.tlv(0x31, b"".join(values)))


def attrs(*items: bytes) -> bytes:
    return der.tlv(0x30, b"".join(items))


def extension(of_type: str, value: bytes | None = b"\x05\x00", critical: bytes = b"") -> bytes:
    return der.tlv(0x30, oid(of_type) + critical + (b"" if value is None else der.tlv(0x04, value)))


def template(*members: bytes, version: bytes = b"\x02\x01\x00") -> bytes:
    return attrs(attribute(CERTIFICATION_REQUEST_INFO_TEMPLATE, der.tlv(0x30, version + b"".join(members))))


def nested(depth: int) -> bytes:
    value = b"\x05\x00"
    for _ in range(depth):
        value = der.tlv(0x30, value)
    return attrs(attribute("2.999.1", value))


NO_ATTRIBUTES = b"\xa1\x00"


@pytest.mark.spec("EST-ATTR-02", "EST-ATTR-04")
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_answer_is_read(name: str) -> None:
    assert csrattrs.decode(vector(name))


@pytest.mark.spec("EST-ATTR-04")
def test_attributes_that_nobody_knows_are_read_whatever_their_values() -> None:
    assert csrattrs.decode(vector("rfc7030-a2-csrattrs-response")) == (
        "1.3.6.1.1.1.1.22",
        Attribute(type="2.999.1", values=(b"\x13\x19Parse SET as 2.999.1 data",)),
        "1.2.840.113549.1.9.7",
        Attribute(type="2.999.2", values=(oid("2.999.3"), oid("2.999.4"), b"\x13\x19Parse SET as 2.999.2 data")),
        "1.3.36.3.3.2.8.1.1.11",
        "2.16.840.1.101.3.4.2.2",
    )


@pytest.mark.spec("EST-ATTR-02")
def test_no_wishes_is_an_empty_sequence() -> None:
    assert csrattrs.decode(csrattrs.NO_WISHES) == ()
    assert csrattrs.encode(()) == bytes.fromhex("3000")
    assert transfer.encode_body(csrattrs.encode(())).strip() == b"MAA="


@pytest.mark.spec("EST-ATTR-10")
def test_an_attribute_with_an_empty_set_is_read_and_written() -> None:
    empty = attrs(attribute(EC_PUBLIC_KEY))
    assert csrattrs.decode(empty) == (Attribute(type=EC_PUBLIC_KEY),)
    assert csrattrs.encode(csrattrs.decode(empty)) == empty


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-10", "EST-ATTR-11")
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != MALFORMED])
def test_well_formed_answers_are_written_as_they_were_published(name: str) -> None:
    assert csrattrs.encode(csrattrs.decode(vector(name))) == vector(name)


@pytest.mark.spec("EST-ATTR-11")
def test_the_example_of_rfc_7030_is_survived_and_never_written() -> None:
    read = csrattrs.decode(vector(MALFORMED))
    assert CHALLENGE_PASSWORD in read
    with pytest.raises(ValueError, match="extensionRequest"):
        csrattrs.encode(read)


@pytest.mark.spec("EST-ATTR-11")
def test_the_corrected_example_is_what_we_write() -> None:
    wishes = (CHALLENGE_PASSWORD, Attribute(type=EC_PUBLIC_KEY, values=(oid(P384),)), "1.3.6.1.1.1.1.22", "1.2.840.10045.4.3.3")
    assert csrattrs.encode(wishes) == vector("rfc9908-5.2-csrattrs")


@pytest.mark.spec("EST-ATTR-12", "EST-ATTR-13", "EST-ATTR-15")
def test_the_template_of_rfc_9908_is_read() -> None:
    (item,) = csrattrs.decode(vector(TEMPLATE))
    assert isinstance(item, Attribute)
    assert item.type == CERTIFICATION_REQUEST_INFO_TEMPLATE
    assert Template.decode(item.values[0]) == Template(
        subject=(
            (NameComponent(type="2.5.4.3"),),
            (NameComponent(type="2.5.4.11", value=b"\x0c\x06myDept"),),
            (NameComponent(type="2.5.4.11", value=b"\x0c\x07myGroup"),),
        ),
        key=KeyTemplate(algorithm=EC_PUBLIC_KEY, parameters=oid("1.2.840.10045.3.1.7")),
        extensions=(
            ExtensionTemplate(oid=SUBJECT_ALT_NAME, value=bytes.fromhex("3014") + b"\x82\x10www.myServer.com" + ANY_IP_ADDRESS),
            ExtensionTemplate(oid=KEY_USAGE, critical=True, value=bytes.fromhex("03020388")),
            ExtensionTemplate(oid=EXTENDED_KEY_USAGE),
        ),
    )


@pytest.mark.spec("EST-ATTR-15")
@pytest.mark.parametrize("of_type", [EXTENSION_REQUEST, EXTENSION_REQ_TEMPLATE])
def test_a_lone_extension_is_read_for_a_list_of_one(of_type: str) -> None:
    attributes = der.tlv(0xA1, attribute(of_type, extension(KEY_USAGE, bytes.fromhex("03020388"), b"\x01\x01\xff")))
    (item,) = csrattrs.decode(template(attributes))
    assert isinstance(item, Attribute)
    assert Template.decode(item.values[0]).extensions == (ExtensionTemplate(oid=KEY_USAGE, critical=True, value=bytes.fromhex("03020388")),)


@pytest.mark.spec("EST-ATTR-15")
@pytest.mark.parametrize(
    ("extensions", "of_type"),
    [
        ([ExtensionTemplate(oid=KEY_USAGE, value=b"\x03\x02\x03\x88")], EXTENSION_REQUEST),
        ([ExtensionTemplate(oid=EXTENDED_KEY_USAGE)], EXTENSION_REQ_TEMPLATE),
        ([ExtensionTemplate(oid=SUBJECT_ALT_NAME, value=b"\x30\x03\x82\x01a")], EXTENSION_REQUEST),
        ([ExtensionTemplate(oid=SUBJECT_ALT_NAME, value=b"\x30\x02" + ANY_IP_ADDRESS)], EXTENSION_REQ_TEMPLATE),
        ([ExtensionTemplate(oid=SUBJECT_ALT_NAME, value=b"\x30\x04" + ANY_DIRECTORY_NAME)], EXTENSION_REQ_TEMPLATE),
        ([ExtensionTemplate(oid=KEY_USAGE, value=b"\x05\x00"), ExtensionTemplate(oid="2.999.1")], EXTENSION_REQ_TEMPLATE),
    ],
)
def test_the_template_form_of_extensions_is_used_exactly_where_a_value_is_open(extensions: list[ExtensionTemplate], of_type: str) -> None:
    assert encode_extensions(extensions).type == of_type


@pytest.mark.spec("EST-ATTR-14")
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_the_placeholder_key_is_an_rsa_key_of_that_length(bits: int) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    placeholder = rsa_placeholder(bits)
    assert rsa_bits(placeholder) == bits
    spki = der.tlv(0x30, der.tlv(0x30, oid(RSA_ENCRYPTION) + b"\x05\x00") + der.tlv(0x03, b"\x00" + placeholder))
    key = load_der_public_key(spki)
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == bits


ILL_FORMED = {
    "two extensionRequests": attrs(
        attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE))),
        attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(EXTENDED_KEY_USAGE))),
    ),
    "an extension twice": attrs(attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE) + extension(KEY_USAGE)))),
    "an extensionRequest of two values": attrs(
        attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE)), der.tlv(0x30, extension(EXTENDED_KEY_USAGE)))
    ),
    "an extensionRequest without a value": attrs(attribute(EXTENSION_REQUEST)),
    "an extensionRequest without extensions": attrs(attribute(EXTENSION_REQUEST, der.tlv(0x30, b""))),
    "an extensionRequest with a lone extension": attrs(attribute(EXTENSION_REQUEST, extension(KEY_USAGE))),
    "an extensionRequest with an open value": attrs(attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE, None)))),
    "an extensionRequest with an open address": attrs(
        attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(SUBJECT_ALT_NAME, der.tlv(0x30, ANY_IP_ADDRESS))))
    ),
    "an extensionRequest with critical FALSE": attrs(
        attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE, critical=b"\x01\x01\x00")))
    ),
    "a bare extensionRequest": attrs(oid(EXTENSION_REQUEST)),
    "a bare template": attrs(oid(CERTIFICATION_REQUEST_INFO_TEMPLATE)),
    "an extensionReqTemplate outside a template": attrs(attribute(EXTENSION_REQ_TEMPLATE, der.tlv(0x30, extension(KEY_USAGE, None)))),
    "the same OID twice": attrs(oid(CHALLENGE_PASSWORD), oid(CHALLENGE_PASSWORD)),
    "two kinds of key": attrs(attribute(EC_PUBLIC_KEY), attribute(RSA_ENCRYPTION)),
    "two curves": attrs(attribute(EC_PUBLIC_KEY, oid(P384), oid("1.3.132.0.35"))),
    "a size of an EC key": attrs(attribute(EC_PUBLIC_KEY, b"\x02\x01\x05")),
    "a curve of an RSA key": attrs(attribute(RSA_ENCRYPTION, oid(P384))),
    "an RSA key of a negative size": attrs(attribute(RSA_ENCRYPTION, b"\x02\x01\xff")),
    "an RSA key of no size": attrs(attribute(RSA_ENCRYPTION, b"\x02\x01\x00")),
    "a template with a key of two parameters": template(der.tlv(0xA0, der.tlv(0x30, oid(EC_PUBLIC_KEY) + oid(P384) * 2)), NO_ATTRIBUTES),
    "a template with two placeholder keys": template(
        der.tlv(0xA0, der.tlv(0x30, oid(RSA_ENCRYPTION) + b"\x05\x00") + b"\x03\x02\x00\x04" * 2), NO_ATTRIBUTES
    ),
    "a template with a placeholder key that is no BIT STRING": template(
        der.tlv(0xA0, der.tlv(0x30, oid(RSA_ENCRYPTION) + b"\x05\x00") + b"\x04\x01\x04"), NO_ATTRIBUTES
    ),
    "a template of no value": attrs(attribute(CERTIFICATION_REQUEST_INFO_TEMPLATE)),
    "a template of version 1": template(NO_ATTRIBUTES, version=b"\x02\x01\x01"),
    "a template without attributes": template(),
    "a template with attributes and more": template(NO_ATTRIBUTES, b"\x05\x00"),
    "a template with an empty RDN": template(b"\x30\x02\x31\x00", NO_ATTRIBUTES),
    "a template with extensions in both forms": template(
        der.tlv(
            0xA1,
            attribute(EXTENSION_REQUEST, der.tlv(0x30, extension(KEY_USAGE)))
            + attribute(EXTENSION_REQ_TEMPLATE, der.tlv(0x30, extension(EXTENDED_KEY_USAGE, None))),
        )
    ),
    "a template with complete extensions in the open form": template(
        der.tlv(0xA1, attribute(EXTENSION_REQ_TEMPLATE, der.tlv(0x30, extension(KEY_USAGE))))
    ),
    "a template with an extensionReqTemplate of two values": template(
        der.tlv(
            0xA1,
            attribute(
                EXTENSION_REQ_TEMPLATE, der.tlv(0x30, extension(KEY_USAGE, None)), der.tlv(0x30, extension(EXTENDED_KEY_USAGE, None))
            ),
        )
    ),
    "a template with a placeholder key for a curve": template(
        der.tlv(0xA0, der.tlv(0x30, oid(EC_PUBLIC_KEY) + oid(P384)) + b"\x03\x02\x00\x04"), NO_ATTRIBUTES
    ),
    "a template with the same attribute twice": template(
        der.tlv(0xA1, attribute("2.999.1", b"\x05\x00") + attribute("2.999.1", b"\x05\x00"))
    ),
}


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-10", "EST-ATTR-12", "EST-ATTR-14", "EST-ATTR-15")
@pytest.mark.parametrize("case", ILL_FORMED)
def test_ill_formed_wishes_are_read_and_never_written(case: str) -> None:
    read = csrattrs.decode(ILL_FORMED[case])
    with pytest.raises(ValueError, match=r"\w") as raised:
        csrattrs.encode(read)
    assert "\n" not in str(raised.value)


def test_no_more_items_are_written_than_are_read() -> None:
    csrattrs.encode(tuple(f"2.999.{number}" for number in range(csrattrs.MAX_ITEMS)))
    with pytest.raises(ValueError, match="more than 100 items"):
        csrattrs.encode(tuple(f"2.999.{number}" for number in range(csrattrs.MAX_ITEMS + 1)))


def test_no_more_octets_are_written_than_are_read() -> None:
    most = Attribute(type="2.999.1", values=(der.tlv(0x04, bytes(csrattrs.MAX_OCTETS)),))
    with pytest.raises(ValueError, match="more than 32768"):
        csrattrs.encode((most,))


HOSTILE = {
    "nothing": b"",
    "no SEQUENCE": b"\x31\x00",
    "an octet behind": b"\x30\x00\x00",
    "cut off": vector(TEMPLATE)[:-1],
    "an indefinite length": b"\x30\x80\x00\x00",
    "a length that is not minimal": b"\x30\x81\x00",
    "a NULL among the items": attrs(b"\x05\x00"),
    "a SET among the items": attrs(b"\x31\x00"),
    "an attribute without values": attrs(der.tlv(0x30, oid("2.999.1"))),
    "an attribute with a SEQUENCE of values": attrs(der.tlv(0x30, oid("2.999.1") + b"\x30\x00")),
    "an attribute without a type": attrs(der.tlv(0x30, b"\x31\x00")),
    "an attribute with something behind its values": attrs(der.tlv(0x30, oid("2.999.1") + b"\x31\x00\x05\x00")),
    "an empty OID": attrs(b"\x06\x00"),
    "an OID that does not end": attrs(b"\x06\x02\x2a\x86"),
    "an OID of 4,000 octets": attrs(der.tlv(0x06, b"\x2a" + b"\x81" * 3998 + b"\x01")),
    "an INTEGER that is not minimal": attrs(attribute(RSA_ENCRYPTION, b"\x02\x02\x00\x01")),
    "nested deeper than 32": nested(30),
    "nested 5,000 deep": nested(5000),
    "more than 100 items": attrs(*[oid(f"2.999.{number}") for number in range(101)]),
    "more than 100 values": attrs(attribute("2.999.1", *[b"\x05\x00"] * (MAX_VALUES + 1))),
    "over 32 KiB": attrs(attribute("2.999.1", der.tlv(0x04, bytes(csrattrs.MAX_OCTETS)))),
}


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_answers_are_refused_in_one_sentence(case: str) -> None:
    with pytest.raises(MalformedBody) as raised:
        csrattrs.decode(HOSTILE[case])
    assert "\n" not in raised.value.message


def test_what_is_within_the_bounds_is_read() -> None:
    assert len(csrattrs.decode(attrs(*[oid(f"2.999.{number}") for number in range(100)]))) == 100
    assert csrattrs.decode(nested(29))


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("name", PUBLISHED)
def test_no_answer_that_is_cut_off_or_goes_on_is_read(name: str) -> None:
    whole = vector(name)
    for end in range(len(whole)):
        with pytest.raises(MalformedBody):
            csrattrs.decode(whole[:end])
    with pytest.raises(MalformedBody):
        csrattrs.decode(whole + b"\x00")


def _survives(octets: bytes) -> None:
    try:
        read = csrattrs.decode(octets)
        for item in read:
            if isinstance(item, Attribute) and item.type == CERTIFICATION_REQUEST_INFO_TEMPLATE and item.values:
                Template.decode(item.values[0])
    except MalformedBody:
        return
    try:
        written = csrattrs.encode(read)
    except ValueError:
        return
    assert csrattrs.encode(csrattrs.decode(written)) == written


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("name", [TEMPLATE, "rfc9908-5.1-csrattrs", "rfc9908-5.4-csrattrs"])
def test_one_changed_octet_anywhere_is_read_or_refused(name: str) -> None:
    whole = vector(name)
    for position, octet in itertools.product(range(len(whole)), (0x00, 0x01, 0x06, 0x30, 0x31, 0x7F, 0x80, 0xA1, 0xFF)):
        _survives(whole[:position] + bytes((octet,)) + whole[position + 1 :])


@pytest.mark.spec("THREAT-08")
@given(octets=st.binary(max_size=200))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    _survives(octets)
    _survives(der.tlv(0x30, octets))


dotted_oids = st.tuples(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 1 << 40), max_size=5)).map(
    lambda arcs: ".".join(map(str, (arcs[0], arcs[1], *arcs[2])))
)


@given(dotted=dotted_oids)
def test_an_oid_is_read_as_it_was_written(dotted: str) -> None:
    assert der.dotted(oid(dotted), what="an OID") == dotted


# Arcs on both sides of each length, in a table: to draw the arcs of thirty OIDs takes longer than all else.
ARCS = (0, 1, 127, 128, 16383, 16384, 1 << 40)
UNKNOWN_OIDS = [".".join(map(str, (2, 999, *arcs))) for count in range(1, 4) for arcs in itertools.product(ARCS, repeat=count)]
values = st.one_of(
    st.just(b"\x05\x00"),
    st.binary(max_size=20).map(lambda content: der.tlv(0x04, content)),
    st.sampled_from(UNKNOWN_OIDS).map(oid),
    st.text(alphabet="abc", max_size=5).map(lambda text: der.tlv(0x13, text.encode())),
)
unknown_oids = st.sampled_from(UNKNOWN_OIDS)
unknown_attributes = st.builds(
    lambda of_type, content: Attribute(type=of_type, values=tuple(content)), unknown_oids, st.lists(values, max_size=4)
)
extension_values = st.one_of(
    st.binary(max_size=30), st.just(der.tlv(0x30, ANY_IP_ADDRESS)), st.just(der.tlv(0x30, b"\x82\x01a" + ANY_IP_ADDRESS))
)
extension_oids = st.one_of(unknown_oids, st.sampled_from([SUBJECT_ALT_NAME, KEY_USAGE, EXTENDED_KEY_USAGE]))
extensions = st.lists(
    st.builds(
        lambda of_type, critical, value: ExtensionTemplate(oid=of_type, critical=critical, value=value),
        extension_oids,
        st.booleans(),
        st.none() | extension_values,
    ),
    unique_by=lambda extension: extension.oid,
    max_size=5,
)
components = st.builds(lambda of_type, value: NameComponent(type=of_type, value=value), unknown_oids, st.none() | values)
rdns = st.lists(components, min_size=1, max_size=1).map(tuple)
keys = st.one_of(
    st.none(),
    st.builds(lambda curve: KeyTemplate(algorithm=EC_PUBLIC_KEY, parameters=oid(curve)), unknown_oids),
    st.sampled_from([None, 2048, 4096]).map(
        lambda bits: KeyTemplate(
            algorithm=RSA_ENCRYPTION, parameters=b"\x05\x00", public_key=None if bits is None else rsa_placeholder(bits)
        )
    ),
)
templates = st.builds(
    lambda subject, key, wanted, others: Template(
        subject=None if subject is None else tuple(subject), key=key, extensions=tuple(wanted), attributes=tuple(others)
    ),
    st.none() | st.lists(rdns, min_size=1, max_size=4),
    keys,
    extensions,
    st.lists(unknown_attributes, unique_by=lambda attribute: attribute.type, max_size=2),
)


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-12", "EST-ATTR-13", "EST-ATTR-14", "EST-ATTR-15")
@given(written=templates)
def test_a_template_is_read_as_it_was_written_by_us_and_by_others(written: Template) -> None:
    """pyasn1-alt-modules has the ASN.1 module of RFC 9908: it reads what we write, and writes the same octets."""
    encoded = written.encode()
    read = Template.decode(encoded)
    assert (read.subject, read.key, read.extensions) == (written.subject, written.key, written.extensions)
    assert read.encode() == encoded
    der.check(encoded, what="the template")
    (item,) = csrattrs.decode(csrattrs.encode((Attribute(type=CERTIFICATION_REQUEST_INFO_TEMPLATE, values=(encoded,)),)))
    assert isinstance(item, Attribute)
    assert item.values == (encoded,)
    if all(attribute.values for attribute in written.attributes) and (written.attributes or written.extensions):
        theirs, rest = pyasn1_decode(encoded, asn1Spec=rfc9908.CertificationRequestInfoTemplate())
        assert not rest
        assert pyasn1_encode(theirs) == encoded


@st.composite
def any_wishes(draw: st.DrawFn) -> csrattrs.CsrAttrs:
    bare = draw(st.lists(unknown_oids, unique=True, max_size=4))
    others = draw(st.lists(unknown_attributes, unique_by=lambda attribute: attribute.type, max_size=3))
    wanted = draw(extensions)
    made = [encode_extensions(wanted)] if wanted and all(extension.is_complete for extension in wanted) else []
    inside = draw(st.none() | templates)
    made += [] if inside is None else [Attribute(type=CERTIFICATION_REQUEST_INFO_TEMPLATE, values=(inside.encode(),))]
    return tuple(draw(st.permutations([*bare, *others, *made])))


@pytest.mark.spec("EST-ATTR-08")
@given(wishes=any_wishes())
def test_wishes_are_read_as_they_were_written(wishes: csrattrs.CsrAttrs) -> None:
    encoded = csrattrs.encode(wishes)
    sorted_values = tuple(
        item if isinstance(item, str) else Attribute(type=item.type, values=tuple(sorted(item.values))) for item in wishes
    )
    assert csrattrs.decode(encoded) == sorted_values
    requests = [item for item in csrattrs.decode(encoded) if isinstance(item, Attribute) and item.type == EXTENSION_REQUEST]
    assert len(requests) <= 1


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != TEMPLATE])
def test_others_read_the_published_answers_alike(name: str) -> None:
    theirs, rest = pyasn1_decode(vector(name), asn1Spec=rfc7030.CsrAttrs())
    assert not rest
    ours = csrattrs.decode(vector(name))
    assert [str(item.getComponent() if item.getName() == "oid" else item["attribute"]["attrType"]) for item in theirs] == [
        item if isinstance(item, str) else item.type for item in ours
    ]
