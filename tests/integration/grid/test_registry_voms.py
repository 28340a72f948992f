"""The registry follows a real VOMS server's database: what its tools write there is what we read."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.domain.synchronization import SourceUser
from consumers.registry import RegistryKeeper
from consumers.settings import RegistrySettings, SourceKind, SourceSettings
from consumers.sources import Sources
from consumers.store import Store, registry
from consumers.store.voms_database import SourceAwayError, read
from schemas.messages.registrar import Blocked, IdentityBlocked, RegistrySynced, SyncRegistry
from tests.support import mysql
from tests.support.grid_servers import Database, VomsServer
from tests.support.messages import admitted, chores, tell, user
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

JANE = "/DC=org/DC=example/OU=People/CN=Jane O'Doe"
JOE = "/O=Grid/CN=Joe/emailAddress=joe@example.org"


def url(socket: object, name: str, user: str = "root") -> str:
    return f"mysql+pymysql://{user}@localhost/{name}?unix_socket={socket}"


def by_dn(found: list[SourceUser]) -> dict[str, SourceUser]:
    return {user.dn: user for user in found}


def test_members_of_a_live_voms_server(voms_server: VomsServer) -> None:
    vo, database = voms_server.vo, url(voms_server.database_socket, voms_server.database_name)
    before = by_dn(read(database))
    voms_server.add_member(JANE, f"/{vo}/analysis", f"/{vo}/Role=production", nickname="jane")
    voms_server.add_member(JOE)
    found = by_dn(read(database))
    assert found.keys() - before.keys() == {JANE, JOE}
    assert (found[JANE].nickname, found[JANE].suspended) == ("jane", False)
    assert set(found[JANE].fqans) == {f"/{vo}", f"/{vo}/analysis", f"/{vo}/Role=production"}
    assert found[JOE].fqans == (f"/{vo}",)
    voms_server.remove_role(JANE, f"/{vo}/Role=production")
    voms_server.remove_member(JOE)
    found = by_dn(read(database))
    assert set(found[JANE].fqans) == {f"/{vo}", f"/{vo}/analysis"}
    assert JOE not in found
    voms_server.remove_member(JANE)
    assert by_dn(read(database)) == before


def test_voms_admins_layout_with_several_certificates(voms_database: Database) -> None:
    name = voms_database.add_vo("admin")
    mysql.execute(
        voms_database.socket,
        name,
        "ALTER TABLE ca CHANGE ca subject_string varchar(255) NOT NULL",
        "ALTER TABLE usr ADD name varchar(255), ADD surname varchar(255), ADD email_address varchar(255), "
        "ADD suspended bit(1), ADD suspension_reason varchar(255)",
        "CREATE TABLE certificate (id bigint PRIMARY KEY AUTO_INCREMENT, ca_id smallint, usr_id bigint, "
        "subject_string varchar(255), suspended bit(1) NOT NULL, suspended_reason varchar(255))",
        "UPDATE version SET version = 3",
        "INSERT INTO usr (userid, name, surname, email_address, suspended) VALUES (1, 'Jane', 'Doe', 'j@x.org', b'0')",
        "INSERT INTO usr (userid, name, surname, suspended, suspension_reason) VALUES (2, 'Joe', 'Bad', b'1', 'AUP')",
        "INSERT INTO certificate VALUES (1, 1, 1, '/O=Grid/CN=Jane 1', b'0', NULL)",
        "INSERT INTO certificate VALUES (2, 1, 1, '/O=Grid/CN=Jane 2', b'1', 'lost key')",
        "INSERT INTO certificate VALUES (3, 1, 2, '/O=Grid/CN=Joe', b'0', NULL)",
        "INSERT INTO m (userid, gid, rid) VALUES (1, 1, NULL), (2, 1, NULL)",
    )
    found = by_dn(read(url(voms_database.socket, name)))
    jane = SourceUser(dn="/O=Grid/CN=Jane 1", nickname="Jane Doe", mail="j@x.org", fqans=("/admin",))
    assert found["/O=Grid/CN=Jane 1"] == jane
    assert (found["/O=Grid/CN=Jane 2"].suspended, found["/O=Grid/CN=Jane 2"].reason) == (True, "lost key")
    assert (found["/O=Grid/CN=Joe"].suspended, found["/O=Grid/CN=Joe"].reason) == (True, "AUP")


def test_what_does_not_answer_like_voms_is_an_error(voms_database: Database, tmp_path: object) -> None:
    mysql.execute(voms_database.socket, "", "CREATE DATABASE IF NOT EXISTS no_voms")
    for wrong in (url(voms_database.socket, "no_voms"), url(voms_database.socket, "absent"), url(tmp_path, "x")):
        with pytest.raises(SourceAwayError) as caught:
            read(wrong, "secret word")
        assert "secret word" not in str(caught.value)


def test_who_leaves_the_vo_loses_his_rights(voms_server: VomsServer, tmp_path: Path) -> None:
    vo = voms_server.vo
    where = url(voms_server.database_socket, voms_server.database_name)
    sources = Sources((SourceSettings("voms", SourceKind.VOMS_DATABASE, where),))
    keeper = RegistryKeeper(RegistrySettings(sources=tuple(sources._sources.values())), sources)
    groups = {"user": {"fqan": f"/{vo}"}, "prod": {"fqan": f"/{vo}/Role=production"}}
    operator = user("olga", "Operator", group="admin")

    def synchronized(store: Store) -> list[tuple[str, str, Blocked]]:
        tell(store, keeper, [admitted(SyncRegistry(), operator)])
        wait_until(lambda: sources.ready, 30, "the database to be read")
        heard = chores(store, keeper)
        (answer,) = heard.to(operator)
        assert isinstance(answer, RegistrySynced)
        assert answer.outcomes[0].ok, answer.outcomes[0].reason
        facts = [one for one in heard.said if isinstance(one, IdentityBlocked)]
        return [(one.identity, one.group, one.how) for one in facts if one.identity in {JANE, JOE}]

    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        with store.transaction() as tx:
            registry.seed(tx, {"groups": groups})
        voms_server.add_member(JANE, f"/{vo}/Role=production", nickname="jane")
        voms_server.add_member(JOE)
        assert synchronized(store) == []
        with store.reading() as view:
            found = registry.load(view)
        assert (found.groups_of(JANE), found.groups_of(JOE)) == (("user", "prod"), ("user",))
        assert found.users[JANE].nickname == "jane"
        voms_server.remove_role(JANE, f"/{vo}/Role=production")
        voms_server.remove_member(JOE)
        assert synchronized(store) == [(JOE, "", Blocked.REMOVED), (JANE, "prod", Blocked.LEFT)]
    voms_server.remove_member(JANE)
