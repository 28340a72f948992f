"""What the pages tell people to type exists, and their examples are right."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from compose.group import load
from compose.main import MOUNTS
from compose.serve import _parser
from schemas.jdl import check

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("how-to/*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.jdl"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of each call of `pilotage` in a shell block or in inline code."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += re.findall(r"`(pilotage [^`]*)`", text)
        calls = [part for line in lines for part in re.split(r"\$\(|[;&|)]", line.partition(" #")[0])]
        found += [(page.name, shlex.split(part)[1:]) for part in map(str.strip, calls) if part.startswith("pilotage ")]
    return found


COMMANDS = commands()


def test_there_are_commands_on_the_pages() -> None:
    assert len(COMMANDS) > 30
    assert {page for page, _ in COMMANDS} >= {"README.md", "tutorial.md", "operate.md"}


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}" for page, words in COMMANDS])
def test_a_command_on_a_page_exists_with_its_options(page: str, words: list[str]) -> None:
    if words == ["--help"] or words[0].startswith("--"):
        return
    mount = next(mount for mount in MOUNTS if mount.name == words[0])
    command: Any = load(mount)
    rest = words[1:]
    while hasattr(command, "commands") and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in rest if word.startswith("-") and len(word) > 1} <= options


def test_make_has_the_targets_of_the_pages() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"`make ([a-z-]+)", text)
        named += [word for block in blocks(page, "sh") for word in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)]
        assert set(named) <= targets, page.name


def test_serve_takes_what_the_pages_give_it() -> None:
    for words in (["gatekeeper"], ["all"], ["job-manager", "--config", "server.toml"]):
        assert _parser().parse_args(words).names == words[:1]


def test_the_tutorials_job_is_three_good_jobs() -> None:
    page = (DOCS / "tutorial.md").read_text("utf-8")
    found = re.search(r"^```\n(\[\n.*?^\])\n```$", page, re.MULTILINE | re.DOTALL)
    assert found
    result = check(found[1])
    assert not result.errors
    assert not result.warnings
    assert len(result.jobs) == 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_good_jobs(path: Path) -> None:
    result = check(path.read_bytes())
    assert not result.errors
    assert not result.warnings


def test_python_on_the_pages_can_be_read_and_imports_what_there_is() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            indent = len(block) - len(block.lstrip())
            text = re.sub(rf"^ {{0,{indent}}}", "", block, flags=re.MULTILINE)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    module = __import__(node.module, fromlist=["x"])
                    assert all(hasattr(module, alias.name) for alias in node.names)
