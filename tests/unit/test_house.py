"""The law of the house: what `ruff` and `mypy` do not see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import schemas.messages  # noqa: F401 - fills the register
from broker.authorization import SERVICES
from broker.topology import QUEUES
from schemas.job import JobStatus
from schemas.registry import registered

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "broker", "producers", "consumers", "pilot", "compose")
WINGS = ("producers", "consumers", "pilot")
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_ours_wherever_it_is_imported(room: str, tmp_path: Path) -> None:
    """Their names are plain words: another distribution's package of the same name must not be taken for ours."""
    code = f"import {room}; print({room}.__file__)"
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert Path(result.stdout.strip()) == ROOT / room / "__init__.py", result.stderr


def test_the_architecture_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("wing", WINGS)
def test_wings_never_import_each_other(wing: str) -> None:
    """Relative imports are inside a room, so the absolute ones tell."""
    others = {other for other in WINGS if other != wing}
    guilty = [
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / wing).rglob("*.py")
        for name in imported(path)
        if name.partition(".")[0] in others
    ]
    assert not guilty


def test_inside_a_room_imports_are_relative() -> None:
    scripts = {
        "consumers/store/migrations/env.py",
        "pilot/bootstrap.py",
    }  # run by path, so they have no room around them
    guilty = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        for name in imported(path)
        if name.partition(".")[0] == path.relative_to(ROOT).parts[0]
    }
    assert not {(path, name) for path, name in guilty if path not in scripts}


def test_nothing_is_pickled() -> None:
    ways = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    guilty = [str(path) for path in sources() for name in imported(path) if name.partition(".")[0] in ways]
    assert not guilty


def test_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_wire_names_no_module() -> None:
    form = re.compile(r"[a-z]+\.[a-z]+\.v[1-9][0-9]*")
    for name, row in registered().items():
        assert form.fullmatch(name), name
        assert row.struct.__module__ not in name
        assert row.struct.__struct_config__.tag is None


def test_every_module_says_what_it_is_for() -> None:
    assert not [str(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]


# -- the documentation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            broken.append(target)
    assert not broken


def _anchors(page: Path) -> set[str]:
    """GitHub's anchors of the headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_glossary_knows_every_status_service_and_queue() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    missing = [word for word in (*JobStatus, *SERVICES, *(queue.name for queue in QUEUES)) if f"`{word}`" not in text]
    assert not missing


def test_every_file_that_a_page_names_is_there() -> None:
    named = re.compile(
        rf"`((?:{'|'.join((*ROOMS, 'tests', 'docs', 'examples'))})/[\w./-]+\.(?:py|md|yaml|jdl|sh|toml))`"
    )
    missing = {
        (str(page.relative_to(ROOT)), name)
        for page in PAGES
        for name in named.findall(page.read_text("utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing
