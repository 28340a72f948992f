from __future__ import annotations

from pathlib import Path

import pytest

from compose.local import installed


@pytest.fixture
def no_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installed, "SYSTEM", tmp_path / "system")
    return tmp_path / "servers"


def put(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_what_is_missing_is_named_with_the_way_to_get_it(no_system: Path) -> None:
    with pytest.raises(installed.ServerMissingError, match="make setup"):
        installed.find_rabbitmq(no_system)
    with pytest.raises(installed.ServerMissingError, match="package postgresql"):
        installed.find_postgres(no_system)


def test_an_unpacked_rabbitmq_is_found_with_its_version_and_paths(no_system: Path) -> None:
    prefix = no_system / "rabbitmq"
    real = prefix / "usr/lib/rabbitmq/lib/rabbitmq_server-3.12.1/sbin/rabbitmq-server"
    put(real)
    put(prefix / "usr/lib/x86_64-linux-gnu/libsystemd.so.0")
    link = prefix / "usr/lib/rabbitmq/bin/rabbitmq-server"
    link.parent.mkdir(parents=True)
    link.symlink_to("../lib/rabbitmq_server-3.12.1/sbin/rabbitmq-server")
    found = installed.find_rabbitmq(no_system)
    assert found.version == (3, 12, 1)
    environment = found.environment()
    assert environment["PATH"].split(":")[:2] == [str(link.parent), str(prefix / "usr/bin")]
    assert environment["LD_LIBRARY_PATH"] == str(prefix / "usr/lib/x86_64-linux-gnu")


def test_the_newest_postgres_wins_by_number(no_system: Path) -> None:
    for version in ("9", "15", "16"):
        put(no_system / f"postgres/usr/lib/postgresql/{version}/bin/initdb")
    assert installed.find_postgres(no_system).version == (16,)


def test_the_servers_folder_follows_the_environment() -> None:
    assert installed.servers_folder({"PILOTAGE_SERVERS": "/x"}) == Path("/x")
    assert installed.servers_folder({"XDG_DATA_HOME": "/d"}) == Path("/d/pilotage/servers")
    assert installed.servers_folder({}) == Path("~/.local/share/pilotage/servers").expanduser()
