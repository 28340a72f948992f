"""Every test that the threat model names exists, and every threat names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_tests_named_exist() -> None:
    named = NAMED.findall(PAGE.read_text("utf-8"))
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if test not in _functions(ROOT / file)]
    assert not missing


def test_each_threat_names_a_test() -> None:
    threats = PAGE.read_text("utf-8").partition("## Threats")[2].split("\n### ")[1:]
    assert len(threats) >= 10
    assert not [threat.partition("\n")[0] for threat in threats if not NAMED.search(threat)]


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
