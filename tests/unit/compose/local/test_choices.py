from __future__ import annotations

from pathlib import Path

import pytest

from compose.local.choices import Choices, load_choices, save_choices
from schemas.errors import ConfigurationError, InvalidInputError


def test_choices_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    assert load_choices(file) == Choices()
    chosen = Choices().changed(pilots=0, slots=4, store="postgres")
    save_choices(file, chosen)
    assert load_choices(file).changed(pilots=None, slots=None, store=None) == chosen


def test_the_store_is_chosen_once() -> None:
    chosen = Choices().changed(pilots=None, slots=None, store=None)
    assert chosen.store == "sqlite"
    assert chosen.changed(pilots=None, slots=None, store="sqlite") == chosen
    with pytest.raises(InvalidInputError, match="keeps its jobs in sqlite"):
        chosen.changed(pilots=None, slots=None, store="postgres")


def test_a_store_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--store"):
        Choices().changed(pilots=None, slots=None, store="mysql")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "pilots": "x", "slots": 0, "store": ""}', "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "stack.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"stack\.json"):
        load_choices(file)


def test_a_file_of_another_release_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    file.write_text('{"format": 2}')
    with pytest.raises(ConfigurationError, match="another release"):
        load_choices(file)
