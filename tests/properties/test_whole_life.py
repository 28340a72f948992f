"""A job's whole life against the real matcher, job-state, job-manager and store, in any order and with any bad luck.

The world and what must hold in it: :mod:`tests.support.whole_life`. `make fuzz` walks further.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumers.store import Store
from tests.support.whole_life_walk import walk

pytestmark = pytest.mark.timeout(900)  # ten seconds if all is well; to shorten a walk that failed may take minutes


def in_memory() -> Path | None:
    """Where a thousand small stores cost little, if there is such a place."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


@pytest.fixture
def template() -> Iterator[Path]:
    """A store with its tables, to be copied."""
    with tempfile.TemporaryDirectory(prefix="whole-life-", dir=in_memory()) as folder:
        Store.open(f"sqlite:///{folder}/store.db").close()
        yield Path(folder) / "store.db"


def test_whole_lives(template: Path) -> None:
    @contextmanager
    def place() -> Iterator[Store]:
        with tempfile.TemporaryDirectory(prefix="whole-life-", dir=in_memory()) as folder:
            shutil.copy(template, folder)
            with Store.open(f"sqlite:///{folder}/store.db", upgrade=False) as store:
                yield store

    walk(place, 40)
