"""DIRAC's matching rules as a table: what a job says, what a pilot says, and what comes of it, written by hand.

From the documented semantics of TaskQueueDB and Matcher (DIRAC 8, 9): per attribute unset, any, equal, other and a list
on the job's side, against unset, any and a value on the pilot's. Where ours is another outcome than DIRAC's, the row
says in which line of docs/explanation/differences-from-dirac.md the reason is told.

A row: the description beside what all say, the offer's attributes beside :data:`NODE`, the first condition in the way
(``None``: it fits), and the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumers.domain.conditions import Condition as C  # noqa: N817 - it stands in every row
from consumers.domain.requirements import Requirements, requirements_of
from schemas.jdl import check
from schemas.messages.pilot import Gpu, Offer

NODE = Offer(
    site="A",
    ce="ce1",
    platforms=("x1",),
    cpu_seconds=86_400,
    wall_seconds=86_400,
    processors=4,
    memory_mb=8000,
    disk_mb=20_000,
    tags=("gold",),
)

NOT_SAID = "a pilot that says no CE or no platform gets only jobs that want none"
PILOTS_ANY = "A pilot's `any` for its site or among its tags skips these conditions"
CASE = "Sites, tags, platforms are compared without regard to case"
POOLS = "A pilot of a pool takes only jobs that name it"
MEGABYTES = "A job with 2500 MB needs no 3 GB"
TEST_TYPE = "Such a site gets Test jobs, if the pilot takes them"
CARRIED = "the names of its `TagExpression` that are not negated"
SHARED = "A pilot may be bound to groups"
NEW = "new"
"""Nothing of DIRAC's to compare with."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    says: str
    offers: dict[str, object]
    expected: C | None
    difference: str = ""
    banned: frozenset[str] = frozenset()
    owner: str = "ada"
    group: str = "users"

    @property
    def name(self) -> str:
        return f"{self.says or 'nothing'} × {self.offers or 'the node'}"

    def requirements(self) -> Requirements:
        """The class of the description."""
        checked = check(
            f'[ Executable = "/bin/true"; {"" if "CPUTime" in self.says else "CPUTime = 360;"} {self.says} ]'
        )
        assert not checked.errors, checked.errors
        return requirements_of(checked.jobs[0])

    def offer(self) -> Offer:
        """What the pilot offers."""
        values = {name: getattr(NODE, name) for name in NODE.__struct_fields__}
        return Offer(**{**values, **self.offers})  # type: ignore[arg-type]  # as the row wants it

    def usable(self) -> frozenset[str] | None:
        """The site mask."""
        return frozenset({"A", "B", "a"} - self.banned) if self.banned else None


GPU = Gpu(model="NVIDIA A100-SXM4-40GB", memory_mb=40_000)


def rows(says: str, *cells: tuple[dict[str, object], C | None] | tuple[dict[str, object], C | None, str]) -> list[Row]:
    """A job against some pilots."""
    return [Row(says, *cell) for cell in cells]


MATRIX: tuple[Row, ...] = (
    # Site: an empty list or the pilot's value in it. A pilot has to name its site.
    *rows("", ({}, None), ({"site": "B"}, None), ({"site": "any"}, None)),
    *rows('Site = "A";', ({}, None), ({"site": "B"}, C.SITE), ({"site": "any"}, C.SITE, PILOTS_ANY)),
    *rows('Site = "any";', ({}, None), ({"site": "B"}, None)),
    *rows('Site = {"A", "B"};', ({}, None), ({"site": "B"}, None), ({"site": "C"}, C.SITE)),
    *rows('Site = "A";', ({"site": "a"}, C.SITE, CASE)),
    # Banned sites.
    *rows('BannedSites = {"A"};', ({}, C.BANNED), ({"site": "B"}, None)),
    *rows('Site = {"A", "B"}; BannedSites = {"A"};', ({}, C.SITE), ({"site": "B"}, None)),
    # CE: unset, any, a value.
    *rows("", ({"ce": ""}, None), ({"ce": "any"}, None), ({"ce": "ce2"}, None)),
    *rows('GridCE = "ce1";', ({}, None), ({"ce": "ce2"}, C.CE), ({"ce": "Any"}, None), ({"ce": ""}, C.CE, NOT_SAID)),
    *rows('GridCE = {"ce1", "ce2"};', ({}, None), ({"ce": "ce2"}, None), ({"ce": "ce3"}, C.CE)),
    *rows('GridCE = "any";', ({}, None), ({"ce": ""}, None)),
    # Platform: likewise; a pilot may list several.
    *rows("", ({"platforms": ()}, None), ({"platforms": ("any",)}, None)),
    *rows('Platform = "x1";', ({}, None), ({"platforms": ("x2",)}, C.PLATFORM), ({"platforms": ("x2", "x1")}, None)),
    *rows('Platform = "x1";', ({"platforms": ("ANY",)}, None), ({"platforms": ()}, C.PLATFORM, NOT_SAID)),
    *rows('Platform = {"x0", "x1"};', ({}, None), ({"platforms": ("x2", "x3")}, C.PLATFORM)),
    *rows('Platform = "any";', ({}, None), ({"platforms": ()}, None)),
    # CPU time: rounded up to a class, which must fit into what is left.
    *rows("CPUTime = 360;", ({"cpu_seconds": 360}, None), ({"cpu_seconds": 359.9}, C.CPU_TIME)),
    *rows("CPUTime = 361;", ({"cpu_seconds": 1800}, None), ({"cpu_seconds": 1799}, C.CPU_TIME)),
    *rows("CPUTime = 1800;", ({"cpu_seconds": 1800}, None), ({"cpu_seconds": 1799.9}, C.CPU_TIME)),
    *rows("CPUTime = 86400;", ({}, None), ({"cpu_seconds": 86_399}, C.CPU_TIME)),
    *rows("CPUTime = 86401;", ({}, C.CPU_TIME), ({"cpu_seconds": 172_800}, None)),
    *rows("CPUTime = 500000;", ({"cpu_seconds": 518_400}, None), ({"cpu_seconds": 518_399}, C.CPU_TIME)),
    # Processors: N Processors, MultiProcessor, WholeNode are tags there and numbers here; the same jobs fit.
    *rows("NumberOfProcessors = 4;", ({}, None), ({"processors": 3}, C.PROCESSORS), ({"processors": 8}, None)),
    *rows("MinNumberOfProcessors = 2; MaxNumberOfProcessors = 8;", ({}, None), ({"processors": 1}, C.PROCESSORS)),
    *rows('Tags = {"4Processors"};', ({}, None), ({"processors": 3}, C.PROCESSORS)),
    *rows('Tags = {"MultiProcessor"};', ({}, None), ({"processors": 1}, C.PROCESSORS)),
    *rows("WholeNode = true;", ({}, C.WHOLE_NODE), ({"whole_node": True}, None)),
    *rows("", ({"whole_node": True}, None), ({"processors": 1}, None), ({"processors": 0}, C.PROCESSORS)),
    # Memory: whole GB there, MB here.
    *rows("MaxRAM = 8000;", ({}, None), ({"memory_mb": 7999.9}, C.MEMORY)),
    *rows("MaxRAM = 2500;", ({"memory_mb": 2500}, None, MEGABYTES), ({"memory_mb": 2499}, C.MEMORY)),
    *rows('Tags = {"4GB"};', ({"memory_mb": 4000}, None), ({"memory_mb": 3999}, C.MEMORY)),
    *rows("", ({"memory_mb": 0}, None)),
    # Tags: all of the job's on the node; what the node requires carried by the job.
    *rows("", ({"tags": ()}, None), ({"tags": ("a", "b")}, None)),
    *rows('Tags = {"gold"};', ({}, None), ({"tags": ()}, C.TAGS), ({"tags": ("gold", "b")}, None)),
    *rows('Tags = {"gold", "b"};', ({}, C.TAGS), ({"tags": ("b", "gold")}, None)),
    *rows('Tags = {"gold"};', ({"tags": ("any",)}, C.TAGS, PILOTS_ANY), ({"tags": ("Gold",)}, C.TAGS, CASE)),
    *rows("", ({"required_tags": ("gold",)}, C.REQUIRED_TAGS)),
    *rows('Tags = {"gold"};', ({"required_tags": ("gold",)}, None)),
    *rows('Tags = {"gold"};', ({"tags": ("gold", "b"), "required_tags": ("gold", "b")}, C.REQUIRED_TAGS)),
    *rows('Tags = {"gold", "b"};', ({"tags": ("gold", "b"), "required_tags": ("gold",)}, None)),
    *rows("NumberOfProcessors = 2;", ({"required_tags": ("MultiProcessor",)}, None)),
    *rows("", ({"required_tags": ("MultiProcessor",)}, C.REQUIRED_TAGS)),
    *rows("WholeNode = true;", ({"whole_node": True, "required_tags": ("WholeNode",)}, None)),
    *rows("", ({"whole_node": True, "required_tags": ("WholeNode",)}, C.REQUIRED_TAGS)),
    # Job type: a pilot may take certain types only.
    *rows(
        "", ({"job_types": ("User",)}, None), ({"job_types": ("MCSim",)}, C.JOB_TYPE), ({"job_types": ("any",)}, None)
    ),
    *rows(
        'JobType = "MCSim";',
        ({}, None),
        ({"job_types": ("User", "MCSim")}, None),
        ({"job_types": ("User",)}, C.JOB_TYPE),
    ),
    # The site mask: a site that is not usable takes Test jobs only.
    Row("", {}, C.SITE_UNUSABLE, banned=frozenset({"A"})),
    Row('Site = "A";', {}, C.SITE_UNUSABLE, banned=frozenset({"A"})),
    Row("", {"site": "B"}, None, banned=frozenset({"A"})),
    Row('JobType = "Test";', {}, None, banned=frozenset({"A"})),
    Row('JobType = "test";', {}, C.SITE_UNUSABLE, banned=frozenset({"A"})),
    Row('JobType = "Test"; Site = "B";', {}, C.SITE, banned=frozenset({"A"})),
    Row('JobType = "Test"; BannedSites = {"A"};', {}, C.BANNED, banned=frozenset({"A"})),
    Row('JobType = "Test";', {"job_types": ("User",)}, C.JOB_TYPE, TEST_TYPE, banned=frozenset({"A"})),
    # Whose: generic pilots take everybody's, private ones their owner's only.
    Row("", {"owners": ("ada",)}, None),
    Row("", {"owners": ("ada",)}, C.OWNER, owner="bob"),
    Row("", {"owners": ("ada", "bob")}, None, owner="bob"),
    Row("", {"groups": ("users",)}, None, SHARED),
    Row("", {"groups": ("users",)}, C.GROUP, SHARED, group="prod"),
    Row("", {"owners": ("ada",), "groups": ("users",)}, C.GROUP, group="prod"),
    Row("", {"owners": ("ada",), "groups": ("users",)}, C.OWNER, owner="bob"),
    # Pools.
    *rows("", ({"pool": "p"}, C.POOL, POOLS)),
    *rows('SubmitPool = "p";', ({"pool": "p"}, None), ({"pool": "q"}, C.POOL), ({}, C.POOL)),
    *rows('Pool = {"p", "q"};', ({"pool": "q"}, None)),
    # What DIRAC has not.
    *rows("WallTime = 360;", ({"wall_seconds": 360}, None, NEW), ({"wall_seconds": 359}, C.WALL_TIME, NEW)),
    *rows("", ({"wall_seconds": 0}, None, NEW)),
    *rows("DiskSpace = 20000;", ({}, None, NEW), ({"disk_mb": 19_999}, C.DISK, NEW)),
    *rows("MaxRAMPerProcessor = 2000; NumberOfProcessors = 4;", ({}, None, NEW), ({"memory_mb": 7999}, C.MEMORY, NEW)),
    *rows("NumberOfGPUs = 1;", ({}, C.GPU, NEW), ({"gpus": (GPU,)}, None, NEW)),
    *rows("NumberOfGPUs = 2;", ({"gpus": (GPU,)}, C.GPU, NEW), ({"gpus": (GPU, GPU)}, None, NEW)),
    *rows("GPUMemory = 40000;", ({"gpus": (GPU,)}, None, NEW)),
    *rows("GPUMemory = 40001;", ({"gpus": (GPU,)}, C.GPU, NEW)),
    *rows(
        'GPUModel = "a100";', ({"gpus": (GPU,)}, None, NEW), ({"gpus": (Gpu(model="T4", memory_mb=4e4),)}, C.GPU, NEW)
    ),
    *rows('Architecture = "x86_64-v2";', ({"architecture": "x86_64-v3"}, None, NEW), ({}, C.ARCHITECTURE, NEW)),
    *rows('Architecture = "x86_64-v2";', ({"architecture": "x86_64-v2"}, None, NEW)),
    *rows('Architecture = "x86_64-v2";', ({"architecture": "x86_64-v1"}, C.ARCHITECTURE, NEW)),
    *rows('Architecture = "x86_64-v2";', ({"architecture": "aarch64"}, C.ARCHITECTURE, NEW)),
    *rows('TagExpression = "gold && !slow";', ({}, None, NEW), ({"tags": ("gold", "slow")}, C.TAG_EXPRESSION, NEW)),
    *rows('TagExpression = "gold && !slow";', ({"tags": ()}, C.TAGS, NEW)),
    *rows('TagExpression = "gold || silver";', ({"required_tags": ("gold",)}, None, CARRIED)),
    *rows(
        'TagExpression = "!gold || silver";',
        ({"tags": ("silver", "gold"), "required_tags": ("gold",)}, C.REQUIRED_TAGS, CARRIED),
    ),
)
