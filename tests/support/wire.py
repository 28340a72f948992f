"""A wire that can break: a TCP forwarder on the loopback between a client and a real server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

CHUNK = 65536


class Wire:
    """Forwards connections to a port of the loopback; can be cut, frozen, delayed and taken down.

    Attributes:
        port: where clients connect.
        delay: seconds that each chunk is held, in both directions.
        accepted: how many connections came in.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.accepted = 0
        self._down = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets every present connection; new ones are accepted."""
        with self._lock:
            victims, self._open = self._open, set()
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                victim.shutdown(socket.SHUT_RDWR)
            victim.close()

    def down(self) -> None:
        """Cuts, and resets every new connection at once, until :meth:`up`."""
        self._down = True
        self.cut()

    def up(self) -> None:
        """Ends :meth:`down`."""
        self._down = False

    def freeze(self) -> None:
        """Nothing passes any more, but nobody is told."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Ends :meth:`freeze`; what was held passes."""
        self._flowing.set()

    def close(self) -> None:
        """Ends everything."""
        self.down()
        self._flowing.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._down:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                if self.delay:
                    time.sleep(self.delay)  # the delay is the purpose, not a way to wait for something
                self._flowing.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, sink}


@contextlib.contextmanager
def wire_to(target: int) -> Iterator[Wire]:
    """A wire to a port of the loopback."""
    wire = Wire(target)
    try:
        yield wire
    finally:
        wire.close()
