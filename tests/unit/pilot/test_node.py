"""The node probe on recorded texts of several kinds of node, and once for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot import node

V2 = {
    "/proc/self/cgroup": "0::/slice/job.scope\n",
    "/proc/self/mountinfo": "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
    "/sys/fs/cgroup/slice/cpu.max": "150000 100000\n",
    "/sys/fs/cgroup/slice/job.scope/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/slice/job.scope/memory.max": "2000000000\n",
    "/sys/fs/cgroup/slice/memory.max": "max\n",
    "/proc/meminfo": "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
    "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n",
    "/etc/os-release": 'NAME="AlmaLinux"\nID="almalinux"\nVERSION_ID="9.4"\n',
}
V1 = {
    "/proc/self/cgroup": "4:memory:/batch/7\n3:cpu,cpuacct:/batch/7\n1:name=systemd:/\n0::/\n",
    "/proc/self/mountinfo": (
        "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "32 25 0:28 /batch /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    ),
    "/sys/fs/cgroup/cpu,cpuacct/batch/7/cpu.cfs_quota_us": "100000\n",
    "/sys/fs/cgroup/cpu,cpuacct/batch/7/cpu.cfs_period_us": "100000\n",
    "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "/sys/fs/cgroup/memory/7/memory.limit_in_bytes": "1500000000\n",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "/proc/meminfo": "MemTotal:       16384000 kB\n",
}


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_version_2_limits_of_all_levels_bind(tmp_path: Path) -> None:
    found = node.measure(tmp_path, now=100.0, ends_at=160.0, reader=V2.get)
    assert (found.processors, found.memory_mb, found.seconds_left) == (1, 2000, 60.0)
    assert (found.system, found.cpu_model) == ("almalinux-9.4", "Some CPU @ 2 GHz")


def test_version_1_limits_bind(tmp_path: Path) -> None:
    found = node.measure(tmp_path, now=0.0, reader=V1.get)
    assert (found.processors, found.memory_mb, found.seconds_left) == (1, 1500, None)


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    found = node.measure(
        tmp_path / "not" / "there", now=5.0, ends_at=1.0, reader={"/proc/meminfo": V1["/proc/meminfo"]}.get
    )
    assert (found.processors, found.memory_mb, found.seconds_left) == (8, 16777, 0.0)
    assert found.disk_mb > 0
    assert (found.system, found.cpu_model) == ("linux", "")


def test_nothing_readable_gives_no_memory_rather_than_a_guess(tmp_path: Path) -> None:
    assert node.measure(tmp_path, now=0.0, reader=lambda path: None).memory_mb == 0


def test_process_outside_of_its_cgroup_namespace_takes_the_top() -> None:
    place = node.locate_cgroup("", {"": "/../../other"}, {"": ("/", "/sys/fs/cgroup")})
    assert place is not None
    assert list(place.levels()) == ["/sys/fs/cgroup"]


@pytest.mark.parametrize(
    ("text", "value"), [("max 100000", None), ("50000 100000", 0.5), ("-1 100000", None), ("", None)]
)
def test_quota(text: str, value: float | None) -> None:
    assert node.parse_quota(text) == value


@pytest.mark.parametrize(
    ("affinity", "quotas", "expected"), [(8, [], 8), (8, [2.0, 3.0], 2), (8, [0.5], 1), (1, [4.0], 1)]
)
def test_whole_processors(affinity: int, quotas: list[float], expected: int) -> None:
    assert node.count_processors(affinity, quotas) == expected


def test_this_node(tmp_path: Path) -> None:
    found = node.measure(tmp_path, now=0.0)
    assert found.platform.endswith("-linux")
    assert found.memory_mb > 0
    assert 1 <= found.processors <= 8
