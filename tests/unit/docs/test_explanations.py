from __future__ import annotations

import re
from pathlib import Path

from consumers.domain.index import AGEING_SECONDS
from consumers.domain.requirements import CPU_CLASSES
from consumers.domain.shares import MAX_CREDIT
from schemas.job import ACCEPT_LEASE, DEFAULT_RUN_LEASE, LEASE_MARGIN, MAX_INFRASTRUCTURE_RETRIES, TRANSITIONS

DOCS = Path(__file__).parents[3] / "docs" / "explanation"


def test_picture_of_a_jobs_life_is_the_table() -> None:
    text = (DOCS / "job-life.md").read_text("utf-8")
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", text, re.MULTILINE))
    assert drawn == {(str(before), str(after)) for before, afters in TRANSITIONS.items() for after in afters}


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    life, matching = ((DOCS / name).read_text("utf-8") for name in ("job-life.md", "matching.md"))
    assert f"| {ACCEPT_LEASE:.0f} s |" in life
    assert f"{DEFAULT_RUN_LEASE:.0f} s by default" in life
    assert f"The margin is {LEASE_MARGIN:.0f} s" in life
    assert f"after {MAX_INFRASTRUCTURE_RETRIES} of them" in life
    assert f"submission time − {AGEING_SECONDS:,.0f} s".replace(",", " ") in matching
    assert f"one of {len(CPU_CLASSES)} classes" in matching
    assert f"at most {MAX_CREDIT} turns" in matching
