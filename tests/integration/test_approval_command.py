"""Approval in directory mode with the real programs: a device waits, the server is killed, a person says yes, the device is served."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estclient import Basic, EstClient
from estcore import csr_builder
from estcore.errors import Pending
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import generate_private_key
from tests.collect import collect
from tests.server.running import estserver

MANIFESTS = """
apiVersion: est-issuer.io/v1alpha1
kind: EstClusterIssuer
metadata: {name: factory}
spec:
  ca: {secretName: factory-ca, generate: {commonName: Factory CA}}
  est: {label: factory, approval: Manual, authentication: [{basic: {secretName: passwords}}]}
  policy: {rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: passwords}
type: kubernetes.io/basic-auth
stringData: {username: device-1, password: correct horse}
"""


async def command(*arguments: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "estserver", "requests", *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def device(url: str, directory: Path) -> EstClient:
    anchors_pem = (directory / "state" / "serving" / "ca.crt").read_bytes()
    port = url.rpartition(":")[2]
    return EstClient(
        url=f"https://localhost:{port}",
        label="factory",
        anchors_pem=anchors_pem,
        credentials=Basic(user="device-1", password="correct horse"),
    )


@pytest.mark.spec("EST-RESP-10")
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_that_was_killed_between_202_and_approval_serves_the_same_request(tmp_path: Path, workers: int) -> None:
    (tmp_path / "manifests.yaml").write_text(MANIFESTS)
    key = generate_private_key(KeyAlgorithm.ECDSA_P256)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-1")])
    options = ("--config", str(tmp_path), "--workers", str(workers))
    async with estserver(*options) as running:
        async with device(await running.url(), tmp_path) as client:
            with pytest.raises(Pending, match="waits for a person's approval") as pending:
                await client.simple_enroll(csr_builder.build(key, subject=subject))
        running.process.kill()
        await running.ended()
    (request_id,) = re.findall(r"as ([0-9a-f]{16})", pending.value.message)

    async with estserver(*options) as running:
        url = await running.url()
        assert request_id in await command("list", "--config", tmp_path)
        await command("approve", request_id, "--config", tmp_path, "--by", "alice")
        async with device(url, tmp_path) as client:
            (ca,) = await client.ca_certs()
            issued = await client.simple_enroll(csr_builder.build(key, subject=subject))
        issued.verify_directly_issued_by(ca)
        collect(issued.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
        assert issued.public_key() == key.public_key()
        assert await running.stop() == 0
        approved = [line for line in running.lines if line.get("audit") == "approved"]
        assert [(line["request"], line["by"]) for line in approved] == [(request_id, "alice")]
