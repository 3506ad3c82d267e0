"""The directory source: what a file may say, what the server makes itself, and what a change does."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.errors import ConfigurationError
from estserver import manifests, source_directory
from estserver.issuers import Registry, RegistrySettings, build
from estserver.manifests import parse
from estserver.snapshot import Snapshot
from estserver.source_directory import DirectorySource, write_exclusively
from tests.collect import collect
from tests.server.manifest_builders import NOW, ca_pem, next_serial

ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: factory, namespace: devices}
spec:
  ca: {secretName: factory-ca, generate: {commonName: Factory CA}}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: device-passwords, namespace: devices}
type: kubernetes.io/basic-auth
stringData: {username: device-1, password: correct horse}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    directory.mkdir()
    (directory / "issuer.yaml").write_text(ISSUER)
    return directory


def source(config: Path) -> DirectorySource:
    return DirectorySource(config=config, state=config / "state", clock=lambda: NOW, serial=next_serial)


def test_several_documents_of_all_kinds_are_read_from_one_file() -> None:
    cluster = "apiVersion: est-issuer.io/v1alpha1\nkind: EstClusterIssuer\nmetadata: {name: all}\nspec: {ca: {secretName: c}}\n"
    found = parse(f"---\n{ISSUER}---\n---\n{SECRET}---\n{cluster}".encode(), where="all.yaml")
    assert [issuer.key for issuer in found.issuers] == ["EstIssuer/devices/factory", "EstClusterIssuer/all"]
    assert found.secrets[0].data == {"username": b"device-1", "password": b"correct horse"}


def test_a_secret_holds_base64_under_data_and_text_under_string_data_which_wins() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: MQ==, b: Mg==}\nstringData: {b: '3'}\n"
    assert parse(text.encode(), where="s").secrets[0].data == {"a": b"1", "b": b"3"}
    assert parse(text.encode(), where="s").secrets[0].namespace == "default"


def test_what_kubectl_get_prints_may_be_kept_in_a_file() -> None:
    manifest = yaml.safe_load(ISSUER)
    manifest["metadata"] |= {
        "uid": "x",
        "resourceVersion": "1",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [],
    }
    manifest["status"] = {"conditions": []}
    assert parse(yaml.safe_dump(manifest).encode(), where="x").issuers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: Pod\napiVersion: v1\nmetadata: {name: x}", ["kind", "Pod is none of"]),
        ("kind: [1]\napiVersion: v1", ["kind"]),
        ("- 1", ["mapping"]),
        ("just text", ["mapping"]),
        ("a: [1", ["not YAML", "line"]),
        ("a: !!python/object/apply:os.system [id]", ["not YAML"]),
        ("\x00", ["not YAML"]),
        ("\xc3\x28", ["not YAML"]),
        ("{? [1] : 2}", ["not YAML"]),
        ("{? {a: 1} : 2}", ["not YAML"]),
        (ISSUER.replace("v1alpha1", "v2"), ["apiVersion"]),
        (ISSUER + "extra: 1", ["extra", "this field is unknown"]),
        (ISSUER.replace("spec:", "spec:\n  upstream: {}"), ["spec.upstream"]),
        (ISSUER.replace("secretName: factory-ca", "secretName: ../etc/passwd"), ["spec.ca.secretName"]),
        (ISSUER.replace("name: factory,", "name: Factory,"), ["metadata.name"]),
        (ISSUER.replace("name: factory,", "name: ../x,"), ["metadata.name"]),
        (ISSUER.replace("namespace: devices", "namespace: a.b"), ["metadata.namespace"]),
        (ISSUER.replace("namespace: devices", "namespaces: devices"), ["metadata.namespaces"]),
        (ISSUER + "metadata: {name: again}", ["metadata is there twice", "line 6"]),
        (ISSUER.replace("metadata:", "metadata: &m").replace("spec:", "status: *m\nspec:"), ["aliases", "line"]),
        ("[" * 40 + "]" * 40, ["nested deeper"]),
        ("{a: " * 40 + "1" + "}" * 40, ["nested deeper"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '***'}", ["data.a", "base64"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 5}", ["stringData.a", "string"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: [a]", ["data"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}", ["metadata.name"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: " + "x" * (1024 * 1024 + 1) + "}", ["larger than 1048576"]),
        ("#" * (manifests.MAX_FILE_OCTETS + 1), ["larger than"]),
    ],
)
def test_what_does_not_fit_is_refused_with_file_field_and_reason(text: str, says: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text.encode("latin-1"), where="issuers/wrong.yaml")
    assert str(refused.value).startswith("issuers/wrong.yaml: ")
    for words in says:
        assert words in str(refused.value)


def test_an_error_never_repeats_a_password() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(SECRET.replace("stringData:", "data:").encode(), where="secret.yaml")
    assert "correct horse" not in str(refused.value)


def test_a_ca_is_made_once_and_then_read(config: Path) -> None:
    made = source(config).load()
    file = config / "state" / "secrets" / "devices.factory-ca.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.read_bytes()
    assert source(config).load() == made
    assert file.read_bytes() == before
    registry = build(made, Registry(), RegistrySettings(directory=True), now=NOW)
    assert registry.default is not None
    assert registry.default.authority is not None
    collect(registry.default.authority.certificate.public_bytes(Encoding.DER))


def test_a_secret_in_the_directory_is_never_replaced_by_a_generated_one(config: Path) -> None:
    key, certificate = ca_pem()
    given = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "factory-ca", "namespace": "devices"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate.decode(), "tls.key": key.decode()},
        }
    )
    (config / "ca.yaml").write_text(given)
    loaded = source(config).load()
    assert loaded.secrets["devices", "factory-ca"].data["tls.crt"] == certificate
    assert not (config / "state" / "secrets").exists()


def test_a_broken_secret_of_that_name_is_not_replaced_either(config: Path) -> None:
    (config / "ca.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: factory-ca, namespace: devices}\n")
    assert source(config).load().secrets["devices", "factory-ca"].data == {}
    assert not (config / "state" / "secrets").exists()


def test_two_issuers_that_name_one_ca_share_it(config: Path) -> None:
    (config / "second.yaml").write_text(ISSUER.replace("name: factory,", "name: second,"))
    assert len(source(config).load().secrets) == 1


def test_a_file_is_created_exclusively(tmp_path: Path) -> None:
    assert write_exclusively(tmp_path / "x", b"first")
    assert not write_exclusively(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("again", [ISSUER, SECRET + "---\n" + SECRET])
def test_the_same_object_in_two_places_is_an_error(config: Path, again: str) -> None:
    (config / "zz.yaml").write_text(again)
    with pytest.raises(ConfigurationError, match=r"zz\.yaml: .*it is there twice"):
        source(config).load()


def test_a_directory_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: no such directory"):
        source(tmp_path / "nowhere").load()


def test_hidden_files_and_other_kinds_of_files_are_passed_over(config: Path) -> None:
    (config / ".swp.yaml").write_text("]")
    (config / "notes.txt").write_text("]")
    (config / "folder.yaml").mkdir()
    assert len(source(config).load().issuers) == 1


class Heard:
    """What a watching source said, to be awaited."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Snapshot | ConfigurationError] = asyncio.Queue()

    async def next(self) -> Snapshot | ConfigurationError:
        return await asyncio.wait_for(self.events.get(), 10)


@asynccontextmanager
async def watching(directory: DirectorySource, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Heard]:
    monkeypatch.setattr(source_directory, "POLL_SECONDS", 0.01)
    heard = Heard()
    task = asyncio.create_task(directory.watch(heard.events.put_nowait, heard.events.put_nowait))
    try:
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_change_is_read_and_a_mistake_leaves_the_last_good_state(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = source(config)
    first = directory.load()
    async with watching(directory, monkeypatch) as heard:
        (config / "passwords.yaml").write_text(SECRET)
        changed = await heard.next()
        assert isinstance(changed, Snapshot)
        assert ("devices", "device-passwords") in changed.secrets
        (config / "issuer.yaml").write_text("nonsense: [")
        error = await heard.next()
        assert isinstance(error, ConfigurationError)
        assert "issuer.yaml" in str(error)
        (config / "passwords.yaml").unlink()
        (config / "issuer.yaml").write_text(ISSUER)
        assert await heard.next() == first


async def test_a_new_issuer_gets_its_ca_without_a_restart(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = source(config)
    directory.load()
    async with watching(directory, monkeypatch) as heard:
        (config / "second.yaml").write_text(ISSUER.replace("name: factory,", "name: second,").replace("factory-ca", "second-ca"))
        changed = await heard.next()
        assert isinstance(changed, Snapshot)
        assert ("devices", "second-ca") in changed.secrets
