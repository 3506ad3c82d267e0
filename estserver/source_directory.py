"""Issuers and Secrets from a directory of YAML files: the embedded source, with no cluster and nothing to install.

The directory is the administrator's and is only read. What the server makes itself (a generated CA) goes into the state directory,
as Secrets in the same form. Both are read again when a file changes; what does not fit then leaves the last good state standing.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import structlog
import yaml

from estcore import authority, issuer_spec
from estcore.errors import ConfigurationError
from estserver import manifests
from estserver.secret_uses import SecretReference, references
from estserver.snapshot import TYPE_TLS, IssuerManifest, SecretKey, SecretManifest, Snapshot

POLL_SECONDS = 0.5  # one scandir of two directories: 20 µs for a dozen files
MAX_FILES = 1000

log = structlog.get_logger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True)
class DirectorySource:
    """Reads `config`, keeps generated CAs in `state`/secrets. `serial` gives the serial number of a CA that is made."""

    config: Path
    state: Path
    clock: Callable[[], datetime]
    serial: Callable[[], int]
    _seen: Fingerprint = field(default=())

    def load(self) -> Snapshot:
        """Read every file, make the CAs that are to be generated, and return what there is then.

        Raises ConfigurationError with file, field and reason; nothing was made then.
        """
        self._seen = self._fingerprint()
        snapshot = self._read()
        made = [_generate(reference, self.state / "secrets", self.clock(), self.serial()) for reference in _absent(snapshot)]
        if not any(made):
            return snapshot
        self._seen = self._fingerprint()
        return self._read()

    async def watch(self, publish: Callable[[Snapshot], None], failed: Callable[[ConfigurationError], None]) -> None:
        """Until cancelled: read again after a change, `publish` what fits, tell `failed` what does not.

        A change is read when the files have kept still for one turn, so a file that is being written is not read in its middle.
        """
        before = self._seen
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = self._fingerprint()
            if now != before or now == self._seen:
                before = now
                continue
            try:
                publish(await asyncio.to_thread(self.load))
            except ConfigurationError as error:
                failed(error)
            before = self._seen

    def _fingerprint(self) -> Fingerprint:
        found: list[tuple[str, int, int, int]] = []
        for directory in (self.config, self.state / "secrets"):
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if _is_manifest(entry.name):
                            stat = entry.stat()
                            found.append((entry.path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                continue  # a file or directory between two names; _read says what is wrong with it
        return tuple(sorted(found))

    def _read(self) -> Snapshot:
        if not self.config.is_dir():
            raise ConfigurationError("no such directory", where=str(self.config))
        issuers: dict[str, IssuerManifest] = {}
        secrets = {(secret.namespace, secret.name): secret for file in _files(self.state / "secrets") for secret in _parse(file).secrets}
        given: dict[SecretKey, SecretManifest] = {}
        for file in _files(self.config):
            parsed = _parse(file)
            for issuer in parsed.issuers:
                if issuers.setdefault(issuer.key, issuer) is not issuer:
                    raise ConfigurationError("it is there twice", where=str(file), field=issuer.key)
            for secret in parsed.secrets:
                if given.setdefault((secret.namespace, secret.name), secret) is not secret:
                    raise ConfigurationError("it is there twice", where=str(file), field=f"Secret/{secret.namespace}/{secret.name}")
        return Snapshot(issuers=tuple(issuers.values()), secrets={**secrets, **given})


def _is_manifest(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and not name.startswith(".")


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    files = sorted(path for path in directory.iterdir() if _is_manifest(path.name) and path.is_file())
    if len(files) > MAX_FILES:
        raise ConfigurationError(f"more than {MAX_FILES} files", where=str(directory))
    return files


def _parse(file: Path) -> manifests.Manifests:
    try:
        with file.open("rb") as opened:
            text = opened.read(manifests.MAX_FILE_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(file)) from error
    return manifests.parse(text, where=str(file))


def _absent(snapshot: Snapshot) -> list[SecretReference]:
    """The CAs to make: named with `generate`, and no Secret of that name anywhere. Two issuers may share one."""
    wanted: dict[SecretKey, SecretReference] = {}
    for issuer in snapshot.issuers:
        spec = issuer_spec.parse(issuer.spec, where=issuer.key)
        for reference in references(spec, namespace=issuer.namespace or manifests.DEFAULT_NAMESPACE):
            if reference.generate is not None and reference.key not in snapshot.secrets:
                wanted.setdefault(reference.key, reference)
    return list(wanted.values())


def _generate(reference: SecretReference, directory: Path, now: datetime, serial: int) -> bool:
    """Write a new CA as a Secret, whole and exclusively: a file that is there is never touched. False when it was there."""
    if reference.generate is None:
        return False
    key_pem, certificate_pem = authority.generate_ca(reference.generate, now=now, serial=serial)
    members = {"tls.crt": certificate_pem, "tls.key": key_pem, "ca.crt": certificate_pem}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": reference.namespace, "name": reference.name},
        "type": TYPE_TLS,
        "data": {member: base64.b64encode(pem).decode() for member, pem in members.items()},
    }
    target = directory / f"{reference.namespace}.{reference.name}.yaml"
    try:
        made = write_exclusively(target, yaml.safe_dump(manifest, sort_keys=False).encode())
    except OSError as error:
        raise ConfigurationError(f"the generated CA cannot be written: {error.strerror}", where=str(target)) from error
    if made:
        log.info("generated a CA", secret=str(reference), file=str(target), common_name=reference.generate.common_name)
    return made


def write_exclusively(target: Path, content: bytes) -> bool:
    """Create `target` (0600, its directory 0700) with `content`, durable and never half-written; False where it exists already."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, prefix=".", delete=True) as temporary:  # NamedTemporaryFile makes it 0600
        temporary.write(content)
        temporary.flush()
        os.fsync(temporary.fileno())
        try:
            os.link(temporary.name, target)
        except FileExistsError:
            return False
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True
