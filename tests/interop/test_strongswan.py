"""strongSwan's `pki`: TLS 1.2, base64 in one line, reads the answer in two reads."""

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
