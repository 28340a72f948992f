"""What the code says of itself: summaries and the meaning of each field.

A field is explained in the `Attributes:` section of its class, or by a string literal below it; the latter exists in
the source only, so the source is read.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
from collections.abc import Mapping
from types import ModuleType

from .markdown import prose

_ENTRY = re.compile(r"^    (\w+): (.*)$")


def summary(obj: object) -> str:
    """The docstring without its sections."""
    text = inspect.cleandoc(getattr(obj, "__doc__", None) or "")
    return prose(re.split(r"\n\n?(?:Attributes|Args|Raises|Returns):\n", text)[0]).strip()


def fields(cls: type) -> Mapping[str, str]:
    """Field → meaning."""
    return {
        name: prose(text) for name, text in {**_section(cls), **_literals(inspect.getmodule(cls))[cls.__name__]}.items()
    }


def constants(module: ModuleType) -> Mapping[str, str]:
    """Constant → the string literal below it."""
    return {name: prose(text) for name, text in _literals(module)[""].items()}


def _section(cls: type) -> dict[str, str]:
    text = inspect.cleandoc(cls.__doc__ or "")
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        entry = _ENTRY.match(line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("        "):
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return found


class _Literals(dict[str, dict[str, str]]):
    def __missing__(self, key: str) -> dict[str, str]:
        return {}


@functools.cache
def _literals(module: ModuleType | None) -> _Literals:
    found = _Literals()
    if module is None:
        return found
    tree = ast.parse(inspect.getsource(module))
    found[""] = _pairs(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found[node.name] = _pairs(node.body)
    return found


def _pairs(body: list[ast.stmt]) -> dict[str, str]:
    pairs = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            name = before.target.id
        elif isinstance(before, ast.Assign) and isinstance(before.targets[0], ast.Name):
            name = before.targets[0].id
        else:
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            pairs[name] = " ".join(inspect.cleandoc(after.value.value).split())
    return pairs
