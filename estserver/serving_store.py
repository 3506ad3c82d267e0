"""Where the server's own certificate is kept and its root is published: a directory, or a Secret and ConfigMaps.

Both stores hold one Secret in the same form. Saving is compare-and-swap: of two replicas that renew at once one wins, and the other
takes what the winner made. `publish` comes before use, always.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

import yaml

from estcore.errors import ConfigurationError
from estserver import manifests
from estserver.snapshot import TYPE_TLS

Data = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds, and the version to swap against; both empty where there is nothing yet."""

    data: Data | None
    version: str


class ServingStore(Protocol):
    """Keeps the serving keys. Its methods raise ConfigurationError where the store cannot be used, ApiError where it is away."""

    where: str

    async def load(self) -> Stored:
        """What is there now."""

    async def save(self, data: Data, version: str) -> bool:
        """Replace what was loaded as `version`, or create where it is empty; False when somebody else was first."""

    async def publish(self, bundle_pem: bytes) -> str:
        """Make the roots known to clients; where, for a log line."""


class DirectoryStore:
    """`state`/serving: serving.yaml (0600) and ca.crt for clients. One process writes it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "serving.yaml"
        self._bundle = directory / "ca.crt"
        self.where = str(self._file)

    async def load(self) -> Stored:
        """Raises ConfigurationError for a file that is no such Secret: a person put it there, so a person should look."""
        if not self._file.exists():
            return Stored(None, "")
        try:
            parsed = manifests.parse(self._file.read_bytes(), where=self.where)
        except OSError as error:
            raise ConfigurationError(f"cannot be read: {error.strerror}", where=self.where) from error
        if len(parsed.secrets) != 1:
            raise ConfigurationError("it is not one Secret; remove the file and a new certificate is made", where=self.where)
        return Stored(parsed.secrets[0].data, "1")

    async def save(self, data: Data, version: str) -> bool:
        """Never half-written: a new file takes the place of the old one."""
        del version
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "serving"},
            "type": TYPE_TLS,
            "data": encoded(data),
        }
        _replace(self._file, yaml.safe_dump(manifest, sort_keys=False).encode())
        return True

    async def publish(self, bundle_pem: bytes) -> str:
        """Write ca.crt where it differs."""
        if not self._bundle.is_file() or self._bundle.read_bytes() != bundle_pem:
            _replace(self._bundle, bundle_pem, mode=0o644)  # clients of every user may trust it
        return str(self._bundle)


class FilesStore:
    """A certificate and key in two files that somebody else renews (certbot, an administrator)."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.where = str(certificate)

    async def load(self) -> Stored:
        """The two files; raises ConfigurationError where one cannot be read."""
        try:
            certificate, key = (file.read_bytes() for file in self._files)
        except OSError as error:
            raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(error.filename)) from error
        return Stored({"tls.crt": certificate, "tls.key": key}, "")

    async def save(self, data: Data, version: str) -> bool:
        """Never: the files are somebody else's."""
        del data, version
        raise ConfigurationError("the certificate is given, so it is not made here", where=self.where)

    async def publish(self, bundle_pem: bytes) -> str:
        """Nothing: whoever gave the files knows their root."""
        del bundle_pem
        return ""


def encoded(data: Data) -> dict[str, str]:
    """`data` of a Secret as YAML and the API carry it."""
    return {member: base64.b64encode(value).decode() for member, value in data.items()}


def _replace(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put `content` in place of `target`, durable, in a directory of mode 0700."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as temporary:
            temporary.write(content)
            temporary.flush()
            os.fchmod(temporary.fileno(), mode)
            os.fsync(temporary.fileno())
        Path(temporary.name).replace(target)
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", where=str(target)) from error
