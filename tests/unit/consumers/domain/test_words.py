"""What people read of a job's wishes and of what an offer lacks."""

from __future__ import annotations

import msgspec
import pytest

from consumers.domain.obstacles import MAX_NAMES, in_a_line
from consumers.domain.requirements import Requirements, canonical, fits
from schemas.jdl.tag_expression import TagExpressionError, settle
from schemas.messages.pilot import Offer

NODE = Offer(site="A", ce="ce1", cpu_seconds=86_400, processors=1, memory_mb=8000)


@pytest.mark.parametrize(
    ("want", "told"),
    [
        (Requirements(memory_mb=100), "; 100 MB of memory"),
        (Requirements(memory_per_processor_mb=1000), "; 1000 MB of memory for each processor"),
        (Requirements(memory_mb=5, memory_per_processor_mb=6), "; 5 MB of memory and 6 MB for each processor"),
        (Requirements(gpus=1, gpu_models=("A100",)), "; 1 GPU of model A100"),
        (Requirements(gpus=1, gpu_models=tuple(f"M{n:02}" for n in range(MAX_NAMES + 2))), " and 2 more"),
        (Requirements(gpus=2, gpu_memory_mb=9, gpu_models=("H", "A")), "; 2 GPUs with 9 MB of memory of model A or H"),
    ],
)
def test_wishes(want: Requirements, told: str) -> None:
    assert in_a_line(want).endswith(told)


def test_what_an_offer_lacks() -> None:
    assert (fits(canonical(min_processors=2), NODE) or "").startswith("the node has 1 free processor")
    assert (fits(canonical(ces=["ce2"]), NODE) or "").startswith("CE ce1 is not wanted")
    unnamed = msgspec.structs.replace(NODE, ce="", processors=3)
    assert (fits(canonical(ces=["ce2"]), unnamed) or "").startswith("a pilot that names no CE is not wanted")
    assert (fits(canonical(min_processors=4), unnamed) or "").startswith("the node has 3 free processors")
    assert (fits(canonical(gpus=1), NODE) or "").startswith("the node has 0 free GPUs")


def test_a_word_of_an_expression_is_quoted() -> None:
    with pytest.raises(TagExpressionError, match="'and' follows without an operator: write && for and"):
        settle((), "a and b")
