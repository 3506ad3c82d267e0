"""Our own command against the real server, as the documentation shows it."""

import stat
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import PASSWORD, Workshop, documented


@pytest.mark.spec("EST-TLS-15", "EST-REENR-02", "EST-POP-06", "EST-ATTR-01")
def test_the_documented_commands_work_as_they_are(workshop: Workshop) -> None:
    (workshop.folder / "password").write_text(PASSWORD + "\n")
    cacerts, csrattrs, enroll, renew = documented("est").replace("\\\n", "").splitlines()
    url, path = f"https://localhost:{workshop.server.port}", f"{Path(sys.executable).parent}:/usr/bin:/bin"
    serials = []
    for script in (f"{cacerts}\n{csrattrs} > wanted\n{enroll}", renew):
        workshop.bash(script.replace("https://HOST", url), PATH=path)
        serials.append(workshop.certificate("device-7/tls.crt").serial_number)
    assert len(set(serials)) == 2
    wanted = (workshop.folder / "wanted").read_text()
    for line in ("subject: commonName", "device-7", "extension: subjectAltName", "extension: extendedKeyUsage"):
        assert line in wanted
    assert stat.S_IMODE((workshop.folder / "device-7" / "tls.key").stat().st_mode) == 0o600
    verified = workshop.run("openssl", "verify", "-CAfile", "device-7/ca.crt", "device-7/tls.crt")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.spec("EST-RESP-05")
def test_a_certificate_of_somebody_else_renews_nothing_and_the_user_is_told_why(workshop: Workshop) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=stranger")
    assert workshop.run(*made, "-keyout", "x.key", "-out", "x.pem").returncode == 0
    options = ("--url", workshop.server.url, "--label", "factory", "--anchors", "est-root.pem", "--cert", "x.pem", "--key", "x.key")
    refused = workshop.run(Path(sys.executable).with_name("est"), "renew", *options)
    assert refused.returncode == 3
    assert refused.stderr.startswith(b"est: the server refused (403)")
    assert b"not issued by this issuer" in refused.stderr
