"""The client half without a network: what is asked, and what each answer means."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID

from estcore import csr_builder, exchange, pkcs10
from estcore.errors import ConfigurationError, MalformedResponse, Pending, Refused, ServerUnavailable
from estcore.exchange import HttpRequest, HttpResponse
from estcore.usages import Usage
from tests.client.double import CERTS_ONLY, Identity, certs_only, issue, make_ca, name
from tests.core import vectors

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CSR_DER = csr_builder.build(KEY, subject=name("device-7"))


def answer(status: int = 200, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status=status, headers={key.replace("_", "-"): value for key, value in headers.items()}, body=body)


def bag(*certificates: x509.Certificate, content_type: str = CERTS_ONLY) -> HttpResponse:
    return answer(body=base64.b64encode(certs_only(certificates)), content_type=content_type)


@pytest.fixture(scope="module")
def leaf(ca: Identity) -> x509.Certificate:
    return issue(ca, CSR_DER)


# What is asked


@pytest.mark.spec("EST-URI-01", "EST-URI-03", "EST-URI-04")
@pytest.mark.parametrize(
    ("label", "path"),
    [(None, "/.well-known/est/cacerts"), ("factory", "/.well-known/est/factory/cacerts"), ("ca:12", "/.well-known/est/ca:12/cacerts")],
)
def test_ca_certs_are_asked_for_by_get(label: str | None, path: str) -> None:
    request = exchange.get_ca_certs(label)
    assert (request.method, request.target, request.body) == ("GET", path, b"")


@pytest.mark.spec("EST-URI-03", "EST-ATTR-01")
def test_csr_attributes_are_asked_for_by_get() -> None:
    request = exchange.get_csr_attrs("factory")
    assert (request.method, request.target, request.body) == ("GET", "/.well-known/est/factory/csrattrs", b"")


@pytest.mark.spec("EST-URI-03", "EST-ENROLL-01", "EST-REENR-01", "EST-ENC-01", "EST-ENC-04", "EST-ENC-07")
@pytest.mark.parametrize(("renewal", "operation"), [(False, "simpleenroll"), (True, "simplereenroll")])
def test_a_csr_is_posted_as_base64_in_short_lines(renewal: bool, operation: str) -> None:
    request = exchange.post_csr("factory", CSR_DER, renewal=renewal)
    assert (request.method, request.target) == ("POST", f"/.well-known/est/factory/{operation}")
    assert dict(request.headers)["Content-Type"] == "application/pkcs10"
    assert base64.b64decode(request.body) == CSR_DER
    assert request.body.endswith(b"\n")
    assert max(len(line) for line in request.body.splitlines()) == 64


@pytest.mark.spec("EST-URI-05")
@pytest.mark.parametrize("label", ["cacerts", "a/b", "", "%2e", "..", "a b", "a;b", "a?b", "ä", "-a"])
def test_what_cannot_be_a_label_is_refused_before_it_is_sent(label: str) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        exchange.get_ca_certs(label)


def test_neither_credentials_nor_bodies_show_in_a_repr() -> None:
    request = HttpRequest(method="GET", target="/", body=b"topsecret").with_headers(("Authorization", "topsecret"))
    assert "topsecret" not in repr(request) + repr(answer(body=b"topsecret"))


# What a good answer means


@pytest.mark.spec("EST-CACERTS-02", "EST-RESP-01", "EST-HTTP-02")
@pytest.mark.parametrize(
    "content_type",
    [
        "application/pkcs7-mime",
        "application/pkcs7-mime; smime-type=certs-only",
        "application/pkcs7-mime;smime-type=certs-only",
        "Application/PKCS7-Mime ; Smime-Type=Certs-Only",
        'application/pkcs7-mime; smime-type="certs-only"; name=smime.p7c',
    ],
)
def test_a_bag_is_read_whatever_way_its_type_is_written(ca: Identity, content_type: str) -> None:
    assert exchange.read_ca_certs(bag(ca.certificate, content_type=content_type), now=NOW) == (ca.certificate,)


@pytest.mark.spec("EST-RESP-03", "EST-CACERTS-06")
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_our_certificate_is_the_one_with_our_key_wherever_it_is(ca: Identity, leaf: x509.Certificate, order: Sequence[int]) -> None:
    certificates = (leaf, ca.certificate, make_ca("another CA").certificate)
    assert exchange.read_issued(bag(*(certificates[i] for i in order)), csr_der=CSR_DER, now=NOW) == leaf


@pytest.mark.spec("EST-RESP-04")
def test_a_certificate_for_another_key_is_an_error(ca: Identity) -> None:
    other = issue(ca, csr_builder.build(ec.generate_private_key(ec.SECP256R1()), subject=name("device-7")))
    with pytest.raises(MalformedResponse, match="key of the CSR"):
        exchange.read_issued(bag(other, ca.certificate), csr_der=CSR_DER, now=NOW)


def _crlf(text: bytes) -> bytes:
    return b"\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + b"\r\n"


@pytest.mark.spec("EST-ENC-02", "EST-ENC-03")
@pytest.mark.parametrize("cte", ["base64", "binary", "8bit", "garbage"])
@pytest.mark.parametrize("wrapped", [bytes, _crlf, lambda text: b"  " + text + b"\t\n\n"], ids=["one line", "76 CRLF", "blanks"])
def test_white_space_and_transfer_encoding_do_not_matter(ca: Identity, cte: str, wrapped: Callable[[bytes], bytes]) -> None:
    body = wrapped(base64.b64encode(certs_only([ca.certificate])))
    response = answer(body=body, content_type=CERTS_ONLY, content_transfer_encoding=cte)
    assert exchange.read_ca_certs(response, now=NOW) == (ca.certificate,)


@pytest.mark.spec("EST-CACERTS-02", "EST-CACERTS-03", "EST-RESP-03")
@pytest.mark.parametrize(("pair", "serial"), [("rfc7030-a3-simpleenroll", 0x15), ("rfc9148-a2-sen", 0x7E7661D7B54E4632)])
def test_the_answers_that_the_rfcs_print_are_read(pair: str, serial: int) -> None:
    csr_der = base64.b64decode(vectors.body(f"{pair}-request"))
    response = answer(body=vectors.body(f"{pair}-response"), content_type="application/pkcs7-mime; smime-type=certs-only")
    assert exchange.read_issued(response, csr_der=csr_der, now=NOW).serial_number == serial


@pytest.mark.spec("EST-CACERTS-02", "EST-CACERTS-06")
def test_the_four_ca_certificates_of_rfc_7030_are_read_under_its_own_content_type() -> None:
    response = answer(body=vectors.body("rfc7030-a1-cacerts-response"), content_type="application/pkcs7-mime")
    assert len(exchange.read_ca_certs(response, now=NOW)) == 4


# What a wrong answer means


def _wrong_bodies(ca: Identity) -> dict[str, bytes]:
    der = certs_only([ca.certificate])
    return {
        "nothing": b"",
        "raw DER": der,
        "PEM": b"-----BEGIN PKCS7-----\n" + base64.b64encode(der) + b"\n-----END PKCS7-----\n",
        "a bare certificate": base64.b64encode(ca.certificate.public_bytes(Encoding.DER)),
        "cut short": base64.b64encode(der[:-20]),
        "trailing octets": base64.b64encode(der + b"\0"),
        "url-safe base64": base64.urlsafe_b64encode(b"\xfb\xff" * 10),
        "HTML": b"<html>welcome</html>",
        "nesting": base64.b64encode(b"\x30\x80" * 5000),
    }


@pytest.mark.spec("EST-ENC-01", "EST-ENC-07", "EST-CACERTS-03")
@pytest.mark.parametrize("which", sorted(_wrong_bodies(make_ca("x"))))
def test_a_body_that_is_no_certs_only_is_a_protocol_error(ca: Identity, which: str) -> None:
    with pytest.raises(MalformedResponse, match="certs-only"):
        exchange.read_ca_certs(answer(body=_wrong_bodies(ca)[which], content_type=CERTS_ONLY), now=NOW)


@pytest.mark.spec("EST-HTTP-01")
@pytest.mark.parametrize("content_type", ["text/html", "application/pkcs10", "application/pkcs7-mime; smime-type=CMC-response", "", ";"])
def test_a_good_body_of_another_type_is_a_protocol_error(ca: Identity, content_type: str) -> None:
    with pytest.raises(MalformedResponse, match="instead of a certs-only"):
        exchange.read_ca_certs(bag(ca.certificate, content_type=content_type), now=NOW)


@pytest.mark.spec("EST-CACERTS-01", "EST-RESP-12", "EST-HTTP-01")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None),
        (201, MalformedResponse),
        (204, MalformedResponse),
        (304, MalformedResponse),
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, Refused),
        (409, Refused),
        (413, Refused),
        (415, Refused),
        (408, ServerUnavailable),
        (425, ServerUnavailable),
        (429, ServerUnavailable),
        (500, ServerUnavailable),
        (502, ServerUnavailable),
        (503, ServerUnavailable),
        (504, ServerUnavailable),
    ],
)
def test_the_status_alone_tells_success(ca: Identity, status: int, kind: type[Exception] | None) -> None:
    good = bag(ca.certificate)
    response = HttpResponse(status=status, headers=good.headers, body=good.body)
    if kind is None:
        exchange.read_ca_certs(response, now=NOW)
    else:
        with pytest.raises(kind) as raised:
            exchange.read_ca_certs(response, now=NOW)
        if isinstance(raised.value, Refused):
            assert raised.value.http_status == status


@pytest.mark.spec("EST-RESP-08", "EST-RESP-09")
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Tue, 24 Nov 2026 12:01:30 GMT", 90),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 1),
        ("0", 1),
        ("999999999", 86400),
        ("-5", 60),
        ("1e9", 60),
        ("soon", 60),
        (None, 60),
    ],
)
def test_both_forms_of_retry_after_are_read_and_bounded(value: str | None, wait: int) -> None:
    headers = {} if value is None else {"retry_after": value}
    with pytest.raises(Pending, match="waits for approval") as pending:
        exchange.read_issued(answer(202, b"", **headers), csr_der=CSR_DER, now=NOW)
    assert pending.value.retry_after == timedelta(seconds=wait)


@pytest.mark.spec("EST-RESP-12")
def test_a_busy_server_says_when_to_come_back() -> None:
    with pytest.raises(ServerUnavailable, match="maintenance") as busy:
        exchange.check_status(answer(503, b"maintenance\n", retry_after="30", content_type="text/plain"), now=NOW)
    assert busy.value.retry_after == timedelta(seconds=30)


@pytest.mark.spec("EST-RESP-06", "THREAT-36")
@pytest.mark.parametrize(
    ("body", "content_type", "shown"),
    [
        (b"DNS:evil.example is not permitted\n", "text/plain; charset=utf-8", "DNS:evil.example is not permitted"),
        (b"no type at all", None, "no type at all"),
        (b"\x1b[2J\x1b]0;title\x07two\r\nlines", "text/plain", "[2J ]0;title two lines"),
        (b"\xff\xfe", "text/plain", None),
        (b"x" * 5000, "text/plain", "x" * 299 + "…"),
        ("名前 не разрешено".encode(), "text/plain", "名前 не разрешено"),
        ("a\u202eb\u2028c".encode(), "text/plain", "a b c"),
        (b"<html>", "text/html", None),
        (b"", "text/plain", None),
    ],
)
def test_the_servers_reason_is_kept_as_one_harmless_line(body: bytes, content_type: str | None, shown: str | None) -> None:
    headers = {} if content_type is None else {"content_type": content_type}
    with pytest.raises(Refused) as refused:
        exchange.check_status(answer(403, body, **headers), now=NOW)
    assert refused.value.message == ("the server refused (403)" if shown is None else f"the server refused (403): {shown}")


# Redirects


ENROLL = exchange.post_csr(None, CSR_DER, renewal=False)
GET = exchange.get_ca_certs(None)
ORIGIN = "https://est.example:8443"


@pytest.mark.spec("EST-HTTP-04", "EST-HTTP-08")
@pytest.mark.parametrize(
    ("request_", "status", "location", "target"),
    [
        (ENROLL, 307, "/.well-known/est/b/simpleenroll", "/.well-known/est/b/simpleenroll"),
        (ENROLL, 308, "https://EST.example:8443/x?y=1", "/x?y=1"),
        (GET, 302, "b/cacerts", "/.well-known/est/b/cacerts"),
        (GET, 301, "/c", "/c"),
        (GET, 303, "//est.example:8443/d", "/d"),
    ],
)
def test_a_redirect_within_the_origin_keeps_method_and_body(request_: HttpRequest, status: int, location: str, target: str) -> None:
    following = exchange.redirect(request_, answer(status, location=location), origin=ORIGIN)
    assert following is not None
    assert (following.target, following.method, following.body) == (target, request_.method, request_.body)


@pytest.mark.spec("EST-HTTP-05", "EST-HTTP-06")
@pytest.mark.parametrize(
    "location",
    ["https://other.example:8443/", "https://est.example/", "http://est.example:8443/", "//evil.example/", "https://a@est.example:8443/"],
)
@pytest.mark.parametrize("request_", [GET, ENROLL], ids=["GET", "POST"])
def test_another_origin_is_for_a_person_to_decide(request_: HttpRequest, location: str) -> None:
    with pytest.raises(MalformedResponse, match="another origin"):
        exchange.redirect(request_, answer(307, location=location), origin=ORIGIN)


@pytest.mark.parametrize("location", ["/a b", "/\u00e4", "/a\r\nX: y", "https://[::1", "/" + "a" * 3000])
def test_a_location_that_is_no_url_is_a_protocol_error(location: str) -> None:
    with pytest.raises(MalformedResponse, match=r"no URL|another origin"):
        exchange.redirect(ENROLL, answer(307, location=location), origin=ORIGIN)


@pytest.mark.spec("EST-HTTP-08")
@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_csr_is_no_success(status: int) -> None:
    with pytest.raises(MalformedResponse, match="drop the CSR"):
        exchange.redirect(ENROLL, answer(status, location="/x"), origin=ORIGIN)


def test_other_answers_are_no_redirects() -> None:
    assert exchange.redirect(GET, answer(200), origin=ORIGIN) is None
    assert exchange.redirect(GET, answer(304), origin=ORIGIN) is None


# CSRs


@pytest.mark.spec("EST-POP-07", "EST-POP-08")
@pytest.mark.parametrize(("octets", "characters"), [(12, 16), (32, 44)])
def test_the_binding_stands_in_challenge_password_as_printable_base64(octets: int, characters: int) -> None:
    binding = bytes(range(octets))
    attribute = x509.load_der_x509_csr(csr_builder.build(KEY, subject=name("a"), channel_binding=binding)).attributes
    challenge = attribute.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
    assert (len(challenge.value), challenge._type) == (characters, 0x13)
    assert base64.b64decode(challenge.value) == binding


def test_the_server_half_reads_what_the_client_half_builds() -> None:
    sans = (x509.DNSName("device-7.example"), x509.UniformResourceIdentifier("spiffe://example/device-7"))
    usages = frozenset({Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH, Usage.IPSEC_TUNNEL})
    csr = pkcs10.parse(csr_builder.build(KEY, subject=name("device-7"), sans=sans, usages=usages, channel_binding=b"x" * 32))
    assert (csr.subject, csr.sans, csr.usages, csr.ca) == (name("device-7"), sans, usages, False)
    assert csr.challenge_password == base64.b64encode(b"x" * 32).decode()


def test_names_without_a_subject_are_critical() -> None:
    csr = x509.load_der_x509_csr(csr_builder.build(KEY, subject=x509.Name([]), sans=[x509.DNSName("a.example")]))
    assert csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.spec("EST-REENR-02")
def test_a_renewal_asks_for_the_very_names_it_has(ca: Identity) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Übung"), x509.NameAttribute(NameOID.COMMON_NAME, "device-7")])
    sans = [x509.DNSName("device-7.example"), x509.DNSName("Other.example")]
    old = issue(ca, csr_builder.build(KEY, subject=subject, sans=sans))
    csr = x509.load_der_x509_csr(csr_builder.build_renewal(ec.generate_private_key(ec.SECP384R1()), old))
    assert csr.subject.public_bytes() == old.subject.public_bytes()
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage):
        assert csr.extensions.get_extension_for_class(kind) == old.extensions.get_extension_for_class(kind)


# CSR attributes


def csr_attrs(body: bytes, content_type: str = "application/csrattrs") -> HttpResponse:
    return answer(body=body, content_type=content_type)


@pytest.mark.spec("EST-ATTR-02")
@pytest.mark.parametrize("response", [answer(204), answer(404, b"nothing here"), answer(405), answer(501), csr_attrs(b"MAA=\n")])
def test_a_server_without_wishes_says_so_in_many_ways(response: HttpResponse) -> None:
    assert exchange.read_csr_attrs(response, now=NOW) == ()


@pytest.mark.spec("EST-ATTR-03", "EST-ATTR-04", "EST-ENC-02", "EST-ENC-03")
@pytest.mark.parametrize("content_type", ["application/csrattrs", "Application/CSRattrs; charset=utf-8"])
def test_the_answer_that_rfc_7030_prints_is_read(content_type: str) -> None:
    read = exchange.read_csr_attrs(csr_attrs(vectors.body("rfc7030-a2-csrattrs-response"), content_type), now=NOW)
    assert [item if isinstance(item, str) else item.type for item in read] == [
        "1.3.6.1.1.1.1.22",
        "2.999.1",
        "1.2.840.113549.1.9.7",
        "2.999.2",
        "1.3.36.3.3.2.8.1.1.11",
        "2.16.840.1.101.3.4.2.2",
    ]


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (csr_attrs(b"MAA=", "text/html"), MalformedResponse, "text/html"),
        (answer(body=b"MAA="), MalformedResponse, "no Content-Type"),
        (csr_attrs(b""), MalformedResponse, "no CSR attributes"),
        (csr_attrs(b"MAAA"), MalformedResponse, "no CSR attributes"),
        (answer(401, b"log in"), Refused, "log in"),
        (answer(403, b"not for you"), Refused, "not for you"),
        (answer(503, b"later"), ServerUnavailable, "later"),
    ],
)
def test_other_answers_to_csr_attributes_are_errors(response: HttpResponse, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        exchange.read_csr_attrs(response, now=NOW)
