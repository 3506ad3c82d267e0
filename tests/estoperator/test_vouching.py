"""What the operator says as registration authority, read again with the code that estserver reads it with."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from estcore import cert_template, cmc_control_codec, crmf, full_request, pkcs10, pki_data, ra_witness, template_modification
from estcore.certification_request import RequestForm
from estcore.cmc_controls import LraPopWitness, RegInfo
from estcore.full_request import REQUEST
from estcore.requester import AuthenticatedBy, Requester
from estcore.signatory import Signatory
from estcore.template_modification import Modification
from estcore.usages import Usage
from estoperator.vouching import Wishes, transaction_id, vouched
from estserver import reg_info
from estserver.full_cmc_requester import Sender
from tests import pki
from tests.estoperator.builders import NOW, WEB, approved, pod_request, request_of

CSR = pkcs10.parse(pki.csr())
REGISTRATION_AUTHORITY = Requester(
    authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN, identity="est-issuer/operator", registration_authority=True
)
UID = "1d9f4cde-5a37-4f6e-9f0e-7e0f3c1d2b3a"


def modification(wishes: Wishes) -> Modification:
    template_der = vouched(approved(), CSR, wishes, now=NOW).cert_template_der
    assert template_der is not None
    return template_modification.parse_mod_cert_template(template_modification.build_mod_cert_template(template_der, requests=[REQUEST]))


def test_without_wishes_the_csr_goes_on_as_it_is() -> None:
    said = vouched(approved(), CSR, Wishes(), now=NOW)
    assert (said.csr_der, said.form, said.cert_template_der, said.possession) == (CSR.csr_der, RequestForm.PKCS10, None, True)


@pytest.mark.spec("K8S-CONTRACT-20")
@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
@pytest.mark.parametrize("apart", [timedelta(minutes=-2), timedelta(0), timedelta(minutes=2)])
def test_the_life_is_the_duration_to_the_second_whatever_the_two_clocks_say(microsecond: int, apart: timedelta) -> None:
    template = vouched(approved(), CSR, Wishes(duration=timedelta(hours=25, seconds=7)), now=NOW.replace(microsecond=microsecond))
    assert template.cert_template_der is not None
    read = template_modification.parse_mod_cert_template(
        template_modification.build_mod_cert_template(template.cert_template_der, requests=[REQUEST])
    ).template
    assert read.validity is not None
    assert cert_template.duration(read.validity, now=NOW + apart) == timedelta(hours=25, seconds=7)


@pytest.mark.spec("K8S-CONTRACT-21")
def test_usages_and_names_take_the_place_of_the_csrs() -> None:
    wishes = Wishes(usages=frozenset({Usage.SERVER_AUTH, Usage.DIGITAL_SIGNATURE}), subject=x509.Name([]), sans=tuple(pki.dns(WEB)))
    template = modification(wishes).template
    assert template.subject == x509.Name([])
    assert template.extensions_der is not None
    extensions = cert_template.load_extensions(template.extensions_der, spki_der=_spki())
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical, "the subject is empty (RFC 5280 section 4.2.1.6)"
    assert names.value.get_values_for_type(x509.DNSName) == [WEB]
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.spec("K8S-CONTRACT-21")
def test_a_ca_is_asked_for_by_basic_constraints_alone() -> None:
    template = modification(Wishes(is_ca=True)).template
    assert template.extensions_der is not None
    (only,) = cert_template.load_extensions(template.extensions_der, spki_der=_spki())
    assert only.value == x509.BasicConstraints(ca=True, path_length=None)


def test_an_objects_uid_is_the_transaction_whatever_it_looks_like() -> None:
    assert transaction_id(UID) == int(UID.replace("-", ""), 16)
    assert len({transaction_id("a"), transaction_id("b"), transaction_id(UID)}) == 3


def test_the_records_say_for_whom_it_was_and_drop_a_name_that_no_record_takes() -> None:
    said = vouched(request_of(username="system:serviceaccount:devices:web"), CSR, Wishes(), now=NOW)
    assert json.loads(said.reg_info or b"") == {
        "door": "est-issuer.io",
        "namespace": "devices",
        "name": "web",
        "requester": "system:serviceaccount:devices:web",
    }


@pytest.mark.parametrize("text", ["a\nb", "l" * 5000, "\U0001f600" * 5000, '"' * 5000, "\\" * 5000, "\u202e"])
def test_whatever_objects_and_users_are_called_estserver_takes_what_it_is_told_of_them(text: str) -> None:
    """A CertificateSigningRequest may have any name without a slash or a percent sign."""
    request = request_of(username=text)
    told = vouched(replace(request, key=request.key._replace(name=text)), CSR, Wishes(), now=NOW).reg_info or b""
    read = reg_info.read(
        RegInfo(told), Sender(requester=REGISTRATION_AUTHORITY, signatory=Signatory(), registration_authority=True, token=True)
    )
    members = json.loads(read.on_behalf_of or "")
    assert members["name"] == members["requester"]
    assert members["name"] == text.replace("\n", "\ufffd").replace("\u202e", "\ufffd")[: len(members["name"])]
    assert len(members["name"]) >= min(len(text), 225)


def _spki() -> bytes:
    return pki.spki_der(pki.key(owner="device").public_key())


@pytest.mark.spec("EST-CMC-14", "EST-CMC-26", "EST-POP-16")
def test_a_bare_key_goes_on_as_a_crmf_request_whose_possession_we_vouch_for() -> None:
    """Contract 3b, "Skew": kube-apiserver saw the proof, and the operator says so as registration authority."""
    csr = crmf.for_public_key(pki.spki_der(pki.key(owner="pod").public_key()), cert_req_id=REQUEST)
    body = pki_data.parse(full_request.vouched_body(vouched(pod_request(), csr, Wishes(), now=NOW)))
    [request] = body.requests
    assert isinstance(request, pki_data.CrmfRequest)
    assert (request.body_part_id, request.cert_req_msg_der) == (REQUEST, csr.csr_der)
    witnesses = [value for value in map(cmc_control_codec.read, body.controls) if isinstance(value, LraPopWitness)]
    assert [ra_witness.parse_pop_witness(witness.value_der) for witness in witnesses] == [(0, (REQUEST,))]
