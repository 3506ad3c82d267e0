"""RFC 5272 section 6.5: a registration authority replaces, removes or adds one field at a time, and what cannot be honoured is refused."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Unpack

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc6402

from estcore import cert_template, pkcs10, template_modification
from estcore.certification_request import CertificationRequest
from estcore.cmc_status import BodyPartPath
from estcore.errors import BadCsr, CmcFailed, CmcFailInfo, MalformedBody
from estcore.template_modification import Change, Modification, Placed
from estcore.usages import Usage
from tests import pki
from tests.core.template_fields import TemplateFields

NOW = pki.EPOCH
OLD = pki.name("device-1", organization_name="Acme")
NEW = pki.name("pod-1")
PLAIN = pkcs10.parse(pki.csr(subject=OLD))
FULL = pkcs10.parse(
    pki.csr(subject=OLD, sans=pki.dns("old.example"), usage=pki.key_usage("digital_signature"), ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
)

Extension = x509.Extension[x509.ExtensionType]
SAN: Extension = x509.Extension(x509.SubjectAlternativeName.oid, False, x509.SubjectAlternativeName(pki.dns("new.example", "b.example")))
KEY_AGREEMENT: Extension = x509.Extension(x509.KeyUsage.oid, True, pki.key_usage("digital_signature", "key_agreement"))
SERVER_AUTH: Extension = x509.Extension(x509.ExtendedKeyUsage.oid, False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
CA: Extension = x509.Extension(x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=True, path_length=None))
CA_OF_END_ENTITIES: Extension = x509.Extension(x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=True, path_length=0))
NO_CA: Extension = x509.Extension(x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=False, path_length=None))
CA_USAGE: Extension = x509.Extension(x509.KeyUsage.oid, True, pki.key_usage("key_cert_sign", "crl_sign"))
CA_AND_SIGNING_USAGE: Extension = x509.Extension(x509.KeyUsage.oid, True, pki.key_usage("key_cert_sign", "digital_signature"))


def modification(
    *extensions: Extension,
    requests: Sequence[int] = (1,),
    pki_data: Sequence[int] = (0,),
    remove: bool = False,
    **fields: Unpack[TemplateFields],
) -> Modification:
    template = cert_template.build(extensions=extensions, **fields)
    value = template_modification.build_mod_cert_template(template, requests=requests, pki_data=pki_data, remove=remove)
    return template_modification.parse_mod_cert_template(value)


def raw_modification(template_content: bytes, *, references: bytes = b"", flag: bytes = b"") -> bytes:
    references = references or pki.sequence(b"\x02\x01\x00") + pki.sequence(b"\x02\x01\x01")
    return pki.sequence(references, flag, pki.sequence(template_content))


def addition(*extensions: Extension, requests: Sequence[int] = (1,), pki_data: int = 0) -> Modification:
    """As the ASN.1 module writes it: nothing of ours builds the deprecated control."""
    value = rfc6402.AddExtensions()
    value["pkiDataReference"] = pki_data
    value["certReferences"].extend(requests)
    encoded = b"".join(cert_template.extension_der(each) for each in extensions)
    value["extensions"], _ = decode(pki.sequence(encoded), asn1Spec=value["extensions"].clone())
    return template_modification.parse_add_extensions(encode(value))


def apply(of: CertificationRequest, change: Modification) -> CertificationRequest:
    return template_modification.apply(of, change, now=NOW)


def placed(change: Modification, *, layer: BodyPartPath = (), body_part_id: int = 100) -> Placed:
    return Placed(layer=layer, body_part_id=body_part_id, modification=change)


def refused(*controls: Placed, of: CertificationRequest = FULL) -> CmcFailed:
    with pytest.raises(CmcFailed) as raised:
        template_modification.apply_all({(1,): of, (2,): of, (5, 1): of, (5, 7, 1): of}, controls, now=NOW)
    assert "\n" not in raised.value.message
    return raised.value


# ---- the control


@pytest.mark.spec("EST-CMC-27")
@pytest.mark.parametrize("remove", [False, True])
def test_the_asn1_module_reads_what_is_built_and_writes_it_back(remove: bool) -> None:
    template = cert_template.build(subject=NEW, extensions=[SAN, CA], not_before=NOW, not_after=NOW + timedelta(days=1))
    value = template_modification.build_mod_cert_template(template, requests=[1, 2], pki_data=[5, 7], remove=remove)
    decoded, rest = decode(value, asn1Spec=rfc6402.ModCertTemplate())
    assert rest == b""
    assert bool(decoded["replace"]) is not remove
    assert [int(each) for each in decoded["pkiDataReference"]] == [5, 7]
    assert [int(each) for each in decoded["certReferences"]] == [1, 2]
    assert encode(decoded) == value
    parsed = template_modification.parse_mod_cert_template(value)
    assert (parsed.change, parsed.pki_data, parsed.requests) == (Change.REMOVE if remove else Change.REPLACE, (5, 7), (1, 2))
    assert parsed.template.subject == NEW


@pytest.mark.spec("EST-CMC-27")
def test_a_replace_that_is_spelled_out_is_the_default() -> None:
    value = raw_modification(pki.tlv(0xA5, NEW.public_bytes()), flag=b"\x01\x01\xff")
    assert template_modification.parse_mod_cert_template(value).change is Change.REPLACE


# ---- replace


@pytest.mark.spec("EST-CMC-27")
def test_fields_that_are_there_are_replaced_and_all_others_stay() -> None:
    assert apply(FULL, modification(subject=NEW)) == replace(FULL, subject=NEW, subject_der=NEW.public_bytes())
    assert apply(FULL, modification(SAN)) == replace(FULL, sans=tuple(pki.dns("new.example", "b.example")))
    assert apply(FULL, modification()) == FULL
    life = timedelta(days=7)
    assert apply(FULL, modification(not_before=NOW, not_after=NOW + life)) == replace(FULL, duration=life)
    assert apply(FULL, modification(not_after=NOW + life)) == replace(FULL, duration=life, ends_at=NOW + life)


@pytest.mark.spec("EST-CMC-27")
@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([KEY_AGREEMENT], {Usage.DIGITAL_SIGNATURE, Usage.KEY_AGREEMENT, Usage.CLIENT_AUTH}),
        ([SERVER_AUTH], {Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH}),
        ([KEY_AGREEMENT, SERVER_AUTH], {Usage.DIGITAL_SIGNATURE, Usage.KEY_AGREEMENT, Usage.SERVER_AUTH}),
    ],
)
def test_key_usage_and_extended_key_usage_are_each_a_field(extensions: list[Extension], expected: set[Usage]) -> None:
    assert apply(FULL, modification(*extensions)) == replace(FULL, usages=frozenset(expected))


@pytest.mark.spec("EST-CMC-27")
def test_what_the_request_did_not_have_is_set() -> None:
    changed = apply(PLAIN, modification(SAN, SERVER_AUTH, subject=NEW))
    assert changed.subject == NEW
    assert changed.sans == pki.dns("new.example", "b.example")
    assert changed.usages == frozenset({Usage.SERVER_AUTH})


@pytest.mark.spec("EST-CMC-27")
def test_basic_constraints_ask_for_a_ca_certificate_or_for_none() -> None:
    ca = apply(PLAIN, modification(CA))
    assert ca == replace(PLAIN, ca=True)
    assert apply(ca, modification(NO_CA)) == PLAIN
    assert apply(PLAIN, modification(CA_OF_END_ENTITIES)) == replace(PLAIN, ca=True)


@pytest.mark.spec("EST-CMC-27")
def test_the_key_usages_that_every_ca_has_go_with_ca_and_with_nothing_else() -> None:
    assert apply(PLAIN, modification(CA, CA_USAGE)) == replace(PLAIN, ca=True)
    assert apply(PLAIN, modification(CA, CA_AND_SIGNING_USAGE)) == replace(PLAIN, ca=True, usages=frozenset({Usage.DIGITAL_SIGNATURE}))
    for extensions in ([CA_USAGE], [NO_CA, CA_USAGE], [CA_AND_SIGNING_USAGE]):
        with pytest.raises(BadCsr, match="CA"):
            apply(PLAIN, modification(*extensions))


# ---- remove


@pytest.mark.spec("EST-CMC-27")
def test_fields_that_are_there_are_removed_whatever_their_value() -> None:
    request = replace(FULL, duration=timedelta(days=1), ends_at=NOW + timedelta(days=1), ca=True, subject_key_identifier=b"ski")
    assert apply(request, modification(remove=True, subject=NEW)).subject == x509.Name([])
    assert apply(request, modification(remove=True, subject=NEW)).subject_der == b"\x30\x00"
    assert apply(request, modification(remove=True, not_after=NOW)) == replace(request, duration=None, ends_at=None)
    assert apply(request, modification(SAN, remove=True)) == replace(request, sans=())
    assert apply(request, modification(CA_USAGE, remove=True)) == replace(request, usages=frozenset({Usage.CLIENT_AUTH}))
    assert apply(request, modification(SERVER_AUTH, remove=True)) == replace(request, usages=frozenset({Usage.DIGITAL_SIGNATURE}))
    assert apply(request, modification(CA_USAGE, SERVER_AUTH, remove=True)) == replace(request, usages=None)
    assert apply(request, modification(NO_CA, remove=True)) == replace(request, ca=False)
    ski = x509.Extension(x509.SubjectKeyIdentifier.oid, False, x509.SubjectKeyIdentifier(b"x"))
    assert apply(request, modification(ski, remove=True)) == replace(request, subject_key_identifier=None)
    assert apply(PLAIN, modification(SAN, CA_USAGE, SERVER_AUTH, remove=True)) == PLAIN


@pytest.mark.spec("EST-CMC-27")
def test_a_removal_does_not_read_values_that_would_be_refused() -> None:
    value = raw_modification(pki.tlv(0xA9, pki.extension("2.5.29.17", b"\x05\x00"), pki.extension("1.2.3.4", b"")), flag=b"\x01\x01\x00")
    assert apply(FULL, template_modification.parse_mod_cert_template(value)) == replace(FULL, sans=())


# ---- layers and references


def changed_subjects(*controls: Placed) -> dict[BodyPartPath, str]:
    requests = {(1,): FULL, (2,): FULL, (5, 1): FULL, (5, 7, 1): FULL}
    changed = template_modification.apply_all(requests, controls, now=NOW)
    return {path: request.subject.rfc4514_string() for path, request in changed.items() if request != FULL}


def subject(common_name: str, *, requests: Sequence[int] = (1,), pki_data: Sequence[int] = (0,), remove: bool = False) -> Modification:
    return modification(subject=pki.name(common_name), requests=requests, pki_data=pki_data, remove=remove)


@pytest.mark.spec("EST-CMC-27")
def test_references_are_relative_to_the_pki_data_of_the_control() -> None:
    assert changed_subjects(placed(subject("a"))) == {(1,): "CN=a"}
    assert changed_subjects(placed(subject("a", requests=[1, 2]))) == {(1,): "CN=a", (2,): "CN=a"}
    assert changed_subjects(placed(subject("a", pki_data=[5]))) == {(5, 1): "CN=a"}
    assert changed_subjects(placed(subject("a", pki_data=[5, 7]))) == {(5, 7, 1): "CN=a"}
    assert changed_subjects(placed(subject("a"), layer=(5,))) == {(5, 1): "CN=a"}
    assert changed_subjects(placed(subject("a", pki_data=[7]), layer=(5,))) == {(5, 7, 1): "CN=a"}


@pytest.mark.spec("EST-CMC-27")
def test_the_outermost_layer_wins_in_whatever_order_controls_come() -> None:
    inner = placed(subject("inner"), layer=(5, 7))
    middle = placed(subject("middle", pki_data=[7]), layer=(5,))
    outer = placed(subject("outer", pki_data=[5, 7]))
    for controls in ([inner, middle, outer], [outer, middle, inner], [middle, outer, inner]):
        assert changed_subjects(*controls) == {(5, 7, 1): "CN=outer"}
    assert changed_subjects(inner, middle) == {(5, 7, 1): "CN=middle"}


@pytest.mark.spec("EST-CMC-27")
def test_an_outer_layer_adds_to_what_an_inner_one_left() -> None:
    requests: dict[BodyPartPath, CertificationRequest] = {(5, 1): FULL}
    controls = [placed(modification(SAN, pki_data=[5])), placed(subject("inner"), layer=(5,))]
    [changed] = template_modification.apply_all(requests, controls, now=NOW).values()
    assert changed.subject == pki.name("inner")
    assert changed.sans == pki.dns("new.example", "b.example")


@pytest.mark.spec("EST-CMC-27", "THREAT-17")
@pytest.mark.parametrize(
    ("change", "layer"),
    [
        pytest.param(subject("a", requests=[3]), (), id="no such request"),
        pytest.param(subject("a", requests=[1, 3]), (), id="one of two"),
        pytest.param(subject("a", pki_data=[6]), (), id="no such message"),
        pytest.param(subject("a", requests=[7], pki_data=[5]), (), id="a message, not a request"),
        pytest.param(subject("a", requests=[2]), (5,), id="a request of the layer outside"),
        pytest.param(subject("a", requests=[100]), (), id="the control itself"),
        pytest.param(subject("a", requests=[0]), (), id="the whole message"),
        pytest.param(addition(SAN, requests=[3]), (), id="addExtensions: no such request"),
        pytest.param(addition(SAN, pki_data=6), (), id="addExtensions: no such message"),
    ],
)
def test_an_unknown_reference_is_a_bad_request_about_the_control(change: Modification, layer: BodyPartPath) -> None:
    failed = refused(placed(change, layer=layer))
    assert failed.fail_info is CmcFailInfo.BAD_REQUEST
    assert failed.body_parts == ((*layer, 100),)


@pytest.mark.spec("EST-CMC-27", "THREAT-17")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(subject("a"), subject("b"), id="two subjects"),
        pytest.param(subject("a"), subject("a"), id="the same subject twice"),
        pytest.param(subject("a"), subject("a", remove=True), id="replaced and removed"),
        pytest.param(modification(SAN), modification(SAN, remove=True), id="an extension replaced and removed"),
        pytest.param(modification(not_after=NOW + timedelta(days=1)), modification(not_after=NOW + timedelta(days=2)), id="two lives"),
        pytest.param(modification(CA), modification(NO_CA), id="CA and no CA"),
        pytest.param(addition(SERVER_AUTH), addition(SERVER_AUTH), id="an extension added twice"),
        pytest.param(addition(SAN), modification(SAN), id="added and replaced"),
    ],
)
def test_two_controls_of_one_pki_data_never_touch_the_same_field(one: Modification, other: Modification) -> None:
    failed = refused(placed(one, body_part_id=100), placed(other, body_part_id=101), of=PLAIN)
    assert failed.fail_info is CmcFailInfo.BAD_REQUEST
    assert failed.body_parts == ((100,), (101,))


@pytest.mark.spec("EST-CMC-27")
def test_two_controls_of_one_pki_data_may_touch_different_fields_or_requests() -> None:
    controls = [placed(subject("a")), placed(modification(SAN), body_part_id=101), placed(subject("b", requests=[2]), body_part_id=102)]
    changed = template_modification.apply_all({(1,): FULL, (2,): FULL}, controls, now=NOW)
    assert [request.subject.rfc4514_string() for request in changed.values()] == ["CN=a", "CN=b"]
    assert changed[(1,)].sans == pki.dns("new.example", "b.example")
    assert changed[(2,)].sans == FULL.sans


# ---- addExtensions


@pytest.mark.spec("EST-CMC-27")
def test_add_extensions_adds_what_is_not_there() -> None:
    assert apply(PLAIN, addition(SAN, SERVER_AUTH)) == replace(
        PLAIN, sans=tuple(pki.dns("new.example", "b.example")), usages=frozenset({Usage.SERVER_AUTH})
    )


@pytest.mark.spec("EST-CMC-27")
@pytest.mark.parametrize("extension", [SAN, KEY_AGREEMENT, SERVER_AUTH, CA])
def test_add_extensions_changes_nothing_that_is_there(extension: Extension) -> None:
    request = replace(FULL, ca=True)
    failed = refused(placed(addition(extension)), of=request)
    assert failed.fail_info is CmcFailInfo.BAD_REQUEST
    assert "modCertTemplate" in failed.message


# ---- what cannot be honoured


@pytest.mark.spec("EST-CMC-27", "THREAT-01", "THREAT-02", "THREAT-17")
@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"\x80\x01\x00", "version", id="version 1"),
        pytest.param(b"\x81\x01\x05", "serialNumber", id="serialNumber"),
        pytest.param(b"\xa2" + pki.ECDSA_WITH_SHA256[1:], "signingAlg", id="signingAlg"),
        pytest.param(pki.tlv(0xA3, OLD.public_bytes()), "issuer", id="issuer"),
        pytest.param(b"\xa6" + pki.spki_der(pki.key().public_key())[1:], "public key", id="publicKey"),
        pytest.param(b"\x87\x02\x00\x01", "issuerUID", id="issuerUID"),
        pytest.param(b"\x88\x02\x00\x01", "subjectUID", id="subjectUID"),
        pytest.param(pki.tlv(0xA4), "validity", id="an empty validity"),
    ],
)
def test_fields_that_a_registration_authority_does_not_choose_are_refused_by_name(content: bytes, text: str) -> None:
    for flag in (b"", b"\x01\x01\x00"):
        with pytest.raises(CmcFailed, match=text) as raised:
            template_modification.parse_mod_cert_template(raw_modification(content, flag=flag))
        assert raised.value.fail_info is CmcFailInfo.BAD_REQUEST


@pytest.mark.spec("EST-CMC-27", "THREAT-01", "THREAT-02", "THREAT-03", "THREAT-05")
@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(pki.extension("2.5.29.30", pki.sequence(pki.tlv(0xA0, pki.sequence(pki.tlv(0x82, b"x"))))), id="nameConstraints"),
        pytest.param(pki.extension("1.2.3.4", b"\x05\x00"), id="an unknown extension"),
        pytest.param(pki.extension("1.2.3.4", b"\x05\x00", critical=True), id="an unknown critical extension"),
        pytest.param(pki.extension("2.5.29.19", pki.sequence(b"\x01\x01\xff", b"\x02\x01\x01")), id="pathLenConstraint 1"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence(pki.oid("1.3.6.1.5.5.7.3.28"))), id="cmcRA"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence(pki.oid("1.3.6.1.5.5.7.3.27"))), id="cmcCA"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence(pki.oid("1.3.6.1.5.5.7.3.9"))), id="OCSPSigning"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence(pki.oid("2.5.29.37.0"))), id="anyExtendedKeyUsage"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence()), id="an empty extendedKeyUsage"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"*.com"))), id="a name that nobody gets"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence()), id="an empty subjectAltName"),
        pytest.param(pki.extension("2.5.29.14", pki.tlv(0x04, bytes(20))), id="a subjectKeyIdentifier of another key"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a.example"))) * 2, id="an extension twice"),
        pytest.param(pki.sequence(pki.oid("2.5.29.17")), id="an extension without value"),
        pytest.param(b"\x05\x00", id="no extension at all"),
    ],
)
def test_extensions_that_are_not_issued_are_refused(extension: bytes) -> None:
    value = raw_modification(pki.tlv(0xA9, extension))
    failed = refused(placed(template_modification.parse_mod_cert_template(value)), of=PLAIN)
    assert failed.fail_info in (CmcFailInfo.UNSUPPORTED_EXT, CmcFailInfo.BAD_REQUEST)
    assert failed.body_parts == ((100,),)


@pytest.mark.spec("EST-CMC-27")
@pytest.mark.parametrize(
    ("fields", "fail_info"),
    [
        ({"not_before": NOW + timedelta(minutes=6), "not_after": NOW + timedelta(days=1)}, CmcFailInfo.BAD_TIME),
        ({"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=1)}, CmcFailInfo.BAD_TIME),
        ({"not_after": NOW}, CmcFailInfo.BAD_REQUEST),
    ],
)
def test_a_validity_that_cannot_be_honoured_is_a_failure_about_the_control(fields: TemplateFields, fail_info: CmcFailInfo) -> None:
    """badTime: not sufficiently close to the system time (RFC 5272 section 6.1.4), which a sender that means now mends by its clock."""
    failed = refused(placed(modification(**fields)))
    assert failed.fail_info is fail_info
    assert failed.body_parts == ((100,),)


@pytest.mark.spec("EST-CMC-27", "THREAT-17")
@pytest.mark.parametrize(
    "references",
    [
        pytest.param(pki.sequence() + pki.sequence(b"\x02\x01\x01"), id="no message"),
        pytest.param(pki.sequence(b"\x02\x01\x00") + pki.sequence(), id="no request"),
        pytest.param(pki.sequence(b"\x02\x01\x00", b"\x02\x01\x05") + pki.sequence(b"\x02\x01\x01"), id="0 within a path"),
        pytest.param(pki.sequence(b"\x02\x01\x05", b"\x02\x01\x00") + pki.sequence(b"\x02\x01\x01"), id="0 at the end of a path"),
        pytest.param(pki.sequence(*(bytes((2, 1, n)) for n in range(1, 10))) + pki.sequence(b"\x02\x01\x01"), id="nine layers"),
        pytest.param(pki.sequence(b"\x02\x01\x00") + pki.sequence(b"\x02\x01\x01", b"\x02\x01\x01"), id="a request twice"),
        pytest.param(pki.sequence(b"\x02\x01\x00") + pki.sequence(b"\x02\x01\xff"), id="request -1"),
        pytest.param(pki.sequence(b"\x02\x01\x00") + pki.sequence(b"\x02\x05\x01\x00\x00\x00\x00"), id="request 2^32"),
        pytest.param(pki.sequence(b"\x02\x01\x00") + pki.sequence(*(bytes((2, 1, n)) for n in range(101))), id="101 requests"),
    ],
)
def test_references_of_no_sense_are_a_bad_request(references: bytes) -> None:
    with pytest.raises(CmcFailed) as raised:
        template_modification.parse_mod_cert_template(raw_modification(pki.tlv(0xA5, NEW.public_bytes()), references=references))
    assert raised.value.fail_info is CmcFailInfo.BAD_REQUEST


@pytest.mark.spec("THREAT-08")
def test_a_control_cut_off_anywhere_is_malformed() -> None:
    template = cert_template.build(subject=NEW, extensions=[SAN], not_after=NOW + timedelta(days=1))
    value = template_modification.build_mod_cert_template(template, requests=[1])
    for end in range(len(value)):
        with pytest.raises(MalformedBody):
            template_modification.parse_mod_cert_template(value[:end])
        with pytest.raises(MalformedBody):
            template_modification.parse_add_extensions(value[:end])
