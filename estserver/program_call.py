"""Runs a program that an issuer's manifest names: no shell, a time limit, bounded output, few at once.

For callouts and signers in directory mode, where whoever writes the manifest could as well start the server. A program that does not
come to its end in time is killed with everything that it started.
"""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from estcore.errors import Busy, SignerError

MAX_OUTPUT_OCTETS: Final = 64 * 1024
MAX_RUNNING: Final = 8
MAX_WAITING: Final = 64
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended: its exit status (negative: the signal that ended it) and standard output."""

    exit_status: int
    output: bytes


class ProgramCalls:
    """Runs at most `running` programs at once and lets `waiting` more wait. Belongs to one event loop."""

    def __init__(self, *, running: int = MAX_RUNNING, waiting: int = MAX_WAITING) -> None:
        self._turns = asyncio.Semaphore(running)
        self._room = running + waiting

    async def run(self, command: Sequence[str], *, standard_input: bytes, environment: Mapping[str, str], within: timedelta) -> Finished:
        """Run `command` with PATH and `environment` and nothing else of ours.

        Raises Busy where too many wait, SignerError where it cannot be started, takes longer than `within` (waiting included) or writes
        more than 64 KiB.
        """
        if self._room == 0:
            raise Busy("too many programs of issuers are running; try again")
        self._room -= 1
        try:
            async with asyncio.timeout(within.total_seconds()), self._turns:
                return await _run(command, standard_input, environment)
        except TimeoutError as error:
            raise SignerError(f"the program {command[0]} did not end within {within}", reason="CalloutFailed") from error
        finally:
            self._room += 1


async def _run(command: Sequence[str], standard_input: bytes, environment: Mapping[str, str]) -> Finished:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"PATH": PATH, **environment}, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise SignerError(f"the program {command[0]} cannot be started: {error}", reason="CalloutFailed") from error
    try:
        output = await _talk(process, standard_input)
        return Finished(exit_status=await process.wait(), output=output)
    finally:
        with suppress(ProcessLookupError):  # whatever it started and left behind goes with it
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _talk(process: Process, standard_input: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    with suppress(BrokenPipeError, ConnectionResetError):  # a program need not read what it is told
        process.stdin.write(standard_input)
        await process.stdin.drain()
    process.stdin.close()
    output = bytearray()
    while chunk := await process.stdout.read(MAX_OUTPUT_OCTETS):
        output += chunk
        if len(output) > MAX_OUTPUT_OCTETS:
            raise SignerError(f"a program of an issuer wrote more than {MAX_OUTPUT_OCTETS} octets", reason="CalloutFailed")
    return bytes(output)
