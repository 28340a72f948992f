"""A server that asks for the password itself, or for its MD5, does not get it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from consumers.store import Store, StoreUnavailable

SECRET = "correct horse"
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


@contextmanager
def asking(question: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that asks for a proof of identity in one way; what it was told."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, question, heard), daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard


def _serve(listener: socket.socket, question: bytes, heard: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(10)
            while True:
                size, code = struct.unpack("!II", connection.recv(8))
                if code not in {SSL_REQUEST, GSS_REQUEST}:
                    break
                connection.sendall(b"N")
            connection.recv(size)
            connection.sendall(b"R" + struct.pack("!I", 4 + len(question)) + question)
            heard.append(connection.recv(4096))


@pytest.mark.parametrize("question", [struct.pack("!I", 3), struct.pack("!I", 5) + b"salt"], ids=["password", "md5"])
def test_the_password_is_not_given_away(question: bytes) -> None:
    with asking(question) as (port, heard):
        with pytest.raises(StoreUnavailable):
            Store.open(f"postgresql://pilotage@127.0.0.1:{port}/pilotage", password=SECRET)
        assert not any(SECRET.encode() in said or said[:1] == b"p" for said in heard)
