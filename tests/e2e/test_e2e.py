"""est-issuer on a kind cluster, from `kind/up` to a reinstall: numbered steps, each stands on those before it.

Every certificate that a step sees goes to `journey.issued`; step 14 verifies them all against one /cacerts.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.collect import collect
from tests.e2e.cluster import NAMESPACE, RELEASE, Cluster, Failed, run, until
from tests.e2e.device import Answer, Device

pytestmark = pytest.mark.timeout(480)

HERE = Path(__file__).parent
MANY = 50
OURS = "certificaterequests.est-issuer.io"
CERT_MANAGERS = "certificaterequests.cert-manager.io"


@dataclass
class Journey:
    """What a step leaves for those after it."""

    cluster: Cluster
    device: Device
    printed: str = ""
    issued: list[x509.Certificate] = field(default_factory=list)

    def got(self, certificate: x509.Certificate) -> x509.Certificate:
        self.issued.append(certificate)
        return certificate


@pytest.fixture(scope="module")
def journey(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    directory = tmp_path_factory.mktemp("device")
    journey = Journey(cluster=cluster, device=Device(directory=directory, root=directory / "est-root.pem", port=cluster.port))
    yield journey
    for certificate in journey.issued:
        collect(certificate.public_bytes(Encoding.DER))


def csr_pem(dns_name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return (
        builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=True)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def certificate_request(name: str, *, api: str, dns_name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A CertificateRequest of either group: they have one shape."""
    return {
        "apiVersion": api,
        "kind": "CertificateRequest",
        "metadata": {"name": name, "namespace": "devices", "labels": labels or {}},
        "spec": {
            "issuerRef": {"group": "est-issuer.io", "kind": "EstIssuer", "name": "factory"},
            "request": base64.b64encode(csr_pem(dns_name)).decode(),
        },
    }


def condition(manifest: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    conditions = manifest.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def issued_in(manifest: dict[str, Any]) -> x509.Certificate:
    """The leaf in status.certificate; status.ca must be the issuer's root."""
    chain = x509.load_pem_x509_certificates(base64.b64decode(manifest["status"]["certificate"]))
    [ca] = x509.load_pem_x509_certificates(base64.b64decode(manifest["status"]["ca"]))
    chain[0].verify_directly_issued_by(ca)
    return chain[0]


def decide(cluster: Cluster, name: str, verdict: str) -> None:
    """Approve or deny as cert-manager's approver does: its own condition, by server-side apply on /status."""
    manifest = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": {"name": name, "namespace": "devices"},
        "status": {
            "conditions": [
                {
                    "type": verdict,
                    "status": "True",
                    "reason": "cert-manager.io",
                    "message": f"Certificate request has been {verdict.lower()} by cert-manager.io",
                    "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }
            ]
        },
    }
    approver = ["--server-side", "--subresource=status", "--field-manager=cert-manager-certificaterequests-approver"]
    cluster.kubectl("apply", *approver, "--filename=-", stdin=json.dumps(manifest))


def test_01_kind_up_installs_everything(journey: Journey) -> None:
    journey.printed = journey.cluster.up()
    journey.cluster.rolled_out()


def test_02_every_command_that_kind_up_printed_works(journey: Journey, tmp_path: Path) -> None:
    commands = "\n".join(line for line in journey.printed.splitlines() if line.startswith("  "))
    assert "simpleenroll" in commands
    assert "kubectl" in commands
    journey.cluster.shell(commands, seconds=120)


def test_03_every_command_of_the_charts_notes_works(journey: Journey, tmp_path: Path) -> None:
    notes = journey.cluster.helm("get", "notes", RELEASE)
    commands = "\n".join(line for line in notes.splitlines() if line.startswith("     "))
    assert commands.count("kubectl") >= 5
    journey.cluster.shell(commands, seconds=180, cwd=tmp_path)
    root = (tmp_path / "est-root.pem").read_bytes()
    assert len(x509.load_pem_x509_certificates(root)) == 1
    journey.device.root.write_bytes(root)


def test_04_an_issuer_turns_ready_and_says_so(journey: Journey) -> None:
    cluster = journey.cluster
    cluster.wait("Ready", "estissuer/factory", seconds=30)
    issuer = cluster.get("estissuer", "factory")
    assert condition(issuer)["observedGeneration"] == issuer["metadata"]["generation"]
    assert issuer["status"]["est"]["label"] == "factory"
    [ca] = x509.load_pem_x509_certificates(issuer["status"]["ca"]["bundle"].encode())
    assert journey.device.ca_certificates() == [ca]
    shown = cluster.kubectl("get", "estissuers", "--namespace", "devices")
    assert re.search(r"^NAME +READY +CA EXPIRY +LABEL +AGE$", shown, re.MULTILINE)
    assert re.search(rf"^factory +True +{ca.not_valid_after_utc:%Y-%m-%d}\S* +factory +\S+$", shown, re.MULTILINE)


def test_05_a_certificate_request_of_our_own_group_gets_its_certificate(journey: Journey) -> None:
    journey.cluster.apply(certificate_request("own", api="est-issuer.io/v1alpha1", dns_name="own.devices.svc"))
    journey.cluster.wait("Ready", f"{OURS}/own", seconds=30)
    request = journey.cluster.get("estcr", "own")
    assert condition(request)["reason"] == "Issued"
    journey.got(issued_in(request))


@pytest.mark.spec("THREAT-23")
def test_06_the_cert_manager_door_opens_when_its_crds_appear_and_waits_for_approval(journey: Journey) -> None:
    cluster = journey.cluster
    [before] = cluster.containers("operator")
    run("go", "mod", "download", "github.com/cert-manager/cert-manager", cwd=HERE, seconds=300)
    module = run("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager", cwd=HERE).strip()
    crd = f"{module}/deploy/crds/cert-manager.io_certificaterequests.yaml"
    cluster.kubectl("apply", "--server-side", "--filename", crd)
    cluster.kubectl("wait", "--for=condition=Established", "--filename", crd)

    names = ("approved", "denied", "undecided")
    cluster.apply(*(certificate_request(name, api="cert-manager.io/v1", dns_name=f"{name}.devices.svc") for name in names))
    decide(cluster, "approved", "Approved")
    decide(cluster, "denied", "Denied")

    cluster.wait("Ready", f"{CERT_MANAGERS}/approved", seconds=60)
    cluster.wait("Ready=False", f"{CERT_MANAGERS}/denied", seconds=60)
    approved = cluster.get(CERT_MANAGERS, "approved")
    assert condition(approved, "Approved")["status"] == "True"
    journey.got(issued_in(approved))
    denied = cluster.get(CERT_MANAGERS, "denied")
    assert condition(denied)["reason"] == "Denied"
    assert "certificate" not in denied["status"]
    assert denied["status"]["failureTime"]
    assert "status" not in cluster.get(CERT_MANAGERS, "undecided")
    for name in names:
        metadata = cluster.get(CERT_MANAGERS, name)["metadata"]
        assert "finalizers" not in metadata
        assert metadata.get("annotations", {}).keys() <= {"kubectl.kubernetes.io/last-applied-configuration"}
    [after] = cluster.containers("operator")
    assert after["containerID"] == before["containerID"]


def test_07_the_example_pod_enrolled_with_curl_openssl_and_its_token(journey: Journey) -> None:
    """Step 2 started it, as kind/up said."""
    log = journey.cluster.kubectl("logs", "web", "--namespace", "devices")
    assert "tls.crt: OK" in log
    assert "DNS:web.devices.svc, URI:spiffe://cluster.local/ns/devices/sa/web" in log
    query = "select hex(der) from certificates where requester = 'serviceAccountToken:devices/web' and issuer = 'EstIssuer/devices/factory'"
    [[der]] = journey.cluster.ledger(query)
    leaf = journey.got(x509.load_der_x509_certificate(bytes.fromhex(der)))
    assert ":".join(re.findall("..", f"{leaf.serial_number:x}".zfill(34))) in log


def test_08_a_device_outside_enrols_with_a_password_and_renews_with_its_certificate(journey: Journey) -> None:
    device = journey.device
    first = device.post("simpleenroll", device.key_and_csr("first", subject="/CN=device-7"), *device.with_password())
    [leaf] = first.certificates
    journey.got(leaf)
    (device.directory / "first.pem").write_bytes(leaf.public_bytes(Encoding.PEM))

    renewed = device.post("simplereenroll", device.key_and_csr("second", subject="/CN=device-7"), *device.with_certificate("first"))
    [successor] = renewed.certificates
    journey.got(successor)
    (device.directory / "second.pem").write_bytes(successor.public_bytes(Encoding.PEM))
    assert successor.subject == leaf.subject
    assert successor.public_key() != leaf.public_key()
    assert successor.serial_number != leaf.serial_number


def test_09_a_wrong_password_is_401(journey: Journey) -> None:
    answer = journey.device.post(
        "simpleenroll", journey.device.key_and_csr("stranger", subject="/CN=device-7"), *journey.device.with_password("wrong")
    )
    assert answer.status == 401


def test_10_a_name_outside_the_policy_is_refused_with_the_reason(journey: Journey) -> None:
    """In the answer over EST, and in the condition of either kind of CertificateRequest."""
    cluster, device = journey.cluster, journey.device
    csr = device.key_and_csr("thief", subject="/CN=device-7", san="DNS:bank.example")
    answer = device.post("simpleenroll", csr, *device.with_password())
    assert answer.status == 403
    assert "bank.example" in answer.body

    for api, resource in (("est-issuer.io/v1alpha1", OURS), ("cert-manager.io/v1", CERT_MANAGERS)):
        cluster.apply(certificate_request("thief", api=api, dns_name="bank.example"))
        if resource == CERT_MANAGERS:
            decide(cluster, "thief", "Approved")
        cluster.wait("Ready=False", f"{resource}/thief", seconds=30)
        request = cluster.get(resource, "thief")
        assert condition(request)["reason"] == "Failed"
        assert "bank.example" in condition(request)["message"]
        assert request["status"]["failureTime"]
        assert "certificate" not in request["status"]


def test_11_estserver_killed_in_the_middle_of_many_enrolments_loses_and_doubles_nothing(journey: Journey) -> None:
    cluster, device = journey.cluster, journey.device
    retry = ("--fail", "--retry", "80", "--retry-delay", "1", "--retry-all-errors", "--retry-max-time", "90")
    csrs = [device.key_and_csr(f"many-{n}", subject="/CN=device-7") for n in range(MANY)]
    began = time.time()
    with ThreadPoolExecutor(max_workers=5) as pool:

        def start(csr: Path) -> Future[Answer]:
            return pool.submit(device.post, "simpleenroll", csr, *device.with_password(), *retry, seconds=120)

        running = [start(csr) for csr in csrs[:20]]
        next(as_completed(running))
        # These are under way when it dies, the last ones find it dead.
        running += [start(csr) for csr in csrs[20:40]]
        restarts = cluster.kill("server")
        running += [start(csr) for csr in csrs[40:]]
        answers = [enrolment.result() for enrolment in running]
    leaves = [journey.got(leaf) for answer in answers for leaf in answer.certificates]
    assert len({leaf.public_bytes(Encoding.DER) for leaf in leaves}) == MANY
    cluster.rolled_out()
    assert_recorded_once(cluster, leaves, began=began, restarted=cluster.started_again("server", restarts=restarts))


def assert_recorded_once(cluster: Cluster, leaves: list[x509.Certificate], *, began: float, restarted: float) -> None:
    """Since `began` the ledger got exactly these certificates, and the operators' own: some before the restart and some after it."""
    others = "select serial, recorded_at from certificates where subject <> 'CN=est-issuer operator'"
    rows = [(int(serial, 16), at / 1000) for serial, at in cluster.ledger(others) if at / 1000 >= began]
    assert sorted(serial for serial, _ in rows) == sorted(leaf.serial_number for leaf in leaves)
    assert min(at for _, at in rows) < restarted + 1  # the kubelet tells whole seconds, cut
    assert restarted <= max(at for _, at in rows)


@pytest.mark.spec("THREAT-31")
def test_12_the_operator_killed_in_the_middle_of_many_requests_issues_each_once(journey: Journey) -> None:
    cluster = journey.cluster
    many = [
        certificate_request(f"many-{n}", api="est-issuer.io/v1alpha1", dns_name=f"cr-{n}.devices.svc", labels={"many": "requests"})
        for n in range(MANY)
    ]
    began = time.time()
    creating = ThreadPoolExecutor(max_workers=1).submit(cluster.apply, *many[:40])
    until("a first certificate", lambda: ready_of(cluster) > 0, seconds=60)
    restarts = cluster.kill("operator")
    cluster.apply(*many[40:])
    creating.result()
    until("every certificate", lambda: ready_of(cluster) == MANY, seconds=120)
    leaves = [journey.got(issued_in(request)) for request in cluster.items(OURS, selector="many=requests")]
    assert len({leaf.serial_number for leaf in leaves}) == MANY
    assert_recorded_once(cluster, leaves, began=began, restarted=cluster.started_again("operator", restarts=restarts))


def ready_of(cluster: Cluster) -> int:
    return sum(condition(request).get("status") == "True" for request in cluster.items(OURS, selector="many=requests"))


@pytest.mark.spec("EST-RESP-08", "EST-RESP-10", "THREAT-23")
def test_13_a_device_waits_until_a_person_approves_with_kubectl(journey: Journey) -> None:
    cluster, device = journey.cluster, journey.device
    set_approval(cluster, "Manual")
    csr = device.key_and_csr("waits", subject="/CN=device-7")
    answer = device.post("simpleenroll", csr, *device.with_password())
    assert answer.status == 202
    [request_id] = re.findall(r"as ([0-9a-f]{16})", answer.body)
    name = f"est-{request_id}"
    until("the request", lambda: [found for found in cluster.items("estcr") if found["metadata"]["name"] == name], seconds=30)
    assert cluster.get("estcr", name)["spec"]["username"] == "basic:device-7"

    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    approved = {"type": "Approved", "status": "True", "reason": "Checked", "message": "by a person", "lastTransitionTime": when}
    patch = ("patch", "estcr", name, "--namespace", "devices", "--subresource=status", "--type=merge")
    forged = json.dumps({"status": {"conditions": [approved], "certificate": "LS0t"}})
    with pytest.raises(Failed, match="only est-issuer's operator writes"):
        cluster.kubectl(*patch, "--patch", forged)
    cluster.kubectl(*patch, "--patch", json.dumps({"status": {"conditions": [approved]}}))

    def served() -> list[x509.Certificate]:
        again = device.post("simpleenroll", csr, *device.with_password())
        return again.certificates if again.status == 200 else []

    [leaf] = until("the certificate", served, seconds=30)
    journey.got(leaf)
    until("the object to go", lambda: not [found for found in cluster.items("estcr") if found["metadata"]["name"] == name], seconds=30)
    set_approval(cluster, "Automatic")


def set_approval(cluster: Cluster, approval: str) -> None:
    """Change the issuer, and wait until estserver goes by it."""
    cluster.kubectl(
        "patch",
        "estissuer",
        "factory",
        "--namespace",
        "devices",
        "--type=merge",
        "--patch",
        json.dumps({"spec": {"est": {"approval": approval}}}),
    )

    def taken() -> bool:
        issuer = cluster.get("estissuer", "factory")
        ready = condition(issuer)
        return (ready.get("status"), ready.get("observedGeneration")) == ("True", issuer["metadata"]["generation"])

    until(f"approval {approval}", taken, seconds=30)


def test_14_everything_issued_verifies_against_the_same_cacerts(journey: Journey, tmp_path: Path) -> None:
    """By openssl, which is none of ours."""
    ca_certificates = journey.device.ca_certificates()
    bag = tmp_path / "cacerts.pem"
    bag.write_bytes(b"".join(ca.public_bytes(Encoding.PEM) for ca in ca_certificates))
    leaves = [tmp_path / f"{n}.pem" for n in range(len(journey.issued))]
    for path, leaf in zip(leaves, journey.issued, strict=True):
        path.write_bytes(leaf.public_bytes(Encoding.PEM))
        collect(leaf.public_bytes(Encoding.DER), ca_certificates[0].public_bytes(Encoding.DER))
    assert len(leaves) == 6 + 2 * MANY
    run("openssl", "verify", "-x509_strict", "-CAfile", str(bag), *map(str, leaves))


def ca_keys(cluster: Cluster) -> dict[str, str]:
    """A digest of each CA Secret's content, by namespace/name."""
    return {
        f"{namespace}/{secret['metadata']['name']}": hashlib.sha256(json.dumps(secret["data"], sort_keys=True).encode()).hexdigest()
        for namespace in ("devices", NAMESPACE)
        for secret in cluster.items("secrets", namespace=namespace)
        if secret["type"] == "kubernetes.io/tls"
    }


def test_15_the_ledger_is_a_file_of_estservers_alone(journey: Journey) -> None:
    listed = journey.cluster.kubectl(
        "exec", "est-issuer-server-0", "--namespace", NAMESPACE, "--", "sh", "-c", "stat -c %a:%u /var/lib/est-issuer/ledger*"
    )
    assert set(listed.split()) == {"600:65532"}


def test_16_uninstall_is_quick_with_issuers_still_there_and_keeps_keys_and_ledger(journey: Journey) -> None:
    cluster = journey.cluster
    keys = ca_keys(cluster)
    assert {"devices/factory-ca", f"{NAMESPACE}/est-issuer-serving"} <= keys.keys()
    started = time.monotonic()
    cluster.helm("uninstall", RELEASE, "--wait", "--timeout", "30s", seconds=40)
    until("no Pod is left", lambda: not cluster.items("pods", namespace=NAMESPACE), seconds=max(1, 30 - (time.monotonic() - started)))
    assert time.monotonic() - started < 30
    assert cluster.items("estissuers")
    assert ca_keys(cluster) == keys
    [claim] = cluster.items("persistentvolumeclaims", namespace=NAMESPACE)
    assert claim["status"]["phase"] == "Bound"
    # Nothing of ours holds an object back once the operator is gone.
    cluster.kubectl("delete", "estissuer", "demo", "--namespace", NAMESPACE, "--timeout=10s")
    cluster.kubectl("delete", "estcr", "own", "--namespace", "devices", "--timeout=10s")


def test_17_a_reinstall_goes_on_with_the_same_ca_and_ledger(journey: Journey) -> None:
    cluster, device = journey.cluster, journey.device
    keys = ca_keys(cluster)
    cluster.up()
    cluster.rolled_out()
    cluster.wait("Ready", "estissuer/factory", seconds=60)
    assert {name: digest for name, digest in ca_keys(cluster).items() if name in keys} == keys
    for leaf in journey.issued:
        leaf.verify_directly_issued_by(device.ca_certificates()[0])
    rows = {int(serial, 16) for [serial] in cluster.ledger("select serial from certificates where issuer = 'EstIssuer/devices/factory'")}
    assert {leaf.serial_number for leaf in journey.issued} <= rows

    renewed = device.post("simplereenroll", device.key_and_csr("third", subject="/CN=device-7"), *device.with_certificate("second"))
    [leaf] = renewed.certificates
    leaf.verify_directly_issued_by(device.ca_certificates()[0])
    doors = {
        int(serial, 16): (door, how) for serial, door, how in cluster.ledger("select serial, door, authenticated_by from certificates")
    }
    assert doors[leaf.serial_number] == ("est", "certificate")
