"""If a pilot dies of anything, its payloads die with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.wait import wait_until

PILOT = """
import os, pathlib, signal, sys
from pilot.keeper import keep

def pilot():
    from pilot.payload import PayloadSpec
    from pilot.runner import PayloadRunner
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    with PayloadRunner() as runner:
        script = "(setsid setsid sleep {mark} &); sleep {mark}"
        payload = runner.start(PayloadSpec("1", 1, pathlib.Path(sys.argv[1]), "/bin/sh", ("-c", script)))
        print(os.getpid(), flush=True)
        while not ended:
            signal.pause()
    return 7

sys.exit(keep(pilot))
"""


@pytest.mark.parametrize(
    ("victim", "number", "code"),
    [
        ("pilot", signal.SIGKILL, 137),
        ("keeper", signal.SIGKILL, -9),
        ("keeper", signal.SIGTERM, 7),
        ("pilot", signal.SIGTERM, 7),
    ],
)
def test_payloads_die_with_their_pilot(
    tmp_path: Path, living: Callable[[str], list[int]], victim: str, number: int, code: int
) -> None:
    mark = f"98766{os.getpid()}"
    command = [sys.executable, "-c", PILOT.replace("{mark}", mark), tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        pilot = int(keeper.stdout.readline())
        wait_until(lambda: len(living(f"sleep\0{mark}")) == 2, 5, "the payload and its daemon")
        os.kill(pilot if victim == "pilot" else keeper.pid, number)
        assert keeper.wait(10) == code
    wait_until(lambda: not living(f"sleep\0{mark}"), 5, "the end of all processes")


def test_exit_codes_go_through() -> None:
    for body, code in (
        ("return 5", 5),
        ("raise SystemExit(6)", 6),
        ("raise ValueError", 70),
        ("import os; os.abort()", 134),
    ):
        script = f"import sys\nfrom pilot.keeper import keep\ndef main():\n    {body}\nsys.exit(keep(main))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20)
        assert done.returncode == code


STOPPED = """
import os, pathlib, signal, sys
from pilot.guard import Guard
from pilot.keeper import keep
from pilot.kernel import steady_now

guard = Guard()

def pilot():
    from pilot.payload import PayloadSpec
    from pilot.runner import PayloadRunner
    with PayloadRunner(guard=guard) as runner:
        script = "sleep {mark}"
        for seconds in (1.0, 3600.0):
            place = pathlib.Path(sys.argv[1], str(seconds))
            place.mkdir()
            payload = runner.start(PayloadSpec("1", 1, place, "/bin/sh", ("-c", script)))
            payload.must_end_by(steady_now() + seconds)
            if {ends}:
                payload.stop("enough", 0.0)
                payload.wait()
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

sys.exit(keep(pilot, guard))
"""


def test_a_stopped_pilot_dies_with_its_payloads_when_a_lease_is_over(tmp_path, living) -> None:
    mark = f"98767{os.getpid()}"
    script = STOPPED.replace("{mark}", mark).replace("{ends}", "False")
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        assert keeper.wait(10) == 137
    wait_until(lambda: not living(f"sleep\0{mark}"), 5, "the end of all processes")


def test_a_payload_that_ended_in_time_is_nothing_to_a_keeper(tmp_path) -> None:
    script = STOPPED.replace("{mark}", f"98768{os.getpid()}").replace("{ends}", "True")
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        pilot = int(keeper.stdout.readline())
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.wait(2.0)  # that it stays alive is what is looked for
        os.kill(pilot, signal.SIGKILL)
        assert keeper.wait(10) == 137
