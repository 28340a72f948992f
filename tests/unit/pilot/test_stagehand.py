"""What a payload's private key may not do."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pilot.stagehand import PROXY_FILE, Stagehand
from pilot.task import Task
from schemas.messages.service import Match


def test_the_proxy_never_becomes_an_output(tmp_path: Path) -> None:
    described = {"Executable": "/bin/true", "OutputSandbox": [PROXY_FILE, ".x*", "*"]}
    match = Match(
        job=1, attempt=1, owner="/CN=a", group="g", lease_until=20.0, run_lease=60.0,
        description=msgspec.Raw(msgspec.json.encode(described)),
    )  # fmt: skip
    task = Task.of(match, "request", 20.0, 0.0)
    task.directory = tmp_path
    (tmp_path / PROXY_FILE).write_text("-----BEGIN PRIVATE KEY-----")
    (tmp_path / "result").write_text("42")
    files, notes = Stagehand.pick_outputs(object.__new__(Stagehand), task)
    assert [file.name for file in files] == ["result"]
    assert any(PROXY_FILE in note for note in notes)
