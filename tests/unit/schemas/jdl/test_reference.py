from __future__ import annotations

from pathlib import Path

from schemas.jdl import ATTRIBUTES, check
from schemas.jdl.reference import render

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "jdl.md"


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m schemas.jdl.reference > docs/reference/jdl.md"


def test_the_page_names_every_attribute_and_its_example_is_valid() -> None:
    page = render()
    example = page.split("```")[1]

    assert all(f"| `{attribute.name}` |" in page for attribute in ATTRIBUTES)
    assert len(check(example).jobs) == 20
