"""curl with openssl: what a device without any EST client has."""

import base64
from pathlib import Path

import pytest

from tests.interop.conftest import PASSWORD, Workshop, documented

NAMES = ("-subj", "/CN=device-7", "-addext", "subjectAltName=DNS:device-7.devices.example.com")


def make_csr(workshop: Workshop, *key: str) -> bytes:
    """A CSR in DER, its key in device.key."""
    request = ("openssl", "req", "-new", *(key or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")), "-nodes")
    done = workshop.run(*request, "-keyout", "device.key", *NAMES, "-outform", "DER")
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(workshop: Workshop, body: bytes, *options: str, operation: str = "factory/simpleenroll") -> tuple[int, dict[str, str], bytes]:
    """Status, headers as they were spelled (of a repeated one the first, which is all that old clients read), body."""
    done = workshop.run(
        *("curl", "--silent", "--show-error", "--include", "--cacert", "est-root.pem", "--header", "Content-Type: application/pkcs10"),
        *("--data-binary", "@-", *options, f"{workshop.server.url}/{operation}"),
        stdin=body,
    )
    assert done.returncode == 0, done.stderr
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split(" ")[1]), dict(line.split(": ", 1) for line in reversed(lines)), answer


def issued(workshop: Workshop, body: bytes) -> None:
    """Read a certs-only answer by openssl, and keep the certificate."""
    done = workshop.run("openssl", "pkcs7", "-inform", "DER", "-print_certs", "-out", "device.pem", stdin=base64.b64decode(body))
    assert done.returncode == 0, done.stderr
    assert workshop.certificate("device.pem").subject.rfc4514_string() == "CN=device-7"


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-TLS-06", "EST-TLS-15", "EST-CACERTS-03", "EST-CACERTS-05", "EST-ATTR-03")
def test_the_documented_commands_work_as_they_are(workshop: Workshop) -> None:
    workshop.bash(documented("curl and openssl"), EST=f"{workshop.server.url}/factory", PASSWORD=PASSWORD)
    first, second = workshop.certificate("device-7.pem"), workshop.certificate("device-7-new.pem")
    assert first.subject == second.subject
    assert first.public_key() != second.public_key()
    csr_attributes = (workshop.folder / "csrattrs.txt").read_text()
    for seen in ("Extension Request", "commonName", "UTF8STRING        :device-7", "1.2.840.113549.1.9.16.2.61"):
        assert seen in csr_attributes


@pytest.mark.spec("EST-CLI-02", "EST-ATTR-03")
def test_csr_attributes_are_told_without_a_password(workshop: Workshop) -> None:
    done = workshop.run("curl", "--silent", "--include", "--cacert", "est-root.pem", f"{workshop.server.url}/factory/csrattrs")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Type: application/csrattrs" in head
    parsed = workshop.run("openssl", "asn1parse", "-inform", "DER", stdin=base64.b64decode(body))
    assert parsed.returncode == 0
    assert b"device-7" not in parsed.stdout


@pytest.mark.spec("EST-CMC-01", "EST-CMC-03", "EST-CMC-05", "EST-CMC-10")
def test_the_documented_full_pki_request_renews_on_an_anonymous_connection(workshop: Workshop) -> None:
    variables = {"EST": f"{workshop.server.url}/factory", "PASSWORD": PASSWORD}
    workshop.bash(documented("curl and openssl"), **variables)
    workshop.bash(documented("A Full PKI Request by curl and openssl"), **variables)
    first, second = workshop.certificate("device-7.pem"), workshop.certificate("device-7-cmc.pem")
    assert first.subject == second.subject
    assert first.public_key() != second.public_key()


@pytest.mark.spec("EST-TLS-03")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_each_tls_version_enrols_and_renews(workshop: Workshop, version: str) -> None:
    tls = ("--tlsv" + version, "--tls-max", version)
    csr_der = make_csr(workshop)
    status, _, body = post(workshop, base64.b64encode(csr_der), "--user", f"device-7:{PASSWORD}", *tls)
    assert status == 200, body
    issued(workshop, body)
    certificate = ("--cert", "device.pem", "--key", "device.key")
    status, _, body = post(workshop, base64.b64encode(csr_der), *certificate, *tls, operation="factory/simplereenroll")
    assert status == 200, body
    issued(workshop, body)


def _wrap(text: bytes, columns: int, end: bytes) -> bytes:
    return b"".join(text[start : start + columns] + end for start in range(0, len(text), columns))


@pytest.mark.spec("EST-ENC-02", "EST-ENC-03")
@pytest.mark.parametrize(
    ("columns", "end", "headers"),
    [
        (10_000, b"", []),
        (10_000, b"\n", ["Content-Transfer-Encoding: base64"]),
        (64, b"\n", ["Content-Transfer-Encoding: binary"]),
        (76, b"\r\n", []),
        (76, b"\n", ["Transfer-Encoding: chunked", "Accept: application/pkcs7-mime", "Accept-Encoding: gzip"]),  # globalsign/est
        (64, b" \t\n\n", ["Content-Transfer-Encoding: 8bit"]),
    ],
    ids=["one line", "one line and LF", "64 LF", "76 CRLF", "chunked", "blanks"],
)
def test_base64_in_any_lines_enrols(workshop: Workshop, columns: int, end: bytes, headers: list[str]) -> None:
    options = [option for header in headers for option in ("--header", header)]
    body = _wrap(base64.b64encode(make_csr(workshop)), columns, end)
    status, answered, answer = post(workshop, body, "--user", f"device-7:{PASSWORD}", *options)
    assert status == 200, answer
    assert "Content-Encoding" not in answered, "nothing is compressed"
    assert "Transfer-Encoding" not in answered, "no answer is chunked"
    issued(workshop, answer)


@pytest.mark.spec("EST-RESP-01", "EST-RESP-06")
def test_header_names_and_the_type_are_spelled_as_libest_compares_them(workshop: Workshop) -> None:
    status, headers, body = post(workshop, base64.b64encode(make_csr(workshop)), "--user", f"device-7:{PASSWORD}")
    assert (status, headers["Content-Type"]) == (200, "application/pkcs7-mime; smime-type=certs-only")
    assert headers["Content-Length"] == str(len(body))
    status, headers, body = post(workshop, base64.b64encode(make_csr(workshop)))
    assert (status, headers["WWW-Authenticate"].startswith("Basic realm=")) == (401, True)
    assert headers["Content-Type"].startswith("text/plain")


@pytest.mark.spec("EST-ENC-04")
def test_libest_gets_short_lines_and_everybody_else_one(workshop: Workshop) -> None:
    csr_der = make_csr(workshop, "-newkey", "rsa:2048")
    login = ("--user", f"device-7:{PASSWORD}")
    _, _, libest = post(workshop, base64.b64encode(csr_der), *login, "--user-agent", "libest 3.2.0", operation="rsa/simpleenroll")
    assert max(map(len, libest.splitlines())) == 64
    _, _, other = post(workshop, base64.b64encode(csr_der), *login, operation="rsa/simpleenroll")
    assert other.count(b"\n") == 1
    assert base64.b64decode(libest) == base64.b64decode(other), "a repeat gets the same certificate"
    issued(workshop, other)


@pytest.mark.spec("EST-ENC-07")
def test_pem_is_refused_with_what_to_send_instead(workshop: Workshop) -> None:
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(make_csr(workshop)) + b"-----END CERTIFICATE REQUEST-----\n"
    status, _, body = post(workshop, pem, "--user", f"device-7:{PASSWORD}")
    assert status == 400
    assert b"without" in body
    assert b"BEGIN" in body


def test_http_2_is_not_spoken_and_not_needed(workshop: Workshop) -> None:
    status, _, body = post(workshop, base64.b64encode(make_csr(workshop)), "--http2", "--user", f"device-7:{PASSWORD}")
    assert status == 200, body


@pytest.mark.spec("EST-RESP-05")
def test_the_reason_of_a_refusal_is_readable(workshop: Workshop) -> None:
    request = ("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "device.key")
    csr_der = workshop.run(*request, "-subj", "/CN=device-7", "-addext", "subjectAltName=DNS:www.example.com", "-outform", "DER").stdout
    status, _, body = post(workshop, base64.b64encode(csr_der), "--user", f"device-7:{PASSWORD}")
    assert status == 403
    assert b"DNS:www.example.com" in body
    status, _, body = post(workshop, base64.b64encode(csr_der), "--user", "device-7:wrong")
    assert (status, body.count(b"\n")) == (401, 1)


def test_the_folder_of_the_repository_is_left_as_it_was(workshop: Workshop) -> None:
    """A server with a --state of its own writes nothing beside the manifests."""
    assert not (Path(__file__).parents[2] / "examples" / "issuer" / "state").exists()
