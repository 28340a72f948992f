"""Just enough of MySQL's protocol to change the database of a private VOMS server: statements, no results."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_CAPABILITIES = 0x0200 | 0x8000 | 0x0008 | 0x80000  # protocol 4.1, its authentication, with a database, named plugin
_QUERY = b"\x03"


class StatementError(Exception):
    """The database refused a statement."""


def execute(path: Path, database: str, *statements: str) -> None:
    """Execute statements one after the other, each committed at once.

    Args:
        path: the server's Unix socket; it must ask for no password.
        database: where they act.
        statements: SQL that returns no rows.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        _read(connection)
        hello = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, 33) + b"root\0\0" + database.encode() + b"\0"
        _send(connection, 1, hello + b"mysql_native_password\0")
        number, answer = _read(connection)
        if answer[:1] == b"\xfe":  # it asks for the same plugin in other words: no password again
            _send(connection, number + 1, b"")
            _, answer = _read(connection)
        _check(answer, "login")
        for statement in statements:
            _send(connection, 0, _QUERY + statement.encode("utf-8"))
            _check(_read(connection)[1], statement)


def _send(connection: socket.socket, number: int, payload: bytes) -> None:
    connection.sendall(len(payload).to_bytes(3, "little") + bytes([number]) + payload)


def _read(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 4)
    return head[3], _exactly(connection, int.from_bytes(head[:3], "little"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise StatementError("the database has closed the connection")
        data += more
    return data


def _check(answer: bytes, statement: str) -> None:
    if answer[:1] != b"\0":
        raise StatementError(f"{answer[3:].decode('utf-8', 'replace')}: {statement}")
