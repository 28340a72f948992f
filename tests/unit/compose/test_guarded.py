"""Nothing is served while others may read a secret or change what decides who is let in."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker.transport import Endpoint
from compose import guarded
from compose.guarded import check_files
from compose.services import ServiceGroup
from consumers.settings import MyProxySettings, ServerSettings
from schemas.errors import ConfigurationError

SECRET_FILES = (
    "credentials/matcher.pem",
    "credentials/matcher.secret",
    "credentials/other.key",
    "master.key",
    "old.key",
    "gatekeeper.key",
    "password",
    "pilots.pem",
    "host.pem",
)
OPEN_FILES = ("server.toml", "registry.toml", "gatekeeper.pem", "ca.pem")
OPEN_FOLDERS = ("trust", "vomsdir", "vomses")


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    (tmp_path / "credentials").mkdir(0o700)
    for name in SECRET_FILES:
        (tmp_path / name).touch(0o600)
    for name in OPEN_FILES:
        (tmp_path / name).touch(0o644)
        (tmp_path / name).chmod(0o644)
    for name in OPEN_FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    return ServerSettings(
        deployment="test",
        endpoint=Endpoint("localhost", 5671, tmp_path / "ca.pem"),
        store_url=f"sqlite:///{tmp_path}/data/store.db",
        trust_dir=tmp_path / "trust",
        registry_file=tmp_path / "registry.toml",
        credentials=tmp_path / "credentials",
        master_keys=(tmp_path / "master.key", tmp_path / "old.key"),
        gatekeeper_port=1,
        gatekeeper_certificate=tmp_path / "gatekeeper.pem",
        gatekeeper_key=tmp_path / "gatekeeper.key",
        management_port=2,
        voms_dir=tmp_path / "vomsdir",
        store_password_file=tmp_path / "password",
        pilot_authority=tmp_path / "pilots.pem",
        myproxy=MyProxySettings("myproxy", tmp_path / "host.pem"),
        vomses=tmp_path / "vomses",
        origin=tmp_path / "server.toml",
    )


def test_files_as_they_should_be(settings: ServerSettings) -> None:
    check_files(settings)


@pytest.mark.parametrize("name", [*SECRET_FILES, "credentials"])
@pytest.mark.parametrize("right", [stat.S_IRGRP, stat.S_IROTH, stat.S_IWOTH], ids=["group", "others", "write"])
def test_a_secret_that_others_may_use_is_refused_with_what_to_do(
    settings: ServerSettings, tmp_path: Path, name: str, right: int
) -> None:
    path = tmp_path / name
    path.chmod(path.stat().st_mode | right)
    with pytest.raises(ConfigurationError, match=f"{path}: others may use it.*chmod [67]00 {path}"):
        check_files(settings)


@pytest.mark.parametrize("name", [*OPEN_FILES, *OPEN_FOLDERS])
def test_what_decides_who_is_let_in_may_be_read_and_not_changed_by_others(
    settings: ServerSettings, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    for right in (stat.S_IWGRP, stat.S_IWOTH):
        path.chmod((path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH)) | right)
        with pytest.raises(ConfigurationError, match=f"{path}: others may change it.*chmod go-w"):
            check_files(settings)


def test_another_accounts_files_are_refused(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not os.geteuid():
        os.chown(tmp_path / "master.key", 12345, -1)
    else:
        monkeypatch.setattr(guarded.os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="belongs to another account"):
        check_files(settings)


def test_what_is_not_there_is_told_by_who_needs_it(settings: ServerSettings, tmp_path: Path) -> None:
    check_files(dataclasses.replace(settings, credentials=tmp_path / "nowhere", master_keys=()))


def test_services_do_not_start_on_open_secrets(settings: ServerSettings, tmp_path: Path) -> None:
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"master\.key"), ServiceGroup(settings, ["matcher"]):
        pass
    assert not (tmp_path / "data").exists(), "nothing was opened"


def test_a_serving_process_writes_for_itself_alone(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, resource, sys; os.umask(0)\n"
        "from compose.serve import keep_to_itself; keep_to_itself()\n"
        "pathlib.Path(sys.argv[1]).touch(); print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "from pilot.kernel import is_readable; print(is_readable())"
    )
    path = tmp_path / "made"
    result = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60,
        cwd=Path(guarded.__file__).parents[1],
    )  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert result.stdout.split("\n")[:2] == ["(0, 0)", "False"]
