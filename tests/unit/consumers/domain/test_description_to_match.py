"""From the text of a description to the choice: what each attribute means for a node, on both sides of its limit."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from consumers.domain.choose import NoMatch, choose
from consumers.domain.index import Index
from consumers.domain.optimizers import Facts, Ready, optimize
from schemas.jdl import check
from schemas.messages.pilot import Gpu, Offer

A100, T4 = Gpu(model="NVIDIA A100-SXM4-40GB", memory_mb=40_960), Gpu(model="Tesla T4", memory_mb=15_360)
NODE = Offer(
    site="LCG.CERN.cern", ce="ce1", platforms=("x86_64-el9",), cpu_seconds=172_800, wall_seconds=86_400, processors=8,
    memory_mb=16_000, disk_mb=50_000, tags=("cvmfs", "gpu"), architecture="x86_64-v3", gpus=(A100, T4),
)  # fmt: skip


def matched(text: str, offer: Offer) -> bool:
    checked = check(f"Executable = run.sh; {text}")
    assert checked.errors == ()
    ready = optimize(checked.jobs[0], Facts())
    assert isinstance(ready, Ready)
    index = Index()
    index.add_queue(1, ready.requirements, "g", "o")
    index.add(1, 1, 1, 0.0)
    return not isinstance(choose(offer, index, 1.0), NoMatch)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("Site = LCG.CERN.cern;", True),
        ("Site = lcg.cern.cern;", False),
        ("Site = LCG.RAL.uk;", False),
        ("BannedSites = LCG.CERN.cern;", False),
        ("GridCE = {ce1, ce2};", True),
        ("GridCE = ce2;", False),
        ("Platform = {x86_64-el9, x86_64-el8};", True),
        ("Platform = x86_64-el8;", False),
        ("Architecture = x86_64;", True),
        ("Architecture = x86_64_v3;", True),
        ("Architecture = x86_64-v4;", False),
        ("Architecture = aarch64;", False),
        ("CPUTime = 172800;", True),
        ("CPUTime = 172801;", False),
        ("WallTime = 86400;", True),
        ("WallTime = 86401;", False),
        ("NumberOfProcessors = 8;", True),
        ("NumberOfProcessors = 9;", False),
        ("MinNumberOfProcessors = 2; MaxNumberOfProcessors = 64;", True),
        ("Tag = 8Processors;", True),
        ("Tag = 9Processors;", False),
        ("WholeNode = true;", False),
        ("Tag = WholeNode;", False),
        ("MaxRAM = 16000;", True),
        ("MaxRAM = 16001;", False),
        ("Tag = 16GB;", True),
        ("Tag = 17GB;", False),
        ("MaxRAMPerProcessor = 2000; NumberOfProcessors = 8;", True),
        ("MaxRAMPerProcessor = 2000; NumberOfProcessors = 8; MaxRAM = 1;", False),
        ("DiskSpace = 50000;", True),
        ("DiskSpace = 50001;", False),
        ("NumberOfGPUs = 2;", True),
        ("NumberOfGPUs = 3;", False),
        ("NumberOfGPUs = 2; GPUMemory = 15360;", True),
        ("NumberOfGPUs = 2; GPUMemory = 15361;", False),
        ("GPUModel = a100;", True),
        ('GPUModel = "V100, Tesla T4";', True),
        ("GPUModel = A10;", False),
        ("GPUModel = A100; NumberOfGPUs = 2;", False),
        ("Tags = {gpu, cvmfs};", True),
        ("Tags = {gpu, slow};", False),
        ('TagExpression = "gpu && !slow";', True),
        ('TagExpression = "slow || cvmfs";', True),
        ('TagExpression = "!gpu || slow";', False),
        ("Pool = mine;", False),
        ("JobType = Sim;", True),
    ],
)
def test_what_an_attribute_asks_of_a_node(text: str, fits: bool) -> None:
    assert matched(text, NODE) is fits


@pytest.mark.parametrize(
    ("text", "offer", "fits"),
    [
        ("Pool = mine;", replace(NODE, pool="mine"), True),
        ("SubmitPool = {mine, yours};", replace(NODE, pool="yours"), True),
        ("", replace(NODE, pool="mine"), False),
        ("JobType = Sim;", replace(NODE, job_types=("Sim",)), True),
        ("", replace(NODE, job_types=("Sim",)), False),
        ("", replace(NODE, required_tags=("gpu",)), False),
        ("Tags = gpu;", replace(NODE, required_tags=("gpu",)), True),
        ('TagExpression = "gpu || cvmfs";', replace(NODE, required_tags=("gpu",)), True),
        ('TagExpression = "!slow";', replace(NODE, required_tags=("gpu",)), False),
        ("NumberOfProcessors = 4;", replace(NODE, required_tags=("MultiProcessor",)), True),
        ("Tag = MultiProcessor;", replace(NODE, required_tags=("MultiProcessor",)), True),
        ("", replace(NODE, required_tags=("MultiProcessor",)), False),
        ("WholeNode = true;", replace(NODE, whole_node=True), True),
        ("WholeNode = true; MaxRAMPerProcessor = 2000;", replace(NODE, whole_node=True), True),
        ("WholeNode = true; MaxRAMPerProcessor = 2001;", replace(NODE, whole_node=True), False),
        ("Platform = other; GridCE = other;", replace(NODE, platforms=("ANY",), ce="any"), True),
        ("", replace(NODE, owners=("o", "p"), groups=("g",)), True),
        ("", replace(NODE, owners=("p",)), False),
        ("", replace(NODE, groups=("h",)), False),
    ],
)
def test_what_a_pilot_takes(text: str, offer: Offer, fits: bool) -> None:
    assert matched(text, offer) is fits
