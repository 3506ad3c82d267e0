"""`openssl s_client`: what the server's TLS offers, as another TLS library sees it."""

import subprocess

import pytest

from tests.interop.conftest import Workshop


def s_client(workshop: Workshop, *options: str, stdin: bytes = b"Q\n") -> subprocess.CompletedProcess[bytes]:
    return workshop.run(
        *("openssl", "s_client", "-connect", f"localhost:{workshop.server.port}", "-servername", "localhost"),
        *("-CAfile", "est-root.pem", "-verify_return_error", "-verify_hostname", "localhost", *options),
        stdin=stdin,
    )


@pytest.mark.spec("EST-TLS-03", "EST-TLS-05", "EST-TLS-07", "EST-TLS-08", "EST-TLS-13")
@pytest.mark.parametrize(("option", "protocol"), [("-tls1_2", b"TLSv1.2"), ("-tls1_3", b"TLSv1.3")])
def test_the_server_is_verified_by_its_published_root(workshop: Workshop, option: str, protocol: bytes) -> None:
    done = s_client(workshop, option)
    assert done.returncode == 0, done.stderr
    assert b"Verification: OK" in done.stdout
    assert protocol in done.stdout
    assert b"Requested Signature Algorithms" in done.stdout, "a client certificate is asked for"
    assert b"Acceptable client certificate CA names" not in done.stdout, "and no CA is named"
    if option == "-tls1_2":
        assert b"Extended master secret: yes" in done.stdout


WEAK = ("-cipher", "ALL:@SECLEVEL=0")


@pytest.mark.spec("EST-TLS-02", "EST-TLS-04")
@pytest.mark.parametrize(
    ("options", "alert"),
    [
        (("-tls1", *WEAK), b"protocol version"),
        (("-tls1_1", *WEAK), b"protocol version"),
        (("-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"), b"handshake failure"),
        (("-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"), b"handshake failure"),
        (("-tls1_2", "-groups", "brainpoolP256r1"), b"handshake failure"),
        (("-tls1_2", "-sigalgs", "RSA+SHA256"), b"handshake failure"),
        (("-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"), b"handshake failure"),
        (("-tls1_3", "-groups", "ffdhe8192"), b"handshake failure"),
        (("-tls1_3", "-sigalgs", "RSA-PSS+SHA256"), b"handshake failure"),
    ],
)
def test_a_handshake_that_cannot_be_ends_in_the_alert_that_says_why(workshop: Workshop, options: tuple[str, ...], alert: bytes) -> None:
    """Versions, suites, groups and signatures that have nothing in common (RFC 8446 section 6.2)."""
    done = s_client(workshop, *options)
    assert done.returncode != 0
    assert b"alert " + alert in done.stderr


@pytest.mark.spec("EST-TLS-12", "THREAT-16")
def test_a_renegotiation_is_refused(workshop: Workshop) -> None:
    done = s_client(workshop, "-tls1_2", stdin=b"R\n")
    assert b"no renegotiation" in done.stderr


@pytest.mark.spec("EST-TLS-14", "THREAT-16")
@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_no_session_is_resumed(workshop: Workshop, option: str) -> None:
    s_client(workshop, option, "-sess_out", "session.pem", stdin=b"GET / HTTP/1.1\r\n\r\n")
    resumable = ("-sess_in", "session.pem") if (workshop.folder / "session.pem").exists() else ()
    done = s_client(workshop, option, *resumable)
    assert b"Reused" not in done.stdout
    assert b"Max Early Data: 0" in done.stdout or b"Early data was not sent" in done.stdout or option == "-tls1_2"
