from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from compose.local.processes import (
    INHERITED,
    PRIVATE,
    DirectoryBusyError,
    ManagedProcess,
    ProcessFailedError,
    directory_lock,
    stop_in_order,
    tail,
)
from tests.support.wait import wait_until

ENV = {"PATH": os.environ["PATH"]}
SLEEP = ["sleep", "600"]


@pytest.fixture
def process(tmp_path: Path):
    made = ManagedProcess("one", tmp_path)
    yield made
    made.kill()


def test_what_a_process_writes_is_its_owner_s_alone(process: ManagedProcess, tmp_path: Path) -> None:
    for name, umask in (("private", PRIVATE), ("inherited", INHERITED)):
        process.spawn(["touch", str(tmp_path / name)], ENV, umask=umask)
        assert process.wait(5)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    ours = tmp_path / "ours"
    ours.touch()
    assert (tmp_path / "inherited").stat().st_mode == ours.stat().st_mode


def test_a_process_is_found_again_by_its_directory(process: ManagedProcess, tmp_path: Path) -> None:
    pid = process.spawn(SLEEP, ENV)
    again = ManagedProcess("one", tmp_path)
    assert again.pid == pid
    assert os.getsid(pid) == pid  # a session of its own: the terminal's Ctrl-C does not reach it
    process.send(signal.SIGTERM)
    assert again.wait(5) or process.wait(5)
    assert not process.running
    assert not again.running


def test_a_second_spawn_under_the_same_name_is_refused(process: ManagedProcess) -> None:
    process.spawn(SLEEP, ENV)
    with pytest.raises(ProcessFailedError, match="already"):
        process.spawn(SLEEP, ENV)


def test_a_program_that_does_not_exist_is_an_error_with_its_name(process: ManagedProcess) -> None:
    with pytest.raises(ProcessFailedError, match="no-such-program"):
        process.spawn(["no-such-program"], ENV)
    assert not process.running


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "another"}, {"pid": 2**22 + 1}, {"start": None}])
def test_a_recycled_pid_is_never_signalled(process: ManagedProcess, change: dict[str, object]) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        process.spawn(["true"], ENV)
        process.wait(5)
        other = ManagedProcess("other", process.pid_file.parent.parent)
        record = {**json.loads(process.pid_file.read_text()), "pid": stranger.pid, **change}
        other.pid_file.write_text(json.dumps(record))
        assert not other.running
        assert not other.send(signal.SIGKILL)
        other.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"pid": "x"}', "\x00"])
def test_a_damaged_pid_file_means_not_running(process: ManagedProcess, content: str) -> None:
    process.pid_file.parent.mkdir(parents=True)
    process.pid_file.write_text(content)
    assert process.pid is None
    process.stop()


def test_stop_kills_what_does_not_listen(process: ManagedProcess) -> None:
    process.spawn(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print('on', flush=True); signal.pause()",
        ],
        ENV,
    )
    wait_until(lambda: "on" in process.log_tail(), what="the handler")
    begun = time.monotonic()
    process.stop(grace=0.1)
    assert not process.running
    assert time.monotonic() - begun < 5
    assert not process.pid_file.exists()


def test_wait_ready_shows_the_log_of_what_died(process: ManagedProcess) -> None:
    process.spawn(["sh", "-c", "echo no space left on device; exit 3"], ENV)
    with pytest.raises(ProcessFailedError, match="no space left"):
        process.wait_ready(lambda: False, 10)


def test_wait_ready_gives_up(process: ManagedProcess) -> None:
    process.spawn(SLEEP, ENV)
    with pytest.raises(ProcessFailedError, match="not ready after"):
        process.wait_ready(lambda: False, 0.05)


TELLS_ITS_END = """
import signal, sys
def end(*_):
    with open(sys.argv[1], "a") as note:
        note.write(sys.argv[2])
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("on", flush=True)
signal.pause()
"""


def test_stages_stop_one_after_the_other(tmp_path: Path) -> None:
    note = tmp_path / "order"
    made = {name: ManagedProcess(name, tmp_path) for name in "abc"}
    for name, process in made.items():
        process.spawn([sys.executable, "-c", TELLS_ITS_END, str(note), name], ENV)
    for process in made.values():
        wait_until(lambda process=process: "on" in process.log_tail(), what="the handler")
    stop_in_order([[made["c"]], [made["a"], made["b"]]], grace=10)
    assert note.read_text() in {"cab", "cba"}
    assert not any(process.running for process in made.values())


PARENT = """
import os, sys, time
from pathlib import Path
from compose.local.processes import ManagedProcess
child = ManagedProcess("c", Path(sys.argv[1]))
print(child.spawn(["sleep", "600"], dict(os.environ), dies_with_parent=True), flush=True)
time.sleep(600)
"""


def test_a_child_bound_to_its_parent_dies_with_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    wait_until(lambda: psutil.Process(pid).name() == "sleep", what="the program under its wrapper")
    parent.kill()
    parent.wait()
    wait_until(lambda: not psutil.pid_exists(pid), what="the child's end")


def test_the_directory_lock_admits_one(tmp_path: Path) -> None:
    busy = pytest.raises(DirectoryBusyError, match=str(os.getpid()))
    with directory_lock(tmp_path / "data"), busy, directory_lock(tmp_path / "data"):
        pass
    with directory_lock(tmp_path / "data"):
        pass
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_child_does_not_inherit_the_lock(process: ManagedProcess, tmp_path: Path) -> None:
    with directory_lock(tmp_path):
        process.spawn(SLEEP, ENV)
    with directory_lock(tmp_path):
        assert process.running


def test_logs_and_pid_files_are_private(process: ManagedProcess) -> None:
    process.spawn(SLEEP, ENV)
    assert process.log_file.stat().st_mode & 0o077 == 0
    assert process.log_file.parent.stat().st_mode & 0o077 == 0


def test_tail_of_a_huge_log_and_of_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\n" + b"last\n" * 20 + b"\xff")
    assert tail(log, 3).splitlines()[:2] == ["last", "last"]
    assert tail(tmp_path / "none") == ""
