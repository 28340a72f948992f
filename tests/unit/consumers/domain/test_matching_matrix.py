"""The table of DIRAC's matching rules against the definition, both indexes, and the choice with its reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.domain.choose import NoMatch, choose
from consumers.domain.classes import ClassIndex
from consumers.domain.index import Index
from consumers.domain.parked import ParkedIndex
from consumers.domain.requirements import misfit, not_theirs
from tests.support.matching_matrix import MATRIX, NEW, Row

DIFFERENCES = Path(__file__).resolve().parents[4] / "docs/explanation/differences-from-dirac.md"

every_row = pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.name)


@every_row
def test_the_definition(row: Row) -> None:
    found = misfit(row.requirements(), row.offer(), row.usable())
    condition = found.condition if found is not None else not_theirs(row.offer(), row.owner, row.group)
    assert condition is row.expected


@every_row
def test_the_choice_and_its_reasons(row: Row) -> None:
    index = Index()
    index.set_usable_sites(row.usable())
    index.add_queue(1, row.requirements(), row.group, row.owner)
    index.add(1, 1, 1, 0.0)
    outcome = choose(row.offer(), index, 1.0)
    if row.expected is None:
        assert not isinstance(outcome, NoMatch)
    else:
        assert isinstance(outcome, NoMatch)
        assert [reason.condition for reason in outcome.reasons] == [row.expected]


@every_row
def test_the_request_that_waits(row: Row) -> None:
    parked: ParkedIndex[str] = ParkedIndex()
    parked.add("it", row.offer(), 0.0)
    found = list(parked.candidates(row.requirements(), row.owner, row.group, row.usable(), 0.0))
    assert found == (["it"] if row.expected is None else [])


def test_all_rows_at_once() -> None:
    """Every job of the table against every pilot: the index never disagrees with the definition."""
    wants = {row.requirements() for row in MATRIX}
    for usable in {row.usable() for row in MATRIX}:
        index = ClassIndex()
        index.set_usable_sites(usable)
        places = {want: index.add(want) for want in wants}
        for offer in {row.offer() for row in MATRIX}:
            expected = sum(1 << place for want, place in places.items() if misfit(want, offer, usable) is None)
            assert index.fitting(offer) == expected


def test_each_difference_is_told() -> None:
    told = " ".join(DIFFERENCES.read_text("utf-8").split())
    named = {row.difference for row in MATRIX} - {"", NEW}
    assert [line for line in named if line not in told] == []
