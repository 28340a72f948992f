"""One runner and one fresh work area per test, with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from pilot.payload import PayloadSpec
from pilot.processes import read_processes
from pilot.runner import PayloadRunner
from pilot.workdir import WorkArea


@pytest.fixture
def runner() -> Iterator[PayloadRunner]:
    with PayloadRunner() as made:
        yield made


@pytest.fixture
def area(tmp_path: Path) -> Iterator[WorkArea]:
    with WorkArea(tmp_path / "area", "test") as made:
        yield made


@pytest.fixture
def shell(area: WorkArea) -> Callable[..., PayloadSpec]:
    """Make the specification of a shell script that runs in a fresh work directory."""
    numbers = count(1)

    def make(script: str, **fields: object) -> PayloadSpec:
        job = str(next(numbers))
        directory = area.fresh(job, 1)
        return PayloadSpec(job, 1, directory, "/bin/sh", ("-c", script), **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture
def living() -> Callable[[str], list[int]]:
    """Process ids whose command line holds a text."""

    def find(text: str) -> list[int]:
        found = []
        for pid, process in read_processes().items():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if not process.is_zombie and text.encode() in line:
                found.append(pid)
        return found

    return find
