"""Keeping memory private, as the kernel does it: inherited by a fork, undone by another program's start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pilot import kernel

ROOT = Path(__file__).parents[3]

STORY = """
import os, resource, subprocess, sys
from pilot.kernel import forbid_memory_access, is_readable
print("before", is_readable())
forbid_memory_access()
print("after", is_readable(), resource.getrlimit(resource.RLIMIT_CORE))
sys.stdout.flush()
child = os.fork()
if child == 0:
    print("forked", is_readable())
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
story = "from pilot.kernel import is_readable; print('executed', is_readable())"
subprocess.run([sys.executable, "-c", story], check=True)
"""


def test_memory_is_private_until_another_program_starts() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, env=environment, check=True)
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert dict(lines) == {"before": "True", "after": "False (0, 0)", "forked": "False", "executed": "True"}


def test_a_kernel_that_does_not_obey_is_no_place_for_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_prctl", lambda *_: None)
    monkeypatch.setattr(kernel, "is_readable", lambda: True)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(OSError, match="readable"):
        kernel.forbid_memory_access()
