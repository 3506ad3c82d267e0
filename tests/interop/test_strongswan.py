"""strongSwan's `pki`: TLS 1.2, base64 in one line, reads the answer in two reads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import PASSWORD, Workshop, documented


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-REENR-02", "EST-TLS-03", "EST-CACERTS-03")
def test_the_documented_commands_work_as_they_are(workshop: Workshop) -> None:
    workshop.bash(documented("strongSwan"), URL=f"https://localhost:{workshop.server.port}", PASSWORD=PASSWORD)
    first, second = workshop.certificate("device-7.pem"), workshop.certificate("device-7-new.pem")
    assert first.subject == second.subject
    assert first.serial_number != second.serial_number
    assert first.public_key() == second.public_key(), "pki renews for the key of the CSR that it was given"


@pytest.mark.parametrize("bits", ["2048", "4096"])
def test_an_rsa_key_under_an_rsa_ca_fits_into_its_two_reads(rsa_workshop: Workshop, bits: str) -> None:
    """The longest answer there is: an RSA-4096 leaf signed by RSA-4096, in one line."""
    script = documented("strongSwan").replace("--type ecdsa --size 256", f"--type rsa --size {bits}").replace("--type ecdsa", "--type rsa")
    rsa_workshop.bash(script, URL=f"https://localhost:{rsa_workshop.server.port}", PASSWORD=PASSWORD)
    assert rsa_workshop.certificate("device-7-new.pem").subject.rfc4514_string() == "CN=device-7"


def decide(workshop: Workshop, *arguments: str) -> str:
    """`estserver requests`, as the administrator of the running server."""
    folder = workshop.server.folder
    places = ("--config", folder / "config", "--state", folder / "state")
    done = workshop.run(Path(sys.executable).with_name("estserver"), "requests", *arguments, *places)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.spec("EST-RESP-08", "EST-RESP-11")
@pytest.mark.parametrize("decision", ["approve", "deny"])
def test_it_polls_while_a_person_decides(manual_workshop: Workshop, decision: str) -> None:
    url = f"https://localhost:{manual_workshop.server.port}"
    preparation, enrolment, _ = re.split(r"(?=^pki --est )", documented("strongSwan"), flags=re.MULTILINE)
    preparation = preparation.replace(" --san device-7.devices.example.com", "")
    manual_workshop.bash(preparation, URL=url, PASSWORD=PASSWORD)
    script = enrolment.replace("pki --est ", "exec pki --est --interval 1 --maxpolltime 120 ")
    variables = {"PATH": "/usr/bin:/bin", "URL": url, "PASSWORD": PASSWORD}
    with subprocess.Popen(("bash", "-euc", script), cwd=manual_workshop.folder, env=variables, stderr=subprocess.PIPE, text=True) as client:
        assert client.stderr is not None
        said = ""
        while "pending" not in said:
            line = client.stderr.readline()
            assert line, said
            said += line
        (waiting,) = re.findall(r"│ ([0-9a-f]{16}) │ waiting ", decide(manual_workshop, "list"))
        decide(manual_workshop, decision, waiting, "--reason", "the list says so")
        said += client.communicate(timeout=120)[1]
    if decision == "approve":
        assert client.returncode == 0, said
        assert manual_workshop.certificate("device-7.pem").subject.rfc4514_string() == "CN=device-7"
    else:
        assert client.returncode != 0
        assert "403" in said
