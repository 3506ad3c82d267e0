"""What the watching process and its workers tell each other: JSON lines over a socket pair.

To a worker: `start` (once, first), `former` (once, before the first snapshot), `snapshot`, `certificate`, `drain`. From a worker: `ready`
once it serves, then `alive` every few seconds; `refused` before it ends by something that a person must mend. A line ends the other side's
wait; the end of the stream means that the other process is gone.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from estserver.serving_certificate import ServingKeys
from estserver.snapshot import Snapshot, from_json, to_json

MAX_LINE_OCTETS = 512 * 1024 * 1024  # a snapshot of hundreds of Secrets; both ends are this program
ALIVE_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a worker that says nothing for so long does not turn its loop: it is replaced

Message = Mapping[str, Any]
Kind = Literal["start", "former", "snapshot", "certificate", "drain", "ready", "alive", "refused"]


def encode(kind: Kind, **content: Any) -> bytes:
    """One line."""
    return json.dumps({"kind": kind, **content}).encode() + b"\n"


def snapshot_line(snapshot: Snapshot) -> bytes:
    """The newest snapshot, for a worker."""
    return encode("snapshot", snapshot=to_json(snapshot))


def read_snapshot(message: Message) -> Snapshot:
    """The inverse of `snapshot_line`."""
    return from_json(message["snapshot"])


def former_line(former: Sequence[Snapshot]) -> bytes:
    """What the others' last good state was made of."""
    return encode("former", snapshots=[to_json(snapshot) for snapshot in former])


def read_former(message: Message) -> Sequence[Snapshot]:
    """The inverse of `former_line`."""
    return [from_json(snapshot) for snapshot in message["snapshots"]]


def certificate_line(keys: ServingKeys) -> bytes:
    """The server certificate to use from now on, and nothing of its root's key."""
    return encode("certificate", chain=keys.chain_pem.decode(), key=keys.key_pem.decode())


async def messages(sock: socket.socket) -> tuple[AsyncIterator[Message], asyncio.StreamWriter]:
    """Both directions of one end of the pair."""
    reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_LINE_OCTETS)

    async def _read() -> AsyncIterator[Message]:
        try:
            while line := await reader.readline():
                yield json.loads(line)
        except (OSError, ValueError):  # the other process died, maybe in the middle of a line
            return

    return _read(), writer
