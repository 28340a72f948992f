from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from compose.local import ports


def test_ports_are_distinct_free_and_below_the_ephemeral_range(tmp_path: Path) -> None:
    chosen = ports.kept_ports(tmp_path / "ports.json", ("a", "b", "c"))
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(chosen.values())) == 3
    assert all(ports.is_free(port) and 1024 < port < lowest for port in chosen.values())


def test_ports_stay_the_same(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "ports.json"
    assert ports.kept_ports(file, ("a", "b")) == ports.kept_ports(file, ("a", "b"))


def test_a_port_that_another_program_took_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    before = ports.kept_ports(file, ("a",))
    with socket.create_server((ports.LOOPBACK, before["a"])):
        assert not ports.is_free(before["a"])
        assert ports.listening(before["a"])
        after = ports.kept_ports(file, ("a",))
        assert after != before
    assert ports.kept_ports(file, ("a",)) == after
    assert not ports.listening(before["a"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": "x"}', '{"b": 20000}', "\x00", '{"a": 99999}', '{"a": -1}'])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    chosen = ports.kept_ports(file, ("a",))
    assert json.loads(file.read_text()) == chosen
    assert ports.is_free(chosen["a"])
