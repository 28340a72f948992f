"""A user at a shell: a home of his own, nothing of ours in the environment, the installed script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SCRIPT = Path(sys.executable).parent / "pilotage"
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class CommandLine:
    """Runs `pilotage` as a fresh user."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """A login shell's, with XDG folders in the fresh home; unpacked servers stay where they are."""
        from compose.local.installed import servers_folder

        return {
            "PATH": f"{SCRIPT.parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "X509_USER_PROXY": str(self.home / "proxy.pem"),
            "TMPDIR": str(self.temporary),
            "PILOTAGE_SERVERS": str(servers_folder()),
        }

    @property
    def temporary(self) -> Path:
        """Its own temporary folder."""
        folder = self.home / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def data(self) -> Path:
        """The private stack's data directory."""
        return self.home / "data" / "pilotage" / "local"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [SCRIPT, *words],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, code: int = 0, timeout: float = 120) -> str:
        """Run a command; fails the test unless it ends with this code. Returns its standard output."""
        process = self.start(*words)
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            raise AssertionError(f"pilotage {' '.join(words)} hangs\n{output}\n{errors}\n{self.logs()}") from None
        assert process.returncode == code, (
            f"pilotage {' '.join(words)} → {process.returncode}\n{output}\n{errors}\n{self.logs()}"
        )
        assert "Traceback" not in output + errors
        return output

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a command and parse what it prints."""
        return json.loads(self.run(*words, "--output", "json", code=code))

    def logs(self) -> str:
        """The ends of all logs, for a failing test."""
        parts = []
        for file in sorted(self.home.rglob("*.log")):
            lines = file.read_text(errors="replace").splitlines()[-15:]
            parts.append(f"--- {file}\n" + "\n".join(lines))
        return "\n".join(parts)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this home: its path stands in the command line or the environment."""
        return list(_naming(str(self.home)))


def _naming(text: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and any(text in w for w in words):
            yield process
