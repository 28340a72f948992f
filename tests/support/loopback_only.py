"""Run a server that listens on every address so that one port of the loopback is all that reaches it.

    python loopback_only.py LISTENING_FD INNER_PORT PROGRAM [ARGUMENT ...]      (standard input: a pipe)

Started inside a network namespace of its own, with a listening socket that was made outside of it: a socket stays in
the namespace where it was made. Every connection to it is relayed to the server on the inner loopback. Prints `ready`
when the server answers. When standard input ends, whoever started this has ended: the server and its children end too.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40  # netdevice(7)
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
START_TIMEOUT = 30.0
POLL = 0.02


def main(arguments: list[str]) -> int:
    """See the module."""
    descriptor, port, *command = arguments
    raise_loopback()
    # Daemons leave their parent; as reaper of orphans we stay the one who can end them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        if not wait_listening(server, int(port)):
            return 1
        listener = socket.socket(fileno=int(descriptor))
        print("ready", flush=True)
        threading.Thread(target=accept_all, args=(listener, int(port)), daemon=True).start()
        sys.stdin.buffer.read()
    finally:
        end_children()
    return 0


def raise_loopback() -> None:
    """Bring up `lo`, which is down in a fresh namespace; where we may not, it is up already or nothing works."""
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(handle, SIOCSIFFLAGS, request)


def wait_listening(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server accepts connections; one that becomes a daemon ends its first process with 0."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and not server.poll():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        time.sleep(POLL)
    return False


def accept_all(listener: socket.socket, port: int) -> None:
    """Relay every connection."""
    while True:
        outer, _address = listener.accept()
        try:
            inner = socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            outer.close()
            continue
        for source, target in ((outer, inner), (inner, outer)):
            threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction of a connection until its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


def end_children() -> None:
    """Kill what we started; in a namespace of processes our own end does it, elsewhere orphans come to us."""
    if os.getpid() == 1:
        return
    while children := Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text("ascii").split():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
