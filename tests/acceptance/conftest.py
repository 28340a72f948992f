from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine


@pytest.fixture
def fresh_user() -> Iterator[CommandLine]:
    """A user who never was here before; whatever he leaves running is ended, and that is a failure."""
    home = Path(tempfile.mkdtemp(prefix="pilotage-home-"))
    user = CommandLine(home)
    try:
        yield user
    finally:
        left = user.processes()
        for process in left:
            process.kill()
        shutil.rmtree(home, ignore_errors=True)
    assert not left, f"left running: {left}"
