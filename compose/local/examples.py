"""The examples that come with the program."""

from __future__ import annotations

import shlex
from pathlib import Path

from schemas.errors import ConfigurationError

FOLDER = Path(__file__).resolve().parent.parent.parent / "examples"


def example(name: str) -> Path:
    """An example's file.

    Raises:
        ConfigurationError: the program was installed without them.
    """
    path = FOLDER / name
    if not path.is_file():
        raise ConfigurationError(f"there is no {path}: the examples are in the source folder of Pilotage")
    return path


def shown_example(name: str) -> str:
    """An example's file as a user may type it from where he stands."""
    path, here = FOLDER / name, Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return shlex.quote(str(shown))
