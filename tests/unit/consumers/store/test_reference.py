"""The reference page is that of the code."""

from __future__ import annotations

from pathlib import Path

from consumers.store import reference
from consumers.store.tables import metadata

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "store.md"


def test_every_table_says_what_it_is_for() -> None:
    assert [table.name for table in metadata.tables.values() if not table.comment] == []


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.render(), (
        "run python -m consumers.store.reference > docs/reference/store.md"
    )
