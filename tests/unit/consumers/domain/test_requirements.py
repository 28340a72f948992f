from __future__ import annotations

import msgspec
import pytest

from consumers.domain.requirements import (
    CPU_CLASSES,
    Condition,
    Requirements,
    canonical,
    cpu_class,
    describe,
    fits,
    misfit,
    requirements_of,
)
from schemas.jdl import check
from schemas.messages.pilot import Offer

NODE = Offer(site="A", ce="ce1", platforms=("x1",), cpu_seconds=86_400, processors=4, memory_mb=8000, tags=("gpu",))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 360), (360, 360), (360.5, 1800), (86_400, 86_400), (1_080_000, 1_080_000), (1e9, 1_080_000)],
)
def test_cpu_time_is_rounded_up_to_a_class(seconds: float, expected: int) -> None:
    assert cpu_class(seconds) == expected
    assert len(CPU_CLASSES) == 13


def test_equal_wishes_are_one_class() -> None:
    one = canonical(sites=["B", "A", "A"], tags=["y", "x"], cpu_seconds=3601)
    other = canonical(sites=("A", "B"), tags=("x", "y"), cpu_seconds=21_600)
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest() == other.digest()
    assert Requirements.from_json(one.to_json()) == one


def test_any_is_no_wish() -> None:
    assert canonical(sites=["ANY"], platforms=["any"], ces=["Any"]) == canonical()


def test_bans_come_off_the_wanted_sites() -> None:
    assert canonical(sites=["A", "B"], banned_sites=["B"]) == canonical(sites=["A"])
    nowhere = canonical(sites=["A"], banned_sites=["A"])
    assert fits(nowhere, NODE) == "site A is banned by the job"


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        Requirements.from_json(b'{"site":["A"]}')


@pytest.mark.parametrize(
    ("want", "condition"),
    [
        (canonical(), None),
        (canonical(sites=["A"], ces=["ce1"], platforms=["x1", "x2"], tags=["gpu"]), None),
        (canonical(sites=["B"]), Condition.SITE),
        (canonical(banned_sites=["A"]), Condition.BANNED),
        (canonical(ces=["ce2"]), Condition.CE),
        (canonical(platforms=["arm"]), Condition.PLATFORM),
        (canonical(cpu_seconds=86_401), Condition.CPU_TIME),
        (canonical(min_processors=5), Condition.PROCESSORS),
        (canonical(min_processors=1, max_processors=None), None),
        (canonical(whole_node=True), Condition.WHOLE_NODE),
        (canonical(memory_mb=8000.5), Condition.MEMORY),
        (canonical(tags=["gpu", "avx"]), Condition.TAGS),
    ],
)
def test_conditions(want: Requirements, condition: Condition | None) -> None:
    found = misfit(want, NODE)
    assert (found and found.condition) == condition


def test_required_tags_of_the_pilot() -> None:
    picky = msgspec.structs.replace(NODE, required_tags=("gpu",))
    assert fits(canonical(tags=["gpu"]), picky) is None
    assert fits(canonical(), picky) == "the pilot takes only jobs with tags gpu"


def test_a_pilot_that_takes_any() -> None:
    easy = msgspec.structs.replace(NODE, ce="ANY", platforms=("any",))
    assert fits(canonical(ces=["ce9"], platforms=["arm"]), easy) is None
    nowhere = msgspec.structs.replace(NODE, site="any")
    assert fits(canonical(sites=["A"]), nowhere) == "site any is not wanted"


def test_only_test_jobs_at_unusable_sites() -> None:
    assert fits(canonical(), NODE, {"B"}) == "site A is not usable, only for jobs of type Test"
    assert fits(canonical(job_type="Test"), NODE, {"B"}) is None
    assert fits(canonical(job_type="Test"), NODE, {"A"}) is None


def test_every_condition_has_its_text() -> None:
    for condition in Condition:
        assert describe(condition, NODE)
        assert describe(condition, NODE, canonical())
    assert fits(canonical(cpu_seconds=86_401), NODE) == "CPU time left is 86400 s; it needs 172800 s"
    assert fits(canonical(tags=["avx", "gpu"]), NODE) == "the node lacks tags: avx"


def test_of_a_description() -> None:
    [job] = check(
        'Executable = "x"; Site = {"B", "A"}; BannedSites = "C"; CPUTime = 4000; MaxRAM = 2000;'
        ' MinNumberOfProcessors = 2; MaxNumberOfProcessors = 4; Tags = "gpu"; JobType = "Test"; Platform = "x1";'
    ).jobs
    assert requirements_of(job) == Requirements(
        sites=("A", "B"),
        platforms=("x1",),
        banned_sites=("C",) if not job.sites else (),
        job_type="Test",
        cpu_class=21_600,
        min_processors=2,
        max_processors=4,
        memory_mb=2000,
        tags=("gpu",),
    )
    assert requirements_of(job, ("A",)).sites == ("A",)
