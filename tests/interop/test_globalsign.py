"""globalsign's estclient (Go): TLS 1.3, a chunked body without Content-Length, a user's password at once."""

import subprocess

import pytest

from tests.interop.conftest import PASSWORD, ROOT, Workshop, documented


@pytest.fixture(scope="session")
def estclient() -> str:
    """The folder of the program."""
    done = subprocess.run([ROOT / "tests" / "interop" / "globalsign" / "build"], stdout=subprocess.PIPE, text=True, timeout=170)
    assert done.returncode == 0, "estclient was not built"
    return done.stdout.strip()


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-REENR-02", "EST-TLS-03", "EST-TLS-15", "EST-CACERTS-03", "EST-ENC-03")
def test_the_documented_commands_work_as_they_are(workshop: Workshop, estclient: str) -> None:
    server = f"localhost:{workshop.server.port}"
    workshop.bash(documented("globalsign/est"), SERVER=server, PASSWORD=PASSWORD, PATH=f"{estclient}:/usr/bin:/bin")
    verified = workshop.run("openssl", "verify", "-CAfile", "ca.pem", "device-7.pem", "device-7-new.pem")
    assert verified.returncode == 0, verified.stderr
    first, second = workshop.certificate("device-7.pem"), workshop.certificate("device-7-new.pem")
    assert first.subject == second.subject
    assert first.serial_number != second.serial_number
