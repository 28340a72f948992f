"""The pilot's log is JSON in files, without the noise of debugging."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from pilot import logs


def test_lines_are_json() -> None:
    code = (
        "import structlog; from pilot.logs import configure; configure()\n"
        "log = structlog.get_logger('x'); log.debug('noise'); log.info('pilot.said', job=7)\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('pilot.broke')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(logs.__file__).parents[1],
    )  # fmt: skip
    said, broke = (msgspec.json.decode(line, type=dict[str, object]) for line in done.stderr.splitlines())
    assert (said["event"], said["job"], said["level"]) == ("pilot.said", 7, "info")
    assert "ZeroDivisionError" in str(broke["exception"])
    assert done.stdout == ""
