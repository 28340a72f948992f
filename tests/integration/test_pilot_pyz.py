"""The built archive runs on bare interpreters, from a cache that nobody else can have prepared."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pilot.bootstrap import CACHE_VARIABLE, EX_CONFIG, BootstrapError, make_private
from pilot.build import PYTHONS, build, own_files, write_archive
from schemas.job import JobStatus
from tests.support.deployment import deployment

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def interpreters() -> list[str]:
    """One interpreter for each supported version that this machine has."""
    places = [*os.environ.get("PATH", "").split(":"), *(str(p) for p in Path.home().glob(".pyenv/versions/*/bin"))]
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for version in PYTHONS:
        path = shutil.which(f"python{version}", path=":".join(reversed(places)))
        if path is not None and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            found.setdefault(version, path)
    return [path for version, path in sorted(found.items()) if version in PYTHONS]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dist") / "pilot.pyz"
    build(ROOT, output)
    return output


def probe(python: str, archive: Path, cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-S", "-E", *options, archive, "--probe", "--work-area", "/tmp"],
        cwd="/",
        env={CACHE_VARIABLE: str(cache), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def entries(cache: Path) -> list[Path]:
    return list(cache.iterdir())


@pytest.mark.parametrize("python", interpreters())
def test_runs_on_a_bare_interpreter(archive: Path, tmp_path: Path, python: str) -> None:
    for _ in range(2):
        done = probe(python, archive, tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["processors"] >= 1
    (folder,) = entries(tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize("python", interpreters())
def test_carries_everything_that_it_imports(archive: Path, tmp_path: Path, python: str) -> None:
    assert probe(python, archive, tmp_path / "cache").returncode == 0
    (folder,) = entries(tmp_path / "cache")
    modules = sorted(
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for room in ("schemas", "broker", "pilot")
        for path in (folder / room).rglob("*.py")
        if path.stem not in {"__init__", "__main__"}
    )
    assert len(modules) > 20
    script = "import sys, importlib; sys.path.insert(0, sys.argv[1])\nfor n in sys.argv[2:]: importlib.import_module(n)"
    command = [python, "-B", "-S", "-I", "-c", script, folder, *modules]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("harm", ["changed", "added", "missing", "linked"])
def test_damaged_cache_is_replaced(archive: Path, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    assert probe(sys.executable, archive, cache).returncode == 0
    (folder,) = entries(cache)
    victim = folder / "pilot" / "node.py"
    if harm == "changed":
        victim.write_text("raise SystemExit('foreign code')")
    elif harm == "added":
        (folder / "sitecustomize.py").write_text("raise SystemExit('foreign code')")
    elif harm == "missing":
        victim.unlink()
    else:
        victim.unlink()
        victim.symlink_to("/etc/passwd")
    done = probe(sys.executable, archive, cache)
    assert done.returncode == 0, done.stderr
    assert entries(cache) == [folder]
    assert "foreign" not in victim.read_text()
    assert not (folder / "sitecustomize.py").exists()


LATE = """
import pathlib, sys
archive, cache = sys.argv[1:]
sys.path.insert(0, archive)
import bootstrap
folder, files = bootstrap.prepare(pathlib.Path(archive), pathlib.Path(cache))
bootstrap.only_checked(folder, files)
import pilot.payload, msgspec  # before the payload
evil = "raise SystemExit('foreign code')"
(folder / "pilot" / "demand.py").write_text(evil)
(folder / "pilot" / "evil.py").write_text(evil)
(folder / "evil.py").write_text(evil)
(folder / "pilot" / "__pycache__").mkdir()
(folder / "pilot" / "__pycache__" / f"limits.{sys.implementation.cache_tag}.pyc").write_bytes(b"foreign code")
rust = next((folder / "cryptography" / "hazmat" / "bindings").glob("_rust*.so"))
rust.write_bytes(rust.read_bytes() + b"x")
import pilot.limits  # not from what was compiled beside it
for name in ("pilot.demand", "pilot.evil", "evil", "cryptography.x509", "pytest"):
    try:
        __import__(name)
    except ImportError as error:
        print(name, type(error).__name__)
    else:
        print(name, "was let in")
print(sorted(place for place in sys.path if "site-packages" in place or place.startswith(str(folder))))
"""


def test_what_is_changed_while_a_pilot_runs_is_not_run(archive: Path, tmp_path: Path) -> None:
    """A payload has the pilot's account, and so may write into its cache."""
    command = [sys.executable, "-c", LATE, archive, tmp_path / "cache"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "pilot.demand ImportError",
        "pilot.evil ModuleNotFoundError",
        "evil ModuleNotFoundError",
        "cryptography.x509 ImportError",
        "pytest ModuleNotFoundError",
        "[]",
    ]


def test_pilots_that_start_together_share_one_cache(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-S", archive, "--probe"]
    running = [
        subprocess.Popen(command, env={CACHE_VARIABLE: str(cache)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    assert len(entries(cache)) == 1


def test_cache_open_to_others_is_refused(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o755)
    done = probe(sys.executable, archive, cache)
    assert done.returncode == EX_CONFIG
    assert "open to others" in done.stderr
    assert entries(cache) == []


def test_cache_behind_a_link_is_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to("real")
    assert "not a folder of this account" in probe(sys.executable, archive, tmp_path / "cache").stderr


def test_cache_of_another_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    make_private(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(BootstrapError, match="not a folder of this account"):
        make_private(tmp_path)


def test_old_interpreters_are_told(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        start = opened.read("__main__.py").decode()
    pretend = "import sys; sys.version_info = (3, 6, 8)\n" + start
    done = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs CPython 3.11" in done.stderr


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    files = list(own_files(ROOT).items())
    write_archive(tmp_path / "one.pyz", {"311": dict(files), "312": {}})
    write_archive(tmp_path / "two.pyz", {"312": {}, "311": dict(reversed(files))})
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()


def test_the_archive_is_a_whole_pilot(archive: Path, tmp_path: Path) -> None:
    """On every interpreter there is: it logs in, runs a job for a user, and ends when nothing is left to do."""
    with deployment(tmp_path / "deployment") as place, place.client() as client:
        config = place.layout.pilot_config(1)
        config.write_text(config.read_text().replace("idle_seconds = 0", "idle_seconds = 1"))
        for python in interpreters():
            submission = client.submit(['Executable = "/bin/echo"; Arguments = "%j"; OutputSandbox = "std.out";'])
            done = subprocess.run(
                [python, "-S", "-E", archive, "--config", config],
                cwd="/",
                env={CACHE_VARIABLE: str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert "nothing to do" in done.stderr
            assert set(client.wait(submission.ids, timeout=10).values()) == {JobStatus.DONE}
