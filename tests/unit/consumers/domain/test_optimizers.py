from __future__ import annotations

from dataclasses import replace

import pytest

from consumers.domain.optimizers import Facts, NeedFacts, Outcome, Ready, Refuse, needs_io, optimize
from schemas.jdl import JobDescription

FACTS = Facts(
    provided=frozenset({"run.sh"}),
    replicas={"/vo/a": ("SE1", "SE2"), "/vo/b": ("SE2",), "/vo/far": ("TAPE",), "/vo/lost": (), "/vo/c": ("SE3",)},
    near={"SE1": frozenset({"A"}), "SE2": frozenset({"A", "B"}), "SE3": frozenset({"C"})},
    sites=frozenset({"A", "B", "C"}),
)


def job(**values: object) -> JobDescription:
    return JobDescription(executable="run.sh", **values)  # type: ignore[arg-type]


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Refuse), outcome
    return outcome.reason


def sites(outcome: Outcome) -> tuple[str, ...] | None:
    assert isinstance(outcome, Ready), outcome
    assert outcome.requirements.sites == (outcome.candidate_sites or ())
    return outcome.candidate_sites


@pytest.mark.parametrize(
    ("description", "needed"),
    [
        (job(), False),
        (job(input_sandbox=("run.sh",)), False),
        (job(input_sandbox=("LFN:/vo/a",)), True),
        (job(input_sandbox=("SB:abc",)), True),
        (job(input_data=("/vo/a",)), True),
    ],
)
def test_needs_io(description: JobDescription, needed: bool) -> None:
    assert needs_io(description) == needed


def test_a_plain_job_runs_anywhere() -> None:
    assert sites(optimize(job(input_sandbox=("run.sh",)), FACTS)) is None
    assert sites(optimize(job(sites=("ANY",)), FACTS)) is None


def test_site_and_banned_sites() -> None:
    assert sites(optimize(job(sites=("B", "A"), banned_sites=("A",)), FACTS)) == ("B",)
    banned = optimize(job(banned_sites=("A",)), FACTS)
    assert isinstance(banned, Ready)
    assert banned.requirements.banned_sites == ("A",)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"cpu_time": 10**9}, "CPUTime is 1000000000, outside 100 to 500000"),
        ({"max_ram": 10**9}, "MaxRAM is 1000000000"),
        ({"max_ram_per_processor": 10**6, "number_of_processors": 64}, "needs 64000000 MB of memory"),
        ({"tags": ("a",), "tag_expression": "!a || b && !b"}, "contradicts Tags"),
        ({"tag_expression": "a &&"}, "a tag is missing at the end"),
        ({"architecture": "x86_64-v9"}, "those of x86_64 are v1 to v4"),
        ({"number_of_gpus": 0, "gpu_models": ("T4",)}, "NumberOfGPUs is 0"),
    ],
)
def test_what_no_node_can_fulfil_is_refused(wishes: dict[str, object], told: str) -> None:
    refused = optimize(job(**wishes), FACTS)
    assert told in reason(refused)
    assert isinstance(refused, Refuse)
    assert refused.minor == "Impossible requirements"


def test_what_no_node_fulfils_today_waits() -> None:
    wishes = {"pools": ("nobody-knows",), "tags": ("new",), "architecture": "riscv64", "gpu_models": ("X1",)}
    assert isinstance(optimize(job(**wishes), FACTS), Ready)


def test_nowhere() -> None:
    assert "can run nowhere" in reason(optimize(job(sites=("A",), banned_sites=("A", "B")), FACTS))
    assert "can run nowhere" in reason(optimize(job(banned_sites=("A", "B", "C")), FACTS))


def test_unknown_sites_get_a_hint() -> None:
    facts = replace(FACTS, sites=frozenset({"LCG.CERN.cern"}))
    assert reason(optimize(job(sites=("LCG.CERN.ch",)), facts)) == (
        "no such site: LCG.CERN.ch (did you mean LCG.CERN.cern?)"
    )
    assert sites(optimize(job(sites=("LCG.CERN.ch",)), replace(facts, sites=None))) == ("LCG.CERN.ch",)


def test_input_sandbox() -> None:
    assert reason(optimize(job(input_sandbox=("other.sh",)), FACTS)) == (
        "InputSandbox names what is not there: other.sh"
    )
    assert reason(optimize(job(input_sandbox=("LFN:/vo/lost",)), FACTS)).endswith("LFN:/vo/lost")
    assert sites(optimize(job(input_sandbox=("LFN:/vo/far",)), FACTS)) is None
    known = replace(FACTS, references={"SB:yes": True, "SB:no": False})
    assert sites(optimize(job(input_sandbox=("SB:yes",)), known)) is None
    assert reason(optimize(job(input_sandbox=("SB:no",)), known)).endswith("SB:no")


def test_all_facts_are_asked_for_at_once() -> None:
    wanted = job(input_sandbox=("LFN:/vo/x", "SB:s", "nowhere.sh"), input_data=("/vo/a", "/vo/y"))
    assert optimize(wanted, FACTS) == NeedFacts(("/vo/x", "/vo/y"), ("SB:s",))


def test_input_data_gives_the_sites_near_all_files() -> None:
    assert sites(optimize(job(input_data=("/vo/a",)), FACTS)) == ("A", "B")
    assert sites(optimize(job(input_data=("/vo/a", "/vo/b"), banned_sites=("A",)), FACTS)) == ("B",)
    assert sites(optimize(job(input_data=("LFN:/vo/a",), sites=("B", "C")), FACTS)) == ("B",)


def test_input_data_that_cannot_be_had() -> None:
    assert reason(optimize(job(input_data=("/vo/lost", "/vo/a")), FACTS)) == "no replica of /vo/lost"
    assert "/vo/far (it is at TAPE)" in reason(optimize(job(input_data=("/vo/far",)), FACTS))
    assert "no site is near all input files" in reason(optimize(job(input_data=("/vo/a", "/vo/c")), FACTS))
    assert "its input data is at A, B" in reason(optimize(job(input_data=("/vo/a",), sites=("C",)), FACTS))


def test_long_lists_are_cut() -> None:
    lost = tuple(f"/vo/{number}" for number in range(400))
    facts = replace(FACTS, replicas=dict.fromkeys(lost, ()))
    assert reason(optimize(job(input_data=lost), facts)).endswith("and 395 more")
