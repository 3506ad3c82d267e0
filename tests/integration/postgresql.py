"""A real PostgreSQL on loopback, as several replicas of estserver share it; from Debian's package or whatever `initdb` is on PATH."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.integration.apiserver import free_port

DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path:
    """The directory of initdb and pg_ctl; fails loudly where there is none, for a skipped test shows nothing."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise RuntimeError("there is no initdb: install PostgreSQL (Debian package postgresql)")
    return versions[-1].parent


class PostgreSQL:
    """One server with an empty database; `url` is SQLAlchemy's."""

    def __init__(self, directory: Path) -> None:
        self._bin, self._directory, self._port = programs(), directory, free_port()
        # it refuses to run as root
        self._as_user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if os.geteuid() == 0 else ()
        self.url = f"postgresql+psycopg://est@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        self._directory.mkdir()
        if self._as_user:
            shutil.chown(self._directory, "nobody", "nogroup")
        self._run("initdb", "--auth=trust", "--username=est", "--no-sync")
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-w", "-l", str(self._directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = (*self._as_user, str(self._bin / program), "-D", str(self._directory / "data"), *arguments)
        with (self._directory / f"{program}.out").open("ab") as output:  # pg_ctl's child keeps what it is given: no pipe
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd="/", timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {(self._directory / f'{program}.out').read_text()[-2000:]}")
