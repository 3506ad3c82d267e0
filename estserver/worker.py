"""One worker of `--workers N`: serves what the watching process hands it, and ends when that process is gone.

Started as `python -m estserver.worker FD`; everything else comes as messages, so no key is ever in arguments or environment.
"""

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import uvloop

from estcore.errors import ConfigurationError
from estserver import control, logs
from estserver.exit_status import EXIT_SETTINGS
from estserver.front import log_format, serve_est
from estserver.issuers import Issuers
from estserver.metrics import Metrics
from estserver.origin import install_namespace, utc_now
from estserver.program import prepare_process
from estserver.registry_keeper import RegistryKeeper
from estserver.settings import load
from estserver.tls import ServerTls


@dataclass(slots=True)
class _Control:
    """What was said so far."""

    registry: RegistryKeeper
    shutdown: asyncio.Event
    tls: ServerTls | None = None
    certified: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, message: control.Message) -> None:
        match message["kind"]:
            case "former":
                self.registry.remember(control.read_former(message))
            case "snapshot":
                self.registry.feed(control.read_snapshot(message))
            case "certificate":
                chain, key = message["chain"].encode(), message["key"].encode()
                if self.tls is None:
                    self.tls = ServerTls(chain, key)
                else:
                    self.tls.replace(chain, key)
                self.certified.set()
            case "drain":
                self.shutdown.set()


async def run(descriptor: int) -> int:
    """Serve until told to drain; the exit status. What a person must mend is the watching process's to say."""
    prepare_process()
    sock = socket.socket(fileno=descriptor)
    sock.settimeout(0)
    incoming, writer = await control.messages(sock)
    start = await anext(incoming)
    settings, limits = load(start["options"])
    logs.configure(log_format(settings), level=settings.log_level)
    issuers = Issuers()
    registry = RegistryKeeper(issuers, settings.registry(install_namespace=install_namespace(settings)), clock=utc_now, tells=False)
    known = _Control(registry, asyncio.Event())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, known.shutdown.set)
    listening = [socket.socket(fileno=number) for number in start["sockets"]]

    async def _listen() -> None:
        async for message in incoming:
            known.hear(message)
        known.shutdown.set()  # nobody is left to restart us or to hand us anything

    async def _say_alive() -> None:
        while True:
            await asyncio.sleep(control.ALIVE_SECONDS)
            writer.write(control.encode("alive"))

    async def _serve() -> None:
        await registry.judged.wait()
        await known.certified.wait()
        assert known.tls is not None  # noqa: S101 - certified says so
        await serve_est(
            settings,
            limits,
            listening,
            issuers,
            known.tls,
            Metrics(),
            shutdown=known.shutdown,
            started=lambda: writer.write(control.encode("ready")),
        )

    status = 0
    try:
        async with asyncio.TaskGroup() as tasks:  # one that hears or judges nothing any more must end, and be replaced
            beside = [tasks.create_task(work) for work in (_listen(), registry.run(), _say_alive())]
            await _serve()
            for task in beside:
                task.cancel()
    except* ConfigurationError as refused:
        writer.write(control.encode("refused", message=str(refused.exceptions[0])))
        status = EXIT_SETTINGS
    finally:
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the watching process tells us to drain
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(run(int(sys.argv[1])))
    sys.exit(status)
