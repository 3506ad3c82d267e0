"""What CsrAttrs ask for, read from the published answers and written in both styles."""

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from estcore import csr_wishes, csrattrs, der, transfer
from estcore.attribute import Attribute
from estcore.csr_template import ExtensionTemplate, NameComponent, Template
from estcore.csr_vocabulary import (
    CERTIFICATION_REQUEST_INFO_TEMPLATE,
    CHALLENGE_PASSWORD,
    EC_PUBLIC_KEY,
    EST_IDENTITY_LINKING,
    EXTENSION_REQUEST,
    OTP_CHALLENGE,
    RSA_ENCRYPTION,
    SUBJECT_ALT_NAME,
)
from estcore.csr_wishes import KeyWish, Wishes, key_wish
from estcore.csrattrs import CsrAttrs
from estcore.issuer_spec import KeyAlgorithm
from tests.core import vectors

P256, P384, P521 = "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"


def published(name: str) -> Wishes:
    return csr_wishes.read(csrattrs.decode(transfer.decode_body(vectors.body(name))))


def template_of(items: CsrAttrs) -> Template:
    (found,) = [item for item in items if isinstance(item, Attribute) and item.type == CERTIFICATION_REQUEST_INFO_TEMPLATE]
    return Template.decode(found.values[0])


@pytest.mark.spec("EST-ATTR-07")
@pytest.mark.parametrize(
    ("name", "wishes"),
    [
        (
            "rfc9908-5.2-csrattrs",
            Wishes(
                key=KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P384,)),
                signature="1.2.840.10045.4.3.3",
                supplied=(CHALLENGE_PASSWORD, "1.3.6.1.1.1.1.22"),
            ),
        ),
        (
            "rfc9908-5.4-csrattrs",
            Wishes(
                key=KeyWish(algorithm=RSA_ENCRYPTION, sizes=(4096,)),
                signature="1.2.840.113549.1.1.11",
                supplied=(CHALLENGE_PASSWORD,),
            ),
        ),
        (
            "rfc9908-5.5-csrattrs",
            Wishes(
                key=KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P384,)),
                signature="1.2.840.10045.4.3.3",
                subject=((NameComponent(type="2.5.4.5"),),),
                supplied=(CHALLENGE_PASSWORD,),
            ),
        ),
        (
            "rfc9908-5.6-csrattrs",
            Wishes(
                key=KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P521,)),
                signature="1.2.840.10045.4.3.4",
                subject=((NameComponent(type="2.5.4.5"),),),
                supplied=(CHALLENGE_PASSWORD, "1.2.840.113549.1.9.20", "0.9.2342.19200300.100.1.5"),
            ),
        ),
    ],
)
def test_the_examples_of_rfc_9908_are_understood(name: str, wishes: Wishes) -> None:
    assert published(name) == wishes


@pytest.mark.spec("EST-ATTR-07", "EST-ATTR-09")
def test_an_extension_that_is_given_whole_is_kept_octet_by_octet() -> None:
    (extension,) = published("rfc9908-5.1-csrattrs").extensions
    assert extension.oid == SUBJECT_ALT_NAME
    assert extension.critical
    assert extension.value is not None
    assert extension.value.startswith(bytes.fromhex("3049a047"))
    assert extension.value.endswith(b"rfc8994+fd739fc23c3440112233445500000000+@acp.example.com")


def test_the_example_of_section_5_3_holds_what_section_5_6_asks_for() -> None:
    assert published("rfc9908-5.3-csrattrs") == published("rfc9908-5.6-csrattrs")


@pytest.mark.spec("EST-ATTR-04")
def test_hash_and_curve_without_a_key_attribute_are_understood() -> None:
    wishes = published("rfc7030-a2-csrattrs-response")
    assert isinstance(wishes.hash, hashes.SHA384)
    assert wishes.key == KeyWish(algorithm=EC_PUBLIC_KEY, curves=("1.3.36.3.3.2.8.1.1.11",))
    assert wishes.key.best() is None
    assert CHALLENGE_PASSWORD in wishes.supplied


@pytest.mark.spec("EST-ATTR-04", "EST-ATTR-11")
def test_of_the_example_of_rfc_7030_all_is_understood_but_the_malformed_part() -> None:
    wishes = published("rfc7030-452-csrattrs")
    assert wishes.key == KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P384,))
    assert wishes.signature == "1.2.840.10045.4.3.3"
    assert wishes.supplied == (CHALLENGE_PASSWORD,)
    assert wishes.extensions == ()
    assert len(wishes.ignored) == 1
    assert "extensionRequest" in wishes.ignored[0]


@pytest.mark.spec("EST-ATTR-17")
def test_a_template_is_used_alone() -> None:
    (item,) = csrattrs.decode(transfer.decode_body(vectors.body("derived-rfc9908-3.4-template-csrattrs")))
    conflicting: CsrAttrs = (
        "2.5.4.5",
        Attribute(type=RSA_ENCRYPTION),
        Attribute(type=EXTENSION_REQUEST, values=(b"\x30\x07\x30\x05\x06\x01\x2a\x04\x00",)),
        Attribute(type="2.999.1", values=(b"\x05\x00",)),
        "1.2.840.113549.1.1.11",
        "2.999.2",
        item,
    )
    assert csr_wishes.read(conflicting) == csr_wishes.read((item,))


@pytest.mark.spec("EST-POP-17", "EST-POP-18", "EST-ATTR-06")
def test_proofs_are_asked_for_beside_a_template() -> None:
    (item,) = csrattrs.decode(transfer.decode_body(vectors.body("derived-rfc9908-3.4-template-csrattrs")))
    assert csr_wishes.read((OTP_CHALLENGE, EST_IDENTITY_LINKING, item)).supplied == (OTP_CHALLENGE, EST_IDENTITY_LINKING)


@pytest.mark.parametrize("values", [(), (b"\x30\x00",), (Template().encode(), Template().encode())], ids=["none", "broken", "two"])
def test_a_malformed_template_leaves_the_old_style(values: tuple[bytes, ...]) -> None:
    broken = Attribute(type=CERTIFICATION_REQUEST_INFO_TEMPLATE, values=values)
    wishes = csr_wishes.read((broken, Attribute(type=EC_PUBLIC_KEY)))
    assert wishes.key == KeyWish(algorithm=EC_PUBLIC_KEY)
    assert "emplate" in wishes.ignored[0]


@pytest.mark.parametrize(
    ("algorithms", "wish", "best"),
    [
        (["ECDSA-P256"], KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P256,)), "ECDSA-P256"),
        (["ECDSA-P384", "ECDSA-P256"], KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P384, P256)), "ECDSA-P384"),
        (["ECDSA-P521", "ECDSA-P256"], KeyWish(algorithm=EC_PUBLIC_KEY, curves=(P521, P256)), "ECDSA-P521"),
        (["RSA-4096", "RSA-2048"], KeyWish(algorithm=RSA_ENCRYPTION, sizes=(4096, 2048)), "RSA-4096"),
        (["Ed25519"], KeyWish(algorithm="1.3.101.112"), "Ed25519"),
    ],
)
def test_keys_of_one_kind_are_a_wish_and_the_first_is_the_best(algorithms: list[str], wish: KeyWish, best: str) -> None:
    assert key_wish([KeyAlgorithm(name) for name in algorithms]) == wish
    assert wish.best() == best
    assert {algorithm for algorithm in KeyAlgorithm if wish.accepts(algorithm)} == set(algorithms)


@pytest.mark.parametrize("algorithms", [["ECDSA-P256", "RSA-2048"], ["Ed25519", "ECDSA-P256"], list(KeyAlgorithm)])
def test_keys_of_several_kinds_are_no_wish(algorithms: list[str]) -> None:
    assert key_wish([KeyAlgorithm(name) for name in algorithms]) is None


@pytest.mark.spec("EST-ATTR-05", "EST-ATTR-10", "EST-ATTR-14")
@pytest.mark.parametrize(
    ("algorithms", "old_style", "template"),
    [
        (["ECDSA-P384"], "06052b81040022", "a012301006072a8648ce3d020106052b81040022"),
        (["ECDSA-P521"], "06052b81040023", "a012301006072a8648ce3d020106052b81040023"),
        (["ECDSA-P384", "ECDSA-P256"], "", "a012301006072a8648ce3d020106052b81040022"),
        (["RSA-3072", "RSA-4096"], "", "a00f300d06092a864886f70d0101010500"),
        (["RSA-3072"], "02020c00", None),
        (["Ed25519"], "", "a0073005" + "06032b6570"),
    ],
)
def test_a_key_is_asked_for_in_both_styles(algorithms: list[str], old_style: str, template: str | None) -> None:
    wish = key_wish([KeyAlgorithm(name) for name in algorithms])
    assert wish is not None
    items = csr_wishes.write(Wishes(key=wish))
    assert items[0] == Attribute(type=wish.algorithm, values=(bytes.fromhex(old_style),) if old_style else ())
    assert len([item for item in items if isinstance(item, Attribute) and item.type == wish.algorithm]) == 1
    if template is not None:
        assert bytes.fromhex(template) in csrattrs.encode(items)
    else:
        assert template_of(items).key is not None
        assert csr_wishes.read(items).key == wish


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-15")
def test_the_old_style_has_the_complete_extensions_only_and_the_template_all() -> None:
    complete = ExtensionTemplate(oid="2.5.29.15", critical=True, value=b"\x03\x02\x07\x80")
    items = csr_wishes.write(Wishes(extensions=(complete, ExtensionTemplate(oid="2.5.29.37"))))
    (request,) = [item for item in items if isinstance(item, Attribute) and item.type == EXTENSION_REQUEST]
    assert request.values == (bytes.fromhex("3010300e0603551d0f0101ff040403020780"),)
    assert template_of(items).extensions == (complete, ExtensionTemplate(oid="2.5.29.37"))


@pytest.mark.spec("EST-ATTR-07", "EST-ATTR-13")
def test_name_components_are_bare_oids_in_the_old_style() -> None:
    subject = ((NameComponent(type="2.5.4.10", value=b"\x0c\x04Acme"),), (NameComponent(type="2.5.4.3"),))
    items = csr_wishes.write(Wishes(subject=subject))
    assert items[:2] == ("2.5.4.10", "2.5.4.3")
    assert template_of(items).subject == subject


def test_no_wishes_are_written_as_nothing() -> None:
    assert csr_wishes.write(Wishes()) == ()
    assert csr_wishes.read(()) == Wishes()


component_types = st.sampled_from(["2.5.4.3", "2.5.4.10", "2.5.4.11", "2.5.4.5", "2.5.4.6"])
components = st.builds(
    lambda of_type, text: NameComponent(type=of_type, value=None if text is None else der.tlv(0x0C, text.encode())),
    component_types,
    st.none() | st.text(alphabet="abc", min_size=1, max_size=5),
)
wishes_of_issuers = st.builds(
    lambda key, subject, extensions, proofs: Wishes(
        key=key, subject=tuple((component,) for component in subject) or None, extensions=tuple(extensions)
    ).supply(proofs),
    st.none() | st.sampled_from(list(KeyAlgorithm)).map(lambda algorithm: key_wish([algorithm])),
    st.lists(components, unique_by=lambda component: component.type, max_size=4),
    st.lists(
        st.builds(
            lambda of_type, critical, value: ExtensionTemplate(oid=of_type, critical=critical, value=value),
            st.sampled_from(["2.5.29.15", "2.5.29.17", "2.5.29.37"]),
            st.booleans(),
            st.none() | st.sampled_from([b"\x30\x02\x87\x00", b"\x30\x03\x82\x01a", b"\x03\x02\x07\x80"]),
        ),
        unique_by=lambda extension: extension.oid,
        max_size=3,
    ),
    st.lists(st.sampled_from([CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, OTP_CHALLENGE]), unique=True),
)


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-12", "EST-ATTR-17")
@given(wishes=wishes_of_issuers)
def test_a_client_understands_what_an_issuer_wishes(wishes: Wishes) -> None:
    encoded = csrattrs.encode(csr_wishes.write(wishes))
    assert csr_wishes.read(csrattrs.decode(encoded)) == wishes
