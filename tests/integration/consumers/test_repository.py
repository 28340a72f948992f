"""The proxy repository at rest: what a thief finds, rotation of master keys, what operators see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from broker.authorization import Property
from broker.identity import Credential, create_proxy, key_pem, load_private_key, new_key
from consumers.delegating import PENDING_SECONDS
from consumers.directory import Directory
from consumers.proxy_manager import ProxyManager
from consumers.repository import REENCRYPT_AT_ONCE
from consumers.store import Store, audit, jobs, proxies, proxy_care, submission_proxies, submissions
from consumers.store.proxies import Delegation, Proxy
from consumers.store.proxy_care import Care
from consumers.store.submission_proxies import SubmissionProxy
from consumers.store.submissions import NewSubmission
from consumers.vault import Vault, VaultError
from schemas.job import JobStatus
from schemas.messages.proxies import (
    DeleteProxies,
    MasterKey,
    ProxyExpiring,
    QueryRepository,
    ReencryptRepository,
    RepositoryDeleted,
    RepositoryListing,
    RepositoryReencrypted,
)
from schemas.messages.service import Refused
from schemas.registry import Message
from tests.support import pki
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, tell, user

pytestmark = pytest.mark.integration

OLGA = user("olga", Property.OPERATOR, group="vo_admin")
ADA, REAL = user("ada"), Sender(pki.USER_DN)
OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


@pytest.fixture
def keys() -> list[bytes]:
    return [OLD]


@pytest.fixture
def vault(keys: list[bytes]) -> Vault:
    return Vault(keys, load=lambda: list(keys))


@pytest.fixture
def manager(directory: Directory, vault: Vault) -> ProxyManager:
    return ProxyManager(directory, vault)


def ask(store: Store, manager: ProxyManager, message: Message) -> Message:
    (answer,) = tell(store, manager, [admitted(message, OLGA)]).said
    return answer


def stored(store: Store, vault: Vault, authority: pki.Pki, sender: Sender = ADA, *, hours: float = 1.0) -> Credential:
    """One stored proxy; returns it with its key."""
    now = time.time()
    proxy = create_proxy(authority.user.ders, authority.user.key, lifetime=pki.HOUR * hours, limited=False, now=pki.NOW)
    sealed = vault.encrypt(key_pem(proxy.key), proxies.place_of(sender.identity, sender.group))
    chain = proxy.chain_pem.decode()
    with store.transaction() as tx:
        proxies.put(tx, Proxy(sender.identity, sender.group, chain, sealed, now + hours * 3600, now))
    return proxy


def secrets_of(store: Store) -> list[bytes]:
    with store.reading() as tx:
        return [one.token for one in proxy_care.sealed(tx)]


def listing(store: Store, manager: ProxyManager, **wanted: object) -> RepositoryListing:
    answer = ask(store, manager, QueryRepository(**wanted))  # type: ignore[arg-type]  # any field
    assert isinstance(answer, RepositoryListing)
    return answer


# -- a thief ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[Store, Path]]:
    """SQLite: the files are looked at."""
    with Store.open(f"sqlite:///{tmp_path}/stolen/store.db") as opened:
        yield opened, tmp_path / "stolen"


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_stolen_database_holds_no_private_key(database: tuple[Store, Path], vault: Vault, authority: pki.Pki) -> None:
    store, folder = database
    credential = stored(store, vault, authority)
    pending, own = new_key(), new_key()
    with store.transaction() as tx:
        sealed = vault.encrypt(key_pem(pending), "delegation\nd")
        proxies.begin(tx, Delegation("d", "/CN=a", "vo_user", sealed, 1.0, 2e9))
        sealed = vault.encrypt(key_pem(own), submission_proxies.place_of("s"))
        submission_proxies.put(tx, SubmissionProxy("s", "/CN=a", "vo_user", "chain", sealed, 2e9, 1.0))
    content = everything(folder)
    assert credential.ders[0].hex().encode() not in content  # a chain is public anyway, and kept as PEM
    assert b"PRIVATE" not in content
    for key in (credential.key, pending, own):
        pem = key_pem(key)
        assert not any(line in content for line in pem.splitlines()[1:-1])
        numbers = key.private_numbers()
        value = numbers.private_value if hasattr(numbers, "private_value") else numbers.d
        assert value.to_bytes(32, "big") not in content
    assert OLD not in content
    thief = Vault([NEW])
    with store.reading() as tx:
        for one in proxy_care.sealed(tx):
            with pytest.raises(VaultError):
                thief.decrypt(one.token, one.place)
            assert load_private_key(vault.decrypt(one.token, one.place))


def test_a_row_that_was_put_into_anothers_place_is_of_no_use(store: Store, vault: Vault, authority: pki.Pki) -> None:
    """Who can write into the database cannot make the service act with one user's proxy for another."""
    stored(store, vault, authority)
    with store.reading() as tx:
        (row,) = proxies.get(tx, [(ADA.identity, ADA.group)]).values()
    with pytest.raises(VaultError):
        vault.decrypt(row.key, proxies.place_of(user("bob").identity, ADA.group))


def test_deleted_keys_are_gone_from_the_file(
    database: tuple[Store, Path], vault: Vault, authority: pki.Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.store.sqlite.ERASE_SECONDS", 0.0)
    store, folder = database
    for number in range(40):
        stored(store, vault, authority, user(f"u{number}"))
    stored(store, vault, authority, user("replaced"), hours=0.5)
    tokens = secrets_of(store)
    assert len(tokens) == 41
    content = everything(folder)
    assert all(token in content for token in tokens)
    stored(store, vault, authority, user("replaced"), hours=0.9)
    kept = set(secrets_of(store)) - set(tokens)
    assert len(kept) == 1
    with store.transaction() as tx:
        for number in range(40):
            assert proxies.delete(tx, user(f"u{number}").identity) == 1
    content = everything(folder)
    assert not any(token in content for token in tokens)
    assert all(token in content for token in kept)


# -- rotation ---------------------------------------------------------------------------------------------------------


def test_rotation_while_the_service_runs(
    store: Store, manager: ProxyManager, vault: Vault, keys: list[bytes], authority: pki.Pki
) -> None:
    credential = stored(store, vault, authority)
    stored(store, vault, authority, user("bob"))
    with store.transaction() as tx:
        sealed = vault.encrypt(b"key", "delegation\nd")
        proxies.begin(tx, Delegation("d", "/CN=a", "vo_user", sealed, 1.0, 2e9))
        first_release = Fernet(OLD).encrypt(b"key")
        submission_proxies.put(tx, SubmissionProxy("s", "/CN=a", "vo_user", "chain", first_release, 2e9, 1.0))
    (old,) = vault.key_ids
    assert listing(store, manager).keys == (
        MasterKey(id=old, rows=3, at_hand=True, newest=True),
        MasterKey(id="", rows=1, at_hand=False, newest=False),
    )
    keys.insert(0, NEW)
    answer = ask(store, manager, ReencryptRepository())
    assert isinstance(answer, RepositoryReencrypted)
    new = vault.key_ids[0]
    assert (answer.done, answer.unreadable, answer.left) == (4, 0, 0)
    assert answer.keys == (
        MasterKey(id=new, rows=4, at_hand=True, newest=True),
        MasterKey(id=old, rows=0, at_hand=True, newest=False),
    )
    only_new = Vault([NEW])
    with store.reading() as tx:
        texts = [only_new.decrypt(one.token, one.place) for one in proxy_care.sealed(tx)]
        assert [row.event for row in audit.query(tx)] == ["repository.reencrypted"]
    assert key_pem(credential.key) in texts
    again = ask(store, manager, ReencryptRepository())
    assert isinstance(again, RepositoryReencrypted)
    assert again.done == 0


def test_what_cannot_be_read_is_counted_and_left(
    store: Store, manager: ProxyManager, vault: Vault, keys: list[bytes], authority: pki.Pki
) -> None:
    stored(store, Vault([Fernet.generate_key()]), authority)
    stored(store, vault, authority, user("bob"))
    before = secrets_of(store)
    keys.insert(0, NEW)
    answer = ask(store, manager, ReencryptRepository())
    assert isinstance(answer, RepositoryReencrypted)
    assert (answer.done, answer.unreadable, answer.left) == (1, 1, 0)
    assert len(set(before) & set(secrets_of(store))) == 1
    assert [(key.rows, key.at_hand) for key in answer.keys] == [(1, True), (0, True), (1, False)]


def test_many_are_encrypted_in_goes(
    store: Store, manager: ProxyManager, vault: Vault, keys: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REENCRYPT_AT_ONCE > 100
    monkeypatch.setattr("consumers.repository.REENCRYPT_AT_ONCE", 2)
    with store.transaction() as tx:
        for number in range(5):
            place = proxies.place_of(f"/CN={number}", "g")
            proxies.put(tx, Proxy(f"/CN={number}", "g", "chain", vault.encrypt(b"k", place), 2e9, 1.0))
    keys.insert(0, NEW)
    left: list[int] = []
    while not left or left[-1]:
        answer = ask(store, manager, ReencryptRepository())
        assert isinstance(answer, RepositoryReencrypted)
        left.append(answer.left)
    assert left == [3, 1, 0]


def test_no_rotation_with_broken_key_files(
    store: Store, manager: ProxyManager, vault: Vault, keys: list[bytes], authority: pki.Pki
) -> None:
    stored(store, vault, authority)
    before = secrets_of(store)
    keys.insert(0, b"broken")
    answer = ask(store, manager, ReencryptRepository())
    assert isinstance(answer, Refused)
    assert "no Fernet key" in answer.reason
    assert "broken" not in answer.reason
    assert secrets_of(store) == before


# -- operators --------------------------------------------------------------------------------------------------------


def test_the_listing_shows_whose_and_how_long_but_no_key(
    store: Store, manager: ProxyManager, vault: Vault, authority: pki.Pki
) -> None:
    credential = stored(store, vault, authority)
    stored(store, vault, authority, user("bob"))
    put_job(store, 1, ADA)
    put_job(store, 2, ADA, status=JobStatus.DONE)
    found = listing(store, manager)
    assert [(one.owner, one.jobs, one.submission) for one in found.proxies] == [
        (ADA.identity, 1, 0),
        (user("bob").identity, 0, 0),
    ]
    assert found.proxies[0].key == vault.key_ids[0]
    assert not found.more
    assert not found.renews
    assert credential.chain_pem.splitlines()[1].decode() not in repr(found)
    assert [one.owner for one in listing(store, manager, owner=ADA.identity).proxies] == [ADA.identity]
    page = listing(store, manager, limit=1)
    assert page.more
    assert [one.owner for one in listing(store, manager, limit=1, offset=1).proxies] == [user("bob").identity]
    assert listing(store, manager, limit=0).proxies == ()


def test_an_operator_takes_proxies_away(store: Store, manager: ProxyManager, vault: Vault, authority: pki.Pki) -> None:
    stored(store, vault, authority)
    stored(store, vault, authority, user("bob"))
    answer = ask(store, manager, DeleteProxies(owner=ADA.identity, group="other"))
    assert answer == RepositoryDeleted(count=0)
    answer = ask(store, manager, DeleteProxies(owner=ADA.identity, reason="stolen"))
    assert answer == RepositoryDeleted(count=1)
    with store.reading() as tx:
        assert proxies.until(tx, ADA.identity, ADA.group) is None
        assert proxies.until(tx, user("bob").identity, ADA.group) is not None
        assert audit.query(tx)[0].event == "repository.deleted"
        assert b"stolen" in audit.query(tx)[0].detail


# -- kept only while it is needed -------------------------------------------------------------------------------------


def test_an_accounts_proxy_goes_some_time_after_its_last_job(
    store: Store, directory: Directory, vault: Vault, authority: pki.Pki
) -> None:
    stored(store, vault, authority, hours=10)
    put_job(store, 1, ADA)
    manager, now = ProxyManager(directory, vault), time.time()

    def is_kept(after: float) -> bool:
        chores(store, manager, now + after)
        with store.reading() as tx:
            return proxies.until(tx, ADA.identity, ADA.group) is not None

    assert is_kept(0)
    assert is_kept(3600)
    with store.transaction() as tx:
        jobs.update_many(tx, {1: {"status": JobStatus.DONE}})
    assert is_kept(3700)
    assert is_kept(3700 + 1790)
    put_job(store, 2, ADA)  # another one came in time
    assert is_kept(3700 + 1795 + 30)
    with store.transaction() as tx:
        jobs.update_many(tx, {2: {"status": JobStatus.KILLED}})
    assert is_kept(6000)
    assert not is_kept(6000 + 1801)
    assert secrets_of(store) == []
    with store.reading() as reading:
        assert audit.query(reading)[0].event == "proxy.forgotten"
        assert proxy_care.load(reading) == {}


def test_a_submission_that_is_still_being_written_keeps_the_proxy(store: Store) -> None:
    account = (ADA.identity, ADA.group)
    with store.transaction() as tx:
        assert proxies.active(tx, [account]) == set()
        new = NewSubmission(*account, "", "d", 10, b"[]", b"[]", "c", 1.0, 0)
        (row,) = submissions.create(tx, [new])
        assert proxies.active(tx, [account]) == {account}
        submissions.mark_expanded(tx, {row.id: 10})
        assert proxies.active(tx, [account]) == set()


def test_pending_requests_and_unbound_proxies_end(store: Store, manager: ProxyManager, vault: Vault) -> None:
    now = time.time()
    with store.transaction() as tx:
        proxies.begin(tx, Delegation("d", "/CN=a", "g", b"k", now, now + 10))
        submission_proxies.put(tx, SubmissionProxy("s", "/CN=a", "g", "chain", b"k", now + 86_400, now))
    chores(store, manager, now + 20)
    assert len(secrets_of(store)) == 1
    chores(store, manager, now + PENDING_SECONDS + 60)
    assert secrets_of(store) == []


# -- warnings ---------------------------------------------------------------------------------------------------------


def warnings_at(store: Store, directory: Directory, vault: Vault, now: float) -> list[ProxyExpiring]:
    """What a service that was just started warns of."""
    heard = chores(store, ProxyManager(directory, vault), now)
    return [one for one in heard.said if isinstance(one, ProxyExpiring)]


def test_owners_are_warned_twice_of_each_proxy_that_jobs_need(
    store: Store, directory: Directory, vault: Vault, authority: pki.Pki
) -> None:
    stored(store, vault, authority, hours=10)
    stored(store, vault, authority, user("bob"), hours=10)
    put_job(store, 1, ADA)
    put_job(store, 2, ADA)
    end = end_of(store)
    told = [(left, warnings_at(store, directory, vault, end - left)) for left in (7300, 7100, 7000, 1900, 1700, 1600)]
    assert [(left, one.seconds, one.owner, one.jobs) for left, found in told for one in found] == [
        (7100, 7200.0, ADA.identity, 2),
        (1700, 1800.0, ADA.identity, 2),
    ]
    assert not any(one.renewable for _, found in told for one in found)
    stored(store, vault, authority, hours=11)
    assert len(warnings_at(store, directory, vault, end_of(store) - 7000)) == 1, "of the next one anew"


def end_of(store: Store) -> float:
    with store.reading() as tx:
        end = proxies.until(tx, ADA.identity, ADA.group)
    assert end is not None
    return end


def test_owners_are_warned_of_a_submissions_own_proxy(store: Store, directory: Directory, vault: Vault) -> None:
    now = time.time()
    with store.transaction() as tx:
        new = NewSubmission(ADA.identity, ADA.group, "", "d", 1, b"[]", b"[]", "c", 1.0, 1)
        (row,) = submissions.create(tx, [new])
        own = SubmissionProxy("s", ADA.identity, ADA.group, "chain", b"k", now + 72 * 3600, now, row.id)
        submission_proxies.put(tx, own)
    put_job(store, row.first, ADA, submission=row.id)
    assert warnings_at(store, directory, vault, now + 60) == []
    (first,) = warnings_at(store, directory, vault, now + 71 * 3600)
    assert (first.submission, first.jobs, first.renewable, first.seconds) == (row.id, 1, False, 7200.0)
    assert warnings_at(store, directory, vault, now + 71 * 3600 + 60) == []
    assert len(warnings_at(store, directory, vault, now + 71.9 * 3600)) == 1


def test_one_process_at_a_time_renews_an_account(store: Store) -> None:
    care = Care(ADA.identity, ADA.group)
    with store.transaction() as tx:
        assert proxy_care.claim(tx, care, 100.0, 200.0)
        assert not proxy_care.claim(tx, care, 150.0, 250.0)
        assert proxy_care.claim(tx, care, 201.0, 300.0), "who took it has died"
        other = Care(user("bob").identity, ADA.group, failures=3, trouble="why")
        proxy_care.put(tx, [other])
        assert proxy_care.claim(tx, other, 100.0, 200.0)
        assert proxy_care.load(tx)[user("bob").identity, ADA.group].failures == 3
