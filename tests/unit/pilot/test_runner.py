"""The runner with real processes: nothing of a payload survives its end, and the end is told truly."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.payload import Outcome, PayloadSpec, PayloadStartError, ResourceFloor
from pilot.processes import read_processes
from pilot.runner import PayloadRunner
from pilot.running import Payload
from pilot.workdir import WorkArea
from tests.support.wait import wait_until

MARK = f"98{os.getpid():07d}"
"""By which payloads are found among all processes of the machine; another run of these tests has another."""

Shell = Callable[..., PayloadSpec]
Living = Callable[[str], list[int]]


def finished(payload: Payload, timeout: float = 20.0) -> Outcome:
    outcome = payload.wait(timeout)
    assert outcome is not None, "the payload still runs"
    return outcome


def text(spec: PayloadSpec, name: str = "std.out") -> str:
    return (spec.directory / name).read_text()


def when_written(spec: PayloadSpec, word: str) -> None:
    path = spec.directory / "std.out"
    wait_until(lambda: path.exists() and word in path.read_text(), 10, f"{word!r} in the payload's output")


@pytest.mark.parametrize("code", [0, 1, 203, 255])
def test_exit_code_is_told(runner: PayloadRunner, shell: Shell, code: int) -> None:
    outcome = finished(runner.start(shell(f"exit {code}")))
    assert (outcome.exit_code, outcome.signal_number, outcome.reason) == (code, None, None)
    assert outcome.succeeded == (code == 0)


def test_signal_is_told(runner: PayloadRunner, shell: Shell) -> None:
    outcome = finished(runner.start(shell("kill -SEGV $$")))
    assert (outcome.exit_code, outcome.signal_number) == (None, 11)
    assert "SIGSEGV" in outcome.describe()


def test_payload_stands_alone(runner: PayloadRunner, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PILOT", "x")
    spec = shell(
        "env; echo cwd=$PWD; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; cut -d' ' -f1,5,6 /proc/$$/stat"
    )
    kept = os.open("/", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        payload = runner.start(spec)
        finished(payload)
    finally:
        os.close(kept)
    lines = text(spec).splitlines()
    assert not any("SECRET" in line for line in lines)
    assert f"HOME={spec.directory}" in lines
    assert f"cwd={spec.directory}" in lines
    assert lines[-3] == "/dev/null"
    assert int(lines[-2]) == 4  # 0, 1, 2 and the listing itself
    assert lines[-1] == f"{payload.pid} {payload.pid} {payload.pid}"


def test_output_goes_to_named_files(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("echo out; echo err >&2", stdout="logs/a.txt", stderr="logs/b.txt")
    finished(runner.start(spec))
    assert (text(spec, "logs/a.txt"), text(spec, "logs/b.txt")) == ("out\n", "err\n")
    both = shell("echo out; echo err >&2", stdout="one", stderr="one")
    finished(runner.start(both))
    assert text(both, "one") == "out\nerr\n"


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "link/escape", ""])
def test_output_cannot_leave_the_work_directory(runner: PayloadRunner, shell: Shell, tmp_path: Path, name: str) -> None:
    spec = shell("true", stdout=name)
    (spec.directory / "link").symlink_to(tmp_path)
    with pytest.raises(PayloadStartError, match="output file"):
        runner.start(spec)
    assert not (tmp_path / "escape").exists()
    assert runner.payloads() == ()


def test_executable_from_the_sandbox(runner: PayloadRunner, area: WorkArea) -> None:
    directory = area.fresh("7", 1)
    (directory / "run.sh").write_text("echo without an interpreter line $1\n")
    spec = PayloadSpec("7", 1, directory, "run.sh", ("a b",))
    assert finished(runner.start(spec)).succeeded
    assert text(spec) == "without an interpreter line a b\n"
    assert (directory / "run.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize(
    ("executable", "message"),
    [
        ("nowhere", "neither in the input sandbox nor on this node"),
        ("/no/such/program", "does not exist on this node"),
        ("/etc/passwd", "is not executable"),
        ("../../bin/sh", "leaves the work directory"),
        ("bad", "interpreter does not exist"),
    ],
)
def test_missing_executable_is_explained(runner: PayloadRunner, area: WorkArea, executable: str, message: str) -> None:
    directory = area.fresh("8", 1)
    (directory / "bad").write_text("#!/no/such/interpreter\n")
    with pytest.raises(PayloadStartError, match=message):
        runner.start(PayloadSpec("8", 1, directory, executable))
    assert runner.payloads() == ()


def test_daemon_that_forks_twice_is_killed(runner: PayloadRunner, shell: Shell, living: Living) -> None:
    outcome = finished(runner.start(shell(f"(setsid sh -c 'setsid sleep {MARK}1 & exit' &); sleep 0.2; exit 3")))
    assert outcome.exit_code == 3
    assert outcome.leftovers >= 1
    assert living(f"{MARK}1") == []


def test_daemon_with_a_clean_environment_beside_another_payload(
    runner: PayloadRunner, shell: Shell, living: Living
) -> None:
    other = runner.start(shell(f"sleep {MARK}2"))
    outcome = finished(runner.start(shell(f"(setsid env -i setsid /bin/sleep {MARK}3 &) ; sleep 0.2")))
    assert outcome.leftovers == 1
    assert living(f"{MARK}3") == []
    assert living(f"{MARK}2")
    other.stop("enough")
    assert finished(other).reason == "enough"


def test_process_that_hides_from_its_payload_is_killed(shell: Shell, living: Living) -> None:
    with PayloadRunner(sweep_seconds=0.1) as runner:
        other = runner.start(shell(f"sleep {MARK}7"))
        hiding = shell(f"(cd /; setsid env -i setsid /bin/sleep {MARK}8 &) ; sleep 0.1")
        finished(runner.start(hiding))
        wait_until(lambda: not living(f"{MARK}8"), 5, "the end of the hidden process")
        assert living(f"{MARK}7")
        assert other.outcome is None


def test_stopping_ends_daemons_too(runner: PayloadRunner, shell: Shell, living: Living) -> None:
    spec = shell(f"(setsid sh -c \"trap '' TERM; echo ready; sleep {MARK}4; sleep {MARK}4\" &); sleep {MARK}4")
    payload = runner.start(spec)
    when_written(spec, "ready")
    begun = time.monotonic()
    payload.stop("killed by its owner")
    outcome = finished(payload)
    assert outcome.reason == "killed by its owner" == outcome.describe()
    assert time.monotonic() - begun < 2.0
    assert living(f"{MARK}4") == []


def test_ignored_term_is_followed_by_kill_within_two_seconds(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    payload = runner.start(spec)
    when_written(spec, "ready")
    begun = time.monotonic()
    payload.stop("no longer wanted")
    outcome = finished(payload)
    assert 0.9 < time.monotonic() - begun < 2.0
    assert outcome.signal_number == 9


def test_grace_is_used_to_say_goodbye(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("sh -c \"trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.05; done\"")
    payload = runner.start(spec)
    when_written(spec, "ready")
    payload.stop("lease over", grace=5)
    assert finished(payload).reason == "lease over"
    assert "saved" in text(spec)


def test_stopped_process_is_woken_to_end(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("trap 'echo bye; exit 0' TERM; echo ready; kill -STOP $$; sleep 9")
    payload = runner.start(spec)
    when_written(spec, "ready")
    payload.stop("enough", grace=3)
    finished(payload)
    assert "bye" in text(spec)


def test_fork_bomb_is_put_out(runner: PayloadRunner, shell: Shell, living: Living) -> None:
    bomb = f"i=0; while [ $i -lt 40 ]; do setsid sh -c 'sleep {MARK}5; sleep {MARK}5' & i=$((i+1)); done"
    spec = shell(f"{bomb}; echo ready; wait")
    payload = runner.start(spec)
    when_written(spec, "ready")
    payload.stop("too many", grace=0)
    finished(payload)
    assert living(f"{MARK}5") == []


def test_appointed_stop_comes_in_time_and_can_be_moved(runner: PayloadRunner, shell: Shell) -> None:
    begun = runner.now()
    payload = runner.start(shell("sleep 30"))
    payload.stop_at(begun + 0.3, "lease", grace=0.1)
    payload.stop_at(begun + 0.8, "lease", grace=0.1)
    outcome = finished(payload)
    assert outcome.reason == "lease"
    assert 0.65 < runner.now() - begun < 1.2


def test_first_reason_wins(runner: PayloadRunner, shell: Shell) -> None:
    payload = runner.start(shell("trap '' TERM; sleep 30; sleep 30"))
    payload.stop("first", grace=30)
    payload.stop("second", grace=0)
    assert finished(payload, 3).reason == "first"
    payload.stop("too late")
    assert payload.outcome is not None


def test_cpu_time_agrees_with_the_kernel(runner: PayloadRunner, area: WorkArea) -> None:
    script = (
        "import os, time\n"
        "def burn(s):\n"
        "    end = time.process_time() + s\n"
        "    while time.process_time() < end: pass\n"
        "if os.fork() == 0:\n"
        "    burn(0.2); os._exit(0)\n"
        "os.wait(); burn(0.3)\n"
        "own, children = os.times()[0:2], os.times()[2:4]\n"
        "print(sum(own) + sum(children))\n"
    )
    spec = PayloadSpec("9", 1, area.fresh("9", 1), sys.executable, ("-S", "-c", script))
    outcome = finished(runner.start(spec))
    assert outcome.usage.cpu_seconds == pytest.approx(float(text(spec)), abs=0.06)
    assert outcome.usage.cpu_seconds >= 0.5


def test_cpu_time_of_orphans_is_counted(runner: PayloadRunner, shell: Shell) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass\nopen('done','w').close()"
    spec = shell(f'(setsid {sys.executable} -S -c "{burn}" &); while [ ! -e done ]; do sleep 0.02; done; sleep 0.1')
    assert finished(runner.start(spec)).usage.cpu_seconds >= 0.4


def test_usage_shows_the_whole_tree(runner: PayloadRunner, shell: Shell) -> None:
    hog = (
        f"{sys.executable} -S -c \"x = bytearray(60_000_000); print('ready', flush=True); import time; time.sleep(60)\""
    )
    spec = shell(f"(setsid {hog} &) ; head -c 5000000 /dev/zero > file; sleep 60")
    payload = runner.start(spec)
    when_written(spec, "ready")
    usage = payload.usage()
    assert usage.memory_mb > 60
    assert usage.disk_mb >= 5
    assert usage.processes == 3
    payload.stop("enough", grace=0)
    assert finished(payload).usage.memory_peak_mb > 60


def test_kernel_limits_hold_between_looks(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("ulimit -c; sleep 0.2; head -c 3000000 /dev/zero > big", floor=ResourceFloor(file_mb=1))
    finished(runner.start(spec))
    assert (spec.directory / "big").stat().st_size == 1_000_000
    cpu = shell("ulimit -t; exec sh -c 'while :; do :; done'", floor=ResourceFloor(cpu_seconds=1))
    outcome = finished(runner.start(cpu))
    assert outcome.signal_number == 24
    assert "CPU time" in outcome.describe()


def test_large_output_keeps_head_and_tail(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("echo the beginning; head -c 100000000 /dev/zero; echo the end", output_bytes=100_000)
    assert finished(runner.start(spec)).succeeded
    content = (spec.directory / "std.out").read_bytes()
    assert len(content) <= 100_000
    assert content.startswith(b"the beginning\n")
    assert content.endswith(b"the end\n")
    assert b"bytes were cut out" in content


def test_callbacks_come_once_and_errors_stay_there(runner: PayloadRunner, shell: Shell) -> None:
    told: list[str] = []

    def fails(payload: Payload, outcome: Outcome) -> None:
        raise RuntimeError

    payload = runner.start(shell("sleep 0.05"), fails)
    payload.on_exit(lambda p, o: told.append("running"))
    finished(payload)
    payload.on_exit(lambda p, o: told.append("ended"))
    wait_until(lambda: len(told) == 2, 5, "both callbacks")
    assert finished(runner.start(shell("exit 4"))).exit_code == 4


def test_other_children_of_the_pilot_are_left_alone(runner: PayloadRunner, shell: Shell) -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 0.4; exit 9"]) as helper:
        finished(runner.start(shell("(setsid sleep 30 &) ; sleep 0.1")))
        assert helper.wait() == 9


def test_children_from_before_the_runner_are_left_alone(shell: Shell) -> None:
    with subprocess.Popen(["/bin/sleep", "30"], start_new_session=True) as server:
        with PayloadRunner(sweep_seconds=0.05) as runner:
            finished(runner.start(shell("sleep 0.5")))
        assert server.poll() is None
        server.kill()


def children_in_other_sessions() -> set[int]:
    return {p.pid for p in read_processes().values() if p.parent == os.getpid() and p.session != os.getsid(0)}


def test_many_payloads_from_several_threads(runner: PayloadRunner, shell: Shell) -> None:
    specs = [[shell("exit 5") for _ in range(15)] for _ in range(4)]
    codes: list[int | None] = []
    servers = children_in_other_sessions()  # of other tests

    def work(mine: list[PayloadSpec]) -> None:
        codes.extend(finished(runner.start(spec)).exit_code for spec in mine)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [5] * 60
    assert children_in_other_sessions() <= servers


def test_close_stops_everything(shell: Shell, living: Living) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    runner = PayloadRunner()
    payloads = [runner.start(shell(f"sleep {MARK}6")) for _ in range(3)]
    runner.close("the pilot ends")
    assert [payload.outcome and payload.outcome.reason for payload in payloads] == ["the pilot ends"] * 3
    assert living(f"{MARK}6") == []
    payloads[0].stop("too late")
    payloads[0].stop_at(0, "too late")
    runner.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_lost_exit_status_is_said(runner: PayloadRunner, shell: Shell) -> None:
    payload = runner.start(shell("exec sleep 30"))
    with runner._lock:  # so that the test is first to wait for it
        os.kill(payload.pid, 9)
        os.waitpid(payload.pid, 0)
    outcome = finished(payload)
    assert not outcome.succeeded
    assert outcome.describe() == "the payload's exit status was lost on the node"


def test_core_files_are_forbidden(runner: PayloadRunner, shell: Shell) -> None:
    spec = shell("sleep 0.1; sh -c 'ulimit -c'")
    finished(runner.start(spec))
    assert text(spec).strip() == "0"
    assert resource.getrlimit(resource.RLIMIT_CORE) is not None
