"""What sslyze and testssl.sh hold against the TLS of a running estserver: what is listed here with its reason, and nothing else."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import ROOT, RunningServer

SCAN_SECONDS = 500
"""testssl.sh starts some thousand programs: minutes where the machine has other work."""

SSLYZE = ROOT / ".venv-sslyze" / "bin" / "sslyze"

SSLYZE_ALLOWED = {
    # Mozilla's "intermediate" is about browsers and knows neither. secp521r1 in supported_groups is what lets a device with a P-521
    # certificate authenticate on TLS 1.2 (RFC 8422 section 5.1); X448 comes with OpenSSL's defaults, which bring X25519MLKEM768 too.
    "tls_curves": {"X448", "secp521r1"},
}
"""What fails Mozilla's configuration: the criterion, and the names in its complaint."""

TESTSSL_ALLOWED = {
    # The private root: it has no revocation service. The certificate lives 90 days and is replaced when it must be.
    "cert_revocation": {"Neither CRL nor OCSP URI provided"},
    # About the scanner's own OpenSSL.
    "engine_problem": {"No engine or GOST support via engine with your /usr/bin/openssl"},
}
"""Findings that are neither OK nor INFO: their id and their text."""

TESTSSL_OK = (
    *("SSLv2", "SSLv3", "TLS1_2", "TLS1_3", "cipher_order", "cert_chain_of_trust", "cert_trust", "heartbleed", "CCS", "ticketbleed"),
    *("secure_renego", "secure_client_renego", "CRIME_TLS", "BREACH", "POODLE_SSL", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "RC4"),
)
"""What a complete scan has looked at and found well."""


@pytest.fixture(scope="module")
def sslyze(est_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What it printed, and the result of each of its scans."""
    assert SSLYZE.exists(), "run it by `make scan`"
    report = tmp_path_factory.mktemp("sslyze") / "report.json"
    scans = ("--mozilla_config=intermediate", "--resum", "--early_data", "--fallback", "--certinfo_ca_file", est_server.anchors)
    done = subprocess.run(
        (SSLYZE, *scans, "--json_out", report, f"localhost:{est_server.port}"), capture_output=True, text=True, timeout=SCAN_SECONDS
    )
    (server,) = json.loads(report.read_text())["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", done.stdout
    done_scans = {name: scan["result"] for name, scan in server["scan_result"].items() if scan["status"] == "COMPLETED"}
    return done.stdout, done_scans


@pytest.mark.spec("EST-TLS-02", "EST-TLS-03", "EST-TLS-04")
def test_sslyze_finds_nothing_but_the_two_curves(sslyze: tuple[str, dict[str, Any]]) -> None:
    printed, _ = sslyze
    verdict = printed.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    assert "FAILED - Not compliant" in verdict
    complaints = dict(re.findall(r"^ +\* (\w+): (.+)$", verdict, re.MULTILINE))
    assert {criterion: set(re.findall(r"'([^']+)'", text)) for criterion, text in complaints.items()} == SSLYZE_ALLOWED


@pytest.mark.spec("EST-TLS-12", "EST-TLS-13", "EST-TLS-14", "THREAT-16")
def test_sslyze_finds_no_known_weakness(sslyze: tuple[str, dict[str, Any]]) -> None:
    _, scans = sslyze
    renegotiation = scans["session_renegotiation"]
    assert renegotiation["supports_secure_renegotiation"]
    assert not renegotiation["is_vulnerable_to_client_renegotiation_dos"]
    assert scans["tls_extended_master_secret"]["supports_ems_extension"]
    assert not scans["tls_1_3_early_data"]["supports_early_data"]
    assert not scans["tls_compression"]["supports_compression"]
    assert not scans["heartbleed"]["is_vulnerable_to_heartbleed"]
    assert not scans["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
    assert scans["robot"]["robot_result"] == "NOT_VULNERABLE_RSA_NOT_SUPPORTED"


@pytest.mark.spec("EST-TLS-11", "THREAT-16")
def test_sslyze_cannot_resume_a_session(sslyze: tuple[str, dict[str, Any]]) -> None:
    _, scans = sslyze
    resumption = scans["session_resumption"]
    assert resumption["session_id_successful_resumptions_count"] == 0
    assert resumption["tls_ticket_successful_resumptions_count"] == 0


@pytest.mark.spec("EST-TLS-05", "EST-TLS-08")
def test_sslyze_verifies_the_chain_by_the_published_root_and_no_public_store_knows_it(sslyze: tuple[str, dict[str, Any]]) -> None:
    _, scans = sslyze
    (deployment,) = scans["certificate_info"]["certificate_deployments"]
    verified = [each["trust_store"]["name"] for each in deployment["path_validation_results"] if each["verified_certificate_chain"]]
    assert verified == ["Supplied CA file"]
    assert deployment["received_chain_has_valid_order"]
    assert not deployment["received_chain_contains_anchor_certificate"]


@pytest.mark.spec("EST-TLS-02", "EST-TLS-03", "EST-TLS-04", "EST-TLS-12", "THREAT-16")
def test_testssl_finds_nothing_but_what_is_listed(est_server: RunningServer, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert shutil.which("testssl"), "Debian package testssl.sh"
    # protocols, ciphers, forward secrecy, preferences, server hello, vulnerabilities; not the headers that concern browsers
    checks = ("-p", "-s", "-f", "-P", "-S", "-U", "--nodns", "none", "--warnings", "off", "--openssl", "/usr/bin/openssl")
    command = ("testssl", "--quiet", *checks, "--add-ca", est_server.anchors, "--jsonfile", report, f"https://localhost:{est_server.port}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_SECONDS, stdin=subprocess.DEVNULL)
    findings: list[dict[str, str]] = json.loads(report.read_text())
    complaints: dict[str, set[str]] = {}
    for finding in findings:
        if finding["severity"] not in {"OK", "INFO"}:
            complaints.setdefault(finding["id"], set()).add(finding["finding"])
    assert {"engine_problem": TESTSSL_ALLOWED["engine_problem"], **complaints} == TESTSSL_ALLOWED, done.stdout
    well = {finding["id"] for finding in findings if finding["severity"] == "OK"}
    assert set(TESTSSL_OK) <= well, done.stdout
