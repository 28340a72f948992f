"""Reading /proc on recorded lines, and signals that cannot hit a stranger."""

from __future__ import annotations

import dataclasses
import os
import subprocess

import pytest

from pilot.processes import Process, parse_pss, parse_stat, read_process, read_processes, send_signal, tree

LINE = (
    "4711 (a) (odd name) S 1 4711 4711 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 987654 1000000 250 184467 1 1 0 0 0 0"
    " 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def test_stat_with_an_odd_name() -> None:
    process = parse_stat(LINE)
    assert (process.pid, process.parent, process.group, process.session, process.state) == (4711, 1, 4711, 4711, "S")
    assert process.cpu_seconds == 250 / os.sysconf("SC_CLK_TCK")
    assert process.started == 987654
    assert process.memory_mb == 250 * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("text", ["", "1 no name", "1 (x) S 1"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_stat(text)


def test_tree_survives_cycles_and_gaps() -> None:
    base = parse_stat(LINE)
    table = {pid: dataclasses.replace(base, pid=pid, parent=parent) for pid, parent in [(1, 3), (2, 1), (3, 2), (9, 8)]}
    assert sorted(process.pid for process in tree(table, [1, 77])) == [1, 2, 3]


def test_pss() -> None:
    assert parse_pss("Rss: 10 kB\nPss:     2000 kB\nPss_Anon: 1 kB\n") == 2.048
    assert parse_pss("nothing") is None


def test_ourselves_and_nobody() -> None:
    me = read_process(os.getpid())
    assert me is not None
    assert me.parent == os.getppid()
    assert os.getpid() in read_processes()
    assert read_process(2**22 + 1) is None


def test_signal_does_not_hit_who_got_the_number_later() -> None:
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        process = read_process(child.pid)
        assert isinstance(process, Process)
        assert not send_signal(dataclasses.replace(process, started=process.started - 1), 9)
        assert child.poll() is None
        assert send_signal(process, 9)
        assert child.wait() == -9
    assert not send_signal(process, 9)
