"""The tutorial, typed word for word by somebody with a fresh home."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wait import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
NOT_TYPED = ("make setup", "pilotage down", "#!/bin/sh")
"""Setting up (this environment is), the end (the fixture sees to it), and the file count.sh."""
RUNNING = "pilotage job list --status running --output quiet"


class Reader:
    """Types what the tutorial says."""

    def __init__(self, home: Path) -> None:
        self.work = home / "work"
        shutil.copytree(ROOT / "examples", self.work / "examples")
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "X509_USER_PROXY": str(home / "proxy.pem"),
        }

    def type(self, text: str) -> str:
        script = f"set -e\nDATA=$HOME/.local/share/pilotage/local\n{text}"
        done = subprocess.run(
            ["/bin/sh", "-c", script], cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=150,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def reader() -> Iterator[Reader]:
    home = Path(tempfile.mkdtemp(prefix="ptut-"))  # near the root: sockets below it have short paths
    reader = Reader(home)
    try:
        yield reader
    finally:
        reader.type("pilotage down --purge --yes")
        shutil.rmtree(home, ignore_errors=True)


def write_files(folder: Path) -> None:
    plain = [text for language, text in BLOCKS if not language]
    (folder / "count.sh").write_text(next(text for text in SHELL if text.startswith("#!/bin/sh")))
    (folder / "text.txt").write_text(next(text for text in plain if text.startswith("The pilot")))
    (folder / "words.jdl").write_text(next(text for text in plain if text.startswith("[\n")))


@pytest.mark.timeout(300)
def test_the_tutorial(reader: Reader) -> None:
    write_files(reader.work)
    said: dict[str, str] = {}
    for text in SHELL:
        if text.startswith(NOT_TYPED):
            continue
        if "job kill" in text:
            wait_until(lambda: reader.type(RUNNING).strip() != "", 30, "the long job runs")
        said[text] = reader.type(text)
    everything = "\n".join(said.values())
    for promised in ("All up", "Hello, world!", "Jobs 2-4 submitted", "3 Done", "pilot: 2", "job: 3", "matcher: 1",
                     "fail at tags", "but for one condition, tags"):  # fmt: skip
        assert promised in everything, promised
    python = next(text for language, text in BLOCKS if language == "python")
    (reader.work / "again.py").write_text(python)
    assert "count-pilot.txt" in reader.type("python again.py")
