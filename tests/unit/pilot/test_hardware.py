"""Processor levels and GPUs, from recorded texts: whole, broken, and those of a batch system that shares a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.hardware import GpuDevice, find_gpus, parse_architecture, parse_gpus, visible
from schemas.jdl.architecture import parse_architecture as read_as_the_match_does

NODES = Path(__file__).parents[2] / "fixtures" / "nodes"

A100 = "GPU-7b2a0c55-6f0e-2f3b-9a53-6d6d3f9a0001"
T4 = "GPU-0f2b91d1-52ce-11ce-ab6e-b0c4de050002"
TWO = f"0, {A100}, NVIDIA A100-SXM4-40GB, 40960\n1, {T4}, Tesla T4, 15360\n"


def cpuinfo(name: str) -> str:
    return (NODES / f"cpuinfo-{name}").read_text()


@pytest.mark.parametrize(
    ("name", "level"),
    [("skylake-server", "x86_64-v4"), ("haswell", "x86_64-v3"), ("westmere", "x86_64-v2"), ("opteron", "x86_64")],
)
def test_levels_of_x86_64(name: str, level: str) -> None:
    found = parse_architecture("x86_64", cpuinfo(name))
    assert found == level
    assert str(read_as_the_match_does(found)) == level


def test_a_missing_flag_of_a_lower_level_counts() -> None:
    assert parse_architecture("x86_64", cpuinfo("skylake-server").replace(" ssse3", "")) == "x86_64"
    assert parse_architecture("x86_64", cpuinfo("skylake-server").replace(" movbe", "")) == "x86_64-v2"


def test_the_weakest_processor_counts() -> None:
    assert parse_architecture("x86_64", cpuinfo("haswell") + cpuinfo("westmere")) == "x86_64-v2"


def test_a_text_that_was_cut_off_is_no_weaker_processor() -> None:
    whole = cpuinfo("haswell")
    for length in range(len(whole) // 2 + 200, len(whole)):
        assert parse_architecture("x86_64", whole[:length]) == "x86_64-v3"


@pytest.mark.parametrize("text", ["", "flags", "flags:\n", "\0\0", "processor : 0\n"])
def test_nothing_known_is_the_lowest_level(text: str) -> None:
    assert parse_architecture("x86_64", text) == "x86_64"


def test_other_families_have_no_level() -> None:
    assert parse_architecture("aarch64", cpuinfo("aarch64")) == "aarch64"
    assert parse_architecture("ppc64le", "") == "ppc64le"


def test_gpus_as_the_driver_tells_them() -> None:
    assert parse_gpus(TWO) == (
        GpuDevice(A100, "NVIDIA A100-SXM4-40GB", 42950, "0"),
        GpuDevice(T4, "Tesla T4", 16106, "1"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest\n",
        'Field "uuid" is not a valid field to query.\n',
        f"0, {A100}, NVIDIA A100-SXM4-40GB, [N/A]\n",
        f"0, {A100}, [GPU is lost], [GPU is lost]\n",
        f"0, {A100}, [Unknown Error], 40960\n",
        f"0, {A100}, , 40960\n",
        f"0, {A100}, NVIDIA A100, 0\n",
        f"x, {A100}, NVIDIA A100, 40960\n",
        "0, 0000:81:00.0, NVIDIA A100, 40960\n",
        f"0, {A100}\n",
    ],
)
def test_what_is_no_working_gpu_is_not_offered(text: str) -> None:
    assert parse_gpus(text) == ()
    assert [gpu.model for gpu in parse_gpus(text + f"1, {T4}, Tesla T4, 15360\n")] == ["Tesla T4"]


@given(st.text(max_size=300))
def test_any_text_is_parsed(text: str) -> None:
    assert all(gpu.memory_mb > 0 for gpu in parse_gpus(text))
    parse_architecture("x86_64", text)
    visible(parse_gpus(TWO), text)


def test_one_gpu_is_counted_once_and_too_many_are_cut() -> None:
    assert len(parse_gpus(TWO + TWO)) == 2
    many = "".join(f"{n}, GPU-{n:04d}, Tesla T4, 15360\n" for n in range(100))
    assert len(parse_gpus(many)) == 64


@pytest.mark.parametrize(
    ("value", "models"),
    [
        (None, ["NVIDIA A100-SXM4-40GB", "Tesla T4"]),
        ("1", ["Tesla T4"]),
        ("1,0", ["Tesla T4", "NVIDIA A100-SXM4-40GB"]),
        (T4, ["Tesla T4"]),
        (T4[:12], ["Tesla T4"]),
        ("GPU-", []),  # not one
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["NVIDIA A100-SXM4-40GB"]),  # as CUDA does it
        ("0,0", ["NVIDIA A100-SXM4-40GB"]),
    ],
)
def test_only_what_the_batch_system_gave(value: str | None, models: list[str]) -> None:
    assert [gpu.model for gpu in find_gpus(lambda: TWO, value)] == models


@pytest.mark.parametrize("script", ["exit 9", "kill -9 $$", "echo nonsense"])
def test_a_tool_that_fails_means_none(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_gpus() == ()


def test_a_tool_that_hangs_means_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("pilot.hardware.QUERY_SECONDS", 0.2)
    assert find_gpus() == ()


def test_the_tool_of_the_node_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncase $1 in --query-gpu=index,uuid,name,memory.total) printf '{TWO}';; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert len(find_gpus()) == 2


def test_no_tool_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_gpus() == ()
