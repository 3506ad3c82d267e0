"""Full PKI Requests of Bouncy Castle's ASN.1 and CMS at the real server, and its answers as Bouncy Castle reads them (RFC 5272)."""

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.interop.bouncycastle.client import LOGIN, NAMES, Answer, Run, certificates
from tests.interop.conftest import PASSWORD

SUCCESS, FAILED = "0", "2"
BAD_REQUEST, BAD_IDENTITY = "2", "7"
"""CMCFailInfo, RFC 5272 section 6.1.4."""


@pytest.fixture(scope="module")
def device(bouncy_castle: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The identity of a device that enrolled before."""
    folder = tmp_path_factory.mktemp("device")
    bouncy_castle("enroll", save=folder, **NAMES, **LOGIN)
    return folder


def granted(answer: Answer, ca: x509.Certificate) -> x509.Certificate:
    """The certificate for the key of a request; status, nonce and signature are as they must be."""
    assert (answer["status"], answer["cmc_status"], answer["bodies"]) == (["200"], [SUCCESS], ["[1]"]), answer
    assert answer["type"] == ["application/pkcs7-mime; smime-type=CMC-response"]
    assert answer["nonce_returned"] == ["true"]
    (signer,) = certificates(answer, "signer")
    assert signer.subject == ca.subject
    key = load_der_public_key(base64.b64decode(answer["public_key"][0]))
    (issued,) = (each for each in certificates(answer) if each.public_key() == key)
    issued.verify_directly_issued_by(ca)
    return issued


@pytest.mark.spec("EST-CMC-01", "EST-CMC-03", "EST-CMC-05", "EST-CMC-10", "EST-CMC-14", "EST-CMC-18")
@pytest.mark.parametrize("form", [{}, {"crmf": "yes"}], ids=["PKCS#10", "CRMF"])
@pytest.mark.parametrize("connection", ["anonymous", "certificate"])
def test_a_request_signed_by_an_existing_certificate_is_granted(
    bouncy_castle: Run, ca: x509.Certificate, device: Path, form: dict[str, str], connection: str
) -> None:
    on_connection = {"identity": device} if connection == "certificate" else {}
    issued = granted(bouncy_castle("fullcmc", signer=device, **NAMES, **form, **on_connection), ca)
    assert issued.subject.rfc4514_string() == "CN=device-7"


@pytest.mark.spec("EST-CMC-04", "EST-CMC-12")
def test_an_unknown_control_refuses_the_whole_and_is_named_in_the_body_list(bouncy_castle: Run, device: Path) -> None:
    answer = bouncy_castle("fullcmc", signer=device, control="1.3.6.1.4.1.99999.1", **NAMES)
    assert (answer["status"], answer["cmc_status"], answer["fail_info"]) == (["400"], [FAILED], [BAD_REQUEST])
    assert answer["bodies"] == ["[4]"], "the control is the third, after the request and two controls"
    assert answer["nonce_returned"] == ["true"]
    assert "1.3.6.1.4.1.99999.1" in answer["text"][0]


@pytest.mark.spec("EST-CMC-04")
def test_another_subject_than_the_signers_is_refused_with_a_cmc_body(bouncy_castle: Run, device: Path) -> None:
    answer = bouncy_castle("fullcmc", signer=device, subject="CN=device-8")
    assert (answer["cmc_status"], answer["bodies"]) == ([FAILED], ["[1]"])
    assert answer["status"][0].startswith("4")
    assert all(certificate.subject.rfc4514_string() == "CN=Factory CA" for certificate in certificates(answer))


@pytest.mark.spec("EST-CMC-08", "EST-CMC-20", "EST-CMC-22")
def test_a_newcomer_is_granted_by_its_shared_secret(bouncy_castle: Run) -> None:
    """Signed by the key that is enrolled; identityProofV2 and popLinkWitnessV2 as Bouncy Castle's ASN.1 has them."""
    (root,) = certificates(bouncy_castle("cacerts", label="secret"))
    newcomer = {"subject": "CN=device-7", "identification": "device-7"}
    issued = granted(bouncy_castle("fullcmc", label="secret", secret=PASSWORD, **newcomer), root)
    assert issued.subject.rfc4514_string() == "CN=device-7"
    answer = bouncy_castle("fullcmc", label="secret", secret=PASSWORD.upper(), **newcomer)
    assert (answer["cmc_status"], answer["fail_info"]) == ([FAILED], [BAD_IDENTITY])
