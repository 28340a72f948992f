"""The page about the registry's sources tells every key that their reader knows."""

from __future__ import annotations

from reference_pages.configuration import SOURCE

from compose.registry_settings import _Source


def test_the_page_tells_every_key() -> None:
    assert set(SOURCE) == set(_Source.__struct_fields__)
