"""A way to the API server on which connections can go silent: open, and nothing comes any more, as behind a broken NAT."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class SilentProxy:
    """Forwards 127.0.0.1:`port` to a port beside it. What is open at `silence` stays open and swallows everything; later ones work."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._silent = threading.Event()
        self._sockets: list[socket.socket] = []
        self._silenced = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def silence(self) -> int:
        """Let every open connection go silent; how many there were."""
        before, self._silent = self._silent, threading.Event()
        before.set()
        silenced, self._silenced = len(self._sockets) // 2 - self._silenced, len(self._sockets) // 2
        return silenced

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink, self._silent), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65536):
            if not silent.is_set():
                sink.sendall(octets)
        if not silent.is_set():
            sink.shutdown(socket.SHUT_WR)
