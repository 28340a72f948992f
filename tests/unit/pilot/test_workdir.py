"""Work directories: fresh, private, gone afterwards whatever the payload did to them."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.workdir import WorkArea, WorkAreaError, disk_usage_mb, wipe
from tests.support.wait import wait_until

HOLDER = (
    "import sys, signal, pathlib; from pilot.workdir import WorkArea\n"
    "area = WorkArea(pathlib.Path(sys.argv[1]), sys.argv[2]); area.__enter__(); area.fresh('1', 1)\n"
    "print('ready', flush=True); signal.pause()\n"
)


def test_fresh_directory_is_private_and_unique(tmp_path: Path) -> None:
    with WorkArea(tmp_path / "area", "a b/../c") as area:
        path = area.fresh("12", 3)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.parent == area.path
        assert area.path.parent == tmp_path / "area"
        with pytest.raises(WorkAreaError, match="already has"):
            area.fresh("12", 3)
        assert area.fresh("12", 4) != path
    assert not area.path.exists()


def test_area_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(WorkAreaError, match="others may write"), WorkArea(tmp_path, "a"):
        pass


def test_area_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(WorkAreaError, match="not a folder"), WorkArea(tmp_path / "link", "a"):
        pass


def test_two_pilots_of_one_name_exclude_each_other(tmp_path: Path) -> None:
    with (
        WorkArea(tmp_path / "area", "a"),
        pytest.raises(WorkAreaError, match="living pilot"),
        WorkArea(tmp_path / "area", "a"),
    ):
        pass


def test_dead_pilots_leave_nothing_and_living_ones_lose_nothing(tmp_path: Path) -> None:
    area = tmp_path / "area"
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER, area, name], stdout=subprocess.PIPE)
        for name in ("living", "dying")
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
        holders[1].send_signal(signal.SIGKILL)
        holders[1].wait()
        with WorkArea(area, "new") as mine:
            assert mine.reclaimed == ("pilot-dying",)
            assert {path.name for path in area.glob("pilot-*")} == {"pilot-living", "pilot-new"}
            assert (area / "pilot-living" / "1-1").is_dir()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()


def nasty(path: Path) -> None:
    path.mkdir()
    (path / "outside").symlink_to("/etc")
    (path / "loop").symlink_to("loop")
    os.mkfifo(path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path)
        listener.bind("socket")
        os.chdir(here)
    (path / "no").mkdir()
    (path / "no" / "way").mkdir()
    (path / "no" / "way" / "file").write_text("x")
    (path / "no" / "way" / "file").chmod(0)
    (path / "no" / "way").chmod(0)
    (path / "no").chmod(0)
    (path / ".wipe-0-1").mkdir()
    (path / ".wipe-0-1" / "full").write_text("x")
    (path / os.fsdecode(b"bad\xff\nname")).write_text("x")
    (path / "hard").hardlink_to(path / ".wipe-0-1" / "full")


def test_wipe_of_a_nasty_tree(tmp_path: Path) -> None:
    nasty(tmp_path / "tree")
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("kept")
    (tmp_path / "tree" / "link").symlink_to(keep)
    with (tmp_path / "tree" / "open").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert wipe(tmp_path / "tree") == ()
    assert not (tmp_path / "tree").exists()
    assert (keep / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_wipe_of_a_nasty_tree_without_privileges(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; os.chdir('/'); os.setgid(65534); os.setuid(65534)\n"
        "from tests.unit.pilot.test_workdir import nasty, wipe\n"
        "tree = pathlib.Path(sys.argv[1]) / 'tree'; nasty(tree); print(wipe(tree), tree.exists())\n"
    )
    # a fresh interpreter that has loaded everything before it gives up its rights
    preload = "import sys; sys.path.insert(0, sys.argv[2]); import tests.unit.pilot.test_workdir\n"
    place = Path("/tmp") / f"pilot-wipe-{os.getpid()}"  # tmp_path lies behind folders that others cannot enter
    place.mkdir()
    os.chown(place, 65534, 65534)
    try:
        root = str(Path(__file__).parents[3])
        done = subprocess.run([sys.executable, "-c", preload + script, place, root], capture_output=True, text=True)
        assert done.stdout == "() False\n", done.stderr
    finally:
        wipe(place)


def test_wipe_of_a_tree_deeper_than_any_path(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("x" * 200, dir_fd=here)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert wipe(top) == ()
    assert not top.exists()


def test_wipe_of_nothing_or_a_file(tmp_path: Path) -> None:
    assert wipe(tmp_path / "missing") == ()
    (tmp_path / "link").symlink_to("/etc")
    assert wipe(tmp_path / "link") != ()
    assert Path("/etc/passwd").exists()


def test_disk_usage_counts_blocks_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x" * 3_000_000)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 10**9)
    (tmp_path / "usr").symlink_to("/usr")
    wait_until(lambda: 3.0 <= disk_usage_mb(tmp_path) < 3.2, 5, "3 MB on disk")
