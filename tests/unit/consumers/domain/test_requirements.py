from __future__ import annotations

import msgspec
import pytest

from consumers.domain.requirements import (
    CPU_CLASSES,
    Condition,
    Requirements,
    canonical,
    carried,
    cpu_class,
    describe,
    fits,
    memory_needed,
    misfit,
    not_theirs,
    requirements_of,
)
from schemas.jdl import check
from schemas.jdl.architecture import ArchitectureError
from schemas.jdl.tag_expression import TagExpressionError
from schemas.messages.pilot import Gpu, Offer

A100, T4 = Gpu(model="NVIDIA A100-SXM4-40GB", memory_mb=40_960), Gpu(model="Tesla T4", memory_mb=15_360)
NODE = Offer(
    site="A",
    ce="ce1",
    platforms=("x1",),
    cpu_seconds=86_400,
    wall_seconds=43_200,
    processors=4,
    memory_mb=8000,
    disk_mb=20_000,
    tags=("gpu",),
    architecture="x86_64-v3",
    gpus=(A100, T4, T4),
)


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
        (canonical(memory_mb=8000), None),
        (canonical(tags=["gpu", "avx"]), Condition.TAGS),
        (canonical(wall_seconds=43_200), None),
        (canonical(wall_seconds=43_201), Condition.WALL_TIME),
        (canonical(memory_per_processor_mb=2000, min_processors=4), None),
        (canonical(memory_per_processor_mb=2001, min_processors=4), Condition.MEMORY),
        (canonical(memory_mb=1, memory_per_processor_mb=4000, min_processors=2, max_processors=4), Condition.MEMORY),
        (canonical(disk_mb=20_000), None),
        (canonical(disk_mb=20_001), Condition.DISK),
        (canonical(gpus=3), None),
        (canonical(gpus=4), Condition.GPU),
        (canonical(gpus=1, gpu_memory_mb=40_960), None),
        (canonical(gpus=2, gpu_memory_mb=40_960), Condition.GPU),
        (canonical(gpu_memory_mb=40_961), Condition.GPU),
        (canonical(gpu_models=["a100"]), None),
        (canonical(gpu_models=["A10", "V100"]), Condition.GPU),
        (canonical(gpus=2, gpu_models=["T4"]), None),
        (canonical(gpus=3, gpu_models=["T4"]), Condition.GPU),
        (canonical(gpus=3, gpu_models=["T4", "nvidia a100"]), None),
        (canonical(gpus=2, gpu_models=["T4"], gpu_memory_mb=16_000), Condition.GPU),
        (canonical(architecture="x86_64-v3"), None),
        (canonical(architecture="x86_64"), None),
        (canonical(architecture="x86_64-v4"), Condition.ARCHITECTURE),
        (canonical(architecture="aarch64"), Condition.ARCHITECTURE),
        (canonical(tag_expression="gpu && !slow"), None),
        (canonical(tag_expression="avx || gpu"), None),
        (canonical(tag_expression="!gpu"), Condition.TAG_EXPRESSION),
        (canonical(tag_expression="avx || big"), Condition.TAG_EXPRESSION),
        (canonical(tag_expression="avx && gpu"), Condition.TAGS),
        (canonical(pools=["p"]), Condition.POOL),
    ],
)
def test_conditions(want: Requirements, condition: Condition | None) -> None:
    found = misfit(want, NODE)
    assert (found and found.condition) == condition


def test_whole_node_jobs_need_memory_for_every_processor() -> None:
    whole = msgspec.structs.replace(NODE, whole_node=True)
    assert fits(canonical(whole_node=True, memory_per_processor_mb=2000), whole) is None
    told = fits(canonical(whole_node=True, memory_mb=1, memory_per_processor_mb=2000), whole)
    assert told == "the node has 8000 MB of memory free; it needs 8001 MB"
    assert memory_needed(canonical(memory_mb=100, memory_per_processor_mb=10, min_processors=3), 64) == 130


def test_a_pool_goes_with_the_jobs_that_name_it_only() -> None:
    pooled = msgspec.structs.replace(NODE, pool="p")
    assert fits(canonical(pools=["q", "p"]), pooled) is None
    assert fits(canonical(pools=["q"]), pooled) == "the pilot's pool is p; it wants q"
    assert fits(canonical(), pooled) == "the pilot's pool is p; it wants none"
    assert fits(canonical(), NODE) is None
    assert fits(canonical(pools=["p"]), NODE) == "the pilot's pool is none; it wants p"


def test_job_types_that_a_pilot_takes() -> None:
    choosy = msgspec.structs.replace(NODE, job_types=("Sim", "Test"))
    assert fits(canonical(job_type="Sim"), choosy) is None
    assert fits(canonical(), choosy) == "the pilot takes only jobs of type Sim, Test, it is User"
    assert fits(canonical(), msgspec.structs.replace(NODE, job_types=("ANY",))) is None
    # An unusable site takes Test jobs; that does not make its pilot take what it does not take.
    assert fits(canonical(job_type="Test"), msgspec.structs.replace(NODE, job_types=("Sim",)), {"B"}) is not None


def test_whose_jobs_a_pilot_takes() -> None:
    private = msgspec.structs.replace(NODE, owners=("me",), groups=("g", "h"))
    assert not_theirs(private, "me", "h") is None
    assert not_theirs(private, "you", "h") is Condition.OWNER
    assert not_theirs(private, "me", "i") is Condition.GROUP
    assert not_theirs(private, "", "") is None
    assert not_theirs(NODE, "you", "i") is None


def test_what_is_carried_for_pilots_that_require_tags() -> None:
    assert carried(canonical()) == set()
    assert carried(canonical(tags=["a"], tag_expression="b && (c || !d)")) == {"a", "b", "c"}
    assert carried(canonical(tag_expression="!b || !c")) == set()
    for several in (canonical(min_processors=2), canonical(max_processors=None), canonical(max_processors=8)):
        assert carried(several) == {"MultiProcessor"}
    assert carried(canonical(whole_node=True)) == {"MultiProcessor", "WholeNode"}
    large = msgspec.structs.replace(NODE, required_tags=("MultiProcessor",))
    assert fits(canonical(), large) == "the pilot takes only jobs with tags MultiProcessor"
    assert fits(canonical(min_processors=2), large) is None
    named = msgspec.structs.replace(NODE, required_tags=("gpu",))
    assert fits(canonical(tag_expression="gpu || avx"), named) is None
    assert fits(canonical(tag_expression="!avx"), named) == "the pilot takes only jobs with tags gpu"


def test_equal_new_wishes_are_one_class() -> None:
    assert canonical(tags=["b"], tag_expression="a && (c || d)") == canonical(tags=["a", "b"], tag_expression="d || c")
    assert canonical(tag_expression="a || !a") == canonical()
    assert canonical(architecture="amd64") == canonical(architecture="x86_64-v1")
    assert canonical(architecture="ANY") == canonical()
    assert canonical(gpu_models=["b", "a", "a"]) == canonical(gpus=1, gpu_models=["a", "b"])
    assert canonical(gpus=1, gpu_models=["any"]) == canonical(gpus=1)
    assert canonical(pools=["b", "a", "b"]).pools == ("a", "b")
    assert canonical(wall_seconds=3601) == canonical(wall_seconds=21_600)
    assert canonical(memory_per_processor_mb=0.5).memory_per_processor_mb == 1
    assert canonical(disk_mb=1999.5) == canonical(disk_mb=2000)


def test_what_no_node_can_fulfil_is_no_class() -> None:
    with pytest.raises(TagExpressionError):
        canonical(tags=["a"], tag_expression="!a")
    with pytest.raises(ArchitectureError):
        canonical(architecture="x86_64-v9")


def test_stored_classes_keep_their_digests() -> None:
    """As they were written before there were wall time, architecture, GPUs and so on."""
    assert canonical().digest() == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    stored = (
        b'{"sites":["A","B"],"ces":["ce"],"platforms":["x1"],"job_type":"Test","cpu_class":21600,"min_processors":2,'
        b'"max_processors":null,"whole_node":true,"memory_mb":2000,"tags":["gpu"]}'
    )
    known = Requirements.from_json(stored)
    assert known.to_json() == stored
    assert known.digest() == "1a8a28868d04860389aa470a6ce3d9571a91a33b8cdf8f057645347ca62f0ed0"
    assert known == canonical(
        sites=["B", "A"], ces=["ce"], platforms=["x1"], job_type="Test", cpu_seconds=4000, min_processors=2,
        max_processors=None, whole_node=True, memory_mb=2000, tags=["gpu"],
    )  # fmt: skip


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
    wanted = canonical(gpus=2, gpu_memory_mb=20_000, gpu_models=["A100", "H100"])
    assert fits(wanted, NODE) == "the node has 3 free GPUs; it needs 2 with 20000 MB each of A100 or H100"
    assert fits(canonical(architecture="x86_64-v4"), NODE) == "the node's architecture is x86_64-v3; it needs x86_64-v4"
    assert fits(canonical(tag_expression="!gpu"), NODE) == "the node's tags are not those wanted: !gpu"


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


def test_of_a_description_with_everything() -> None:
    [job] = check(
        'Executable = "x"; WallTime = 4000; MaxRAM = 2000; MinRAM = 1000; MaxRAMPerProcessor = 500; DiskSpace = 10000;'
        ' NumberOfGPUs = 2; GPUMemory = 16000; GPUModel = "T4, A100"; Architecture = "x86-64-v2"; Pool = {"b", "a"};'
        ' Tags = "gpu"; TagExpression = "big && !slow"; NumberOfProcessors = 2;'
    ).jobs
    assert requirements_of(job) == Requirements(
        cpu_class=86_400,
        wall_class=21_600,
        min_processors=2,
        max_processors=2,
        memory_mb=2000,
        memory_per_processor_mb=500,
        disk_mb=10_000,
        gpus=2,
        gpu_memory_mb=16_000,
        gpu_models=("A100", "T4"),
        architecture="x86_64-v2",
        tags=("big", "gpu"),
        tag_expression="!slow",
        pools=("a", "b"),
    )
    [implied] = check('Executable = "x"; GPUMemory = 16000; Tags = 4GB;').jobs
    assert (requirements_of(implied).gpus, requirements_of(implied).memory_mb) == (1, 4000)
