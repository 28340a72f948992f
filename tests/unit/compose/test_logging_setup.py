"""Logs tell what went wrong and never what was in memory at that moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

CODE = """
import sys
import structlog
{setup}

def sign(key):
    raise RuntimeError("no entropy")

try:
    sign("SECRET-" + "KEY")
except RuntimeError:
    structlog.get_logger("test").exception("sign.failed")
"""


@pytest.mark.parametrize(
    "setup",
    [
        "from compose.logging_setup import configure; configure(json=False)",
        "from compose.logging_setup import configure; configure(json=True)",
        "from pilot.logs import configure; sys.stderr.isatty = lambda: True; configure()",
        "from pilot.logs import configure; configure()",
    ],
    ids=["services, pretty", "services, JSON", "pilot, pretty", "pilot, JSON"],
)
def test_a_traceback_shows_no_values(setup: str) -> None:
    command = [sys.executable, "-c", CODE.format(setup=setup)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert "sign.failed" in said
    assert "no entropy" in said
    assert "SECRET-KEY" not in said
