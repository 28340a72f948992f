"""The auditor on both databases: every entry gets its place, once, whoever commits when; and tampering is found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import sqlalchemy as sa

from consumers.auditor import BATCH_ENTRIES, LEAD_SECONDS, REMIND_SECONDS, STRAY_SECONDS, Auditor
from consumers.batch import Batch
from consumers.store import (
    NotLeader,
    Store,
    attempts,
    audit,
    audit_chain,
    leader,
    pilots,
    proxies,
    sessions,
    submissions,
)
from consumers.store.proxies import Proxy
from consumers.store.rows import AttemptRow
from schemas.audit_check import Kind
from schemas.messages.audit import AuditPage, AuditSealed, AuditTrail, QueryAudit, TraceAudit, WalkAudit
from tests.support.audits import Audits, signer_of
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, pilot, tell, user
from tests.support.pki import Pki

pytestmark = pytest.mark.integration

OLGA = user("olga", "Operator", group="vo_admin")


@pytest.fixture
def audits(store: Store, authority: Pki) -> Audits:
    return Audits.of(store, authority)


def happen(store: Store, count: int = 1, **fields: object) -> None:
    with store.transaction() as tx:
        for number in range(count):
            detail = {"group": "g"} | fields
            audit.append(tx, 1000.0 + number, "login", identity="/CN=Ada", client="ada.1", detail=detail)


def places(audits: Audits) -> list[tuple[int, int]]:
    return [(entry.place, entry.id) for entry in audits.links().entries]


# -- sealing ---------------------------------------------------------------------------------------------------------


def test_each_entry_gets_its_place_and_each_batch_its_seal(audits: Audits) -> None:
    auditor = audits.auditor()
    happen(audits.store, 3)
    (told,) = audits.seal(auditor)
    assert isinstance(told, AuditSealed)
    assert (told.first, told.last, told.epoch) == (1, 3, 1)
    happen(audits.store, 2)
    (next_told,) = audits.seal(auditor, 5)
    assert isinstance(next_told, AuditSealed)
    assert (next_told.first, next_told.last, next_told.previous) == (4, 5, told.head)
    links = audits.links()
    assert [seal.last for seal in links.seals] == [3, 5]
    assert links.entries[-1].hash == next_told.head
    walk = audits.check(heads={told.head: 3, next_told.head: 5})
    assert not walk.problems
    assert (walk.checked, walk.seals, walk.last) == (5, 2, 5)


def test_nothing_is_written_while_nothing_happens(audits: Audits) -> None:
    auditor = audits.auditor()
    happen(audits.store)
    audits.seal(auditor)
    assert audits.seal(auditor, 4) == []
    assert [one.last for one in audits.seal(auditor, REMIND_SECONDS + 1)] == [1], "a young witness is to be had"
    assert audits.seal(auditor, REMIND_SECONDS + 5) == []
    assert not audits.problems()


def test_many_entries_are_sealed_in_bounded_batches(audits: Audits) -> None:
    auditor = audits.auditor()
    happen(audits.store, BATCH_ENTRIES + 5)
    audits.seal(auditor)
    assert auditor.due_in(audits.start) == 0
    assert audits.links().unsealed == 5
    audits.seal(auditor, 0.1)
    assert auditor.due_in(audits.start + 0.1) > 0
    assert not audits.problems()
    assert audits.links().last == BATCH_ENTRIES + 5


def test_what_is_rolled_back_leaves_no_hole(audits: Audits) -> None:
    auditor = audits.auditor()
    happen(audits.store)
    with suppress(RuntimeError), audits.store.transaction() as tx:
        audit.append(tx, 1.0, "login")
        raise RuntimeError
    happen(audits.store)
    audits.seal(auditor)
    assert [place for place, _ in places(audits)] == [1, 2]
    assert not audits.problems()


def test_an_entry_that_is_committed_late_gets_a_later_place(audits: Audits) -> None:
    if audits.store.dialect == "sqlite":
        return  # one writer: what is numbered first is committed first
    auditor = audits.auditor()
    with audits.store.transaction() as late:
        audit.append(late, 1.0, "login", identity="/CN=Late")
        happen(audits.store, 3)
        audits.seal(auditor)
        assert [place for place, _ in places(audits)] == [1, 2, 3]
    audits.seal(auditor, 5)
    found = places(audits)
    assert [place for place, _ in found] == [1, 2, 3, 4]
    assert found[3][1] < found[0][1], "its number is the smallest"
    assert not audits.problems()


def test_many_writers_while_it_seals(audits: Audits) -> None:
    """Some commit late, some roll back; in the end every committed entry has one place."""
    writers, each = 4, 12
    stop = threading.Event()

    def write(number: int) -> int:
        kept = 0
        for turn in range(each):
            try:
                with audits.store.transaction() as tx:
                    audit.append(tx, 1.0, "login", client=f"{number}.{turn}")
                    if turn % 4 == 3:
                        raise ZeroDivisionError
                    if audits.store.dialect == "postgresql":
                        stop.wait(0.002 * (number % 3))
            except ZeroDivisionError:
                continue
            kept += 1
        return kept

    auditor = audits.auditor()
    with ThreadPoolExecutor(writers) as pool:
        written = [pool.submit(write, number) for number in range(writers)]
        later = 0.0
        while not all(one.done() for one in written):
            later += 1.0
            audits.seal(auditor, later)
    audits.seal(auditor, later + 5)
    total = sum(one.result() for one in written)
    assert [place for place, _ in places(audits)] == list(range(1, total + 1))
    assert len({number for _, number in places(audits)}) == total
    assert not audits.problems()


# -- who seals -------------------------------------------------------------------------------------------------------


def test_one_of_two_auditors_writes(audits: Audits) -> None:
    one, two = audits.auditor("one"), audits.auditor("two")
    happen(audits.store, 2)
    audits.seal(one)
    happen(audits.store, 2)
    assert audits.seal(two, 1) == []
    assert two.due_in(audits.start + 1) > 0
    assert [told.last for told in audits.seal(two, LEAD_SECONDS + 1)] == [4], "the first was not heard of any more"
    assert audits.links().seals[-1].payload.endswith(b'"epoch":2}')
    assert not audits.problems()


def test_an_auditor_that_was_paused_can_do_no_harm(audits: Audits) -> None:
    one, two = audits.auditor("one"), audits.auditor("two")
    happen(audits.store)
    audits.seal(one)
    audits.seal(two, LEAD_SECONDS + 1)
    happen(audits.store)
    # It wakes in the middle of its work, with the time and the epoch of before.
    one._next_renewal = audits.start + 100
    with audits.store.transaction() as tx, pytest.raises(NotLeader):
        one.chores(Batch(tx, audits.start + 3))
    one.on_rollback()
    assert audits.seal(one, LEAD_SECONDS + 2) == []
    assert [told.last for told in audits.seal(two, LEAD_SECONDS + 2)] == [2]
    assert not audits.problems()


def test_a_new_auditor_goes_on_where_the_last_one_was_killed(audits: Audits) -> None:
    happen(audits.store, 2)
    audits.seal(audits.auditor("one"))
    happen(audits.store, 2)
    killed = audits.auditor("one")
    with suppress(RuntimeError), audits.store.transaction() as tx:
        killed.chores(Batch(tx, audits.start + 4))
        raise RuntimeError("killed before the commit")
    audits.seal(audits.auditor("one"), 5)
    assert [place for place, _ in places(audits)] == [1, 2, 3, 4]
    assert not audits.problems()


def test_seals_of_an_older_certificate_stay_good(audits: Audits) -> None:
    happen(audits.store)
    audits.seal(audits.auditor("one"))
    happen(audits.store)
    renewed = audits.auditor("two", signer_of(audits.pki))
    audits.seal(renewed, LEAD_SECONDS + 1)
    assert len(audits.links().signers) == 2
    assert not audits.problems()


def test_seals_of_somebody_else_do_not_count(audits: Audits) -> None:
    happen(audits.store)
    stranger = signer_of(audits.pki, "/DC=org/DC=example/CN=somebody", "auditor")
    audits.seal(audits.auditor("one", stranger))
    (problem,) = audits.problems()
    assert problem.kind is Kind.SEAL_FORGED
    assert "/DC=org/DC=example/CN=somebody" in problem.text


# -- tampering -------------------------------------------------------------------------------------------------------


@contextmanager
def intruder(store: Store, place: str) -> Iterator[sa.Connection]:
    """A connection of his own to the same database."""
    engine = sa.create_engine(place)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def url_of(store: Store) -> str:
    return str(store._writer.url.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    ("statement", "kind", "place"),
    [
        ("UPDATE audit SET detail = '{}' WHERE id = 4", Kind.CHANGED, 4),
        ("UPDATE audit SET identity = '/CN=Eve' WHERE id = 4", Kind.CHANGED, 4),
        ("UPDATE audit SET time = time + 1 WHERE id = 4", Kind.CHANGED, 4),
        ("DELETE FROM audit WHERE id = 4", Kind.REMOVED, 4),
        ("DELETE FROM audit_links WHERE place = 4", Kind.REMOVED, 4),
        ("DELETE FROM audit WHERE id >= 8", Kind.REMOVED, 8),
        ("UPDATE audit_links SET hash = '00' WHERE place = 4", Kind.CHANGED, 4),
        ("UPDATE audit_links SET entry = 9 - entry WHERE place IN (4, 5)", Kind.REORDERED, 4),
        ("INSERT INTO audit_links (place, entry, hash) VALUES (10, 1, '00')", Kind.INSERTED, 10),
        ("DELETE FROM audit_seals WHERE last = 6", Kind.SEAL_REMOVED, 4),
        ("UPDATE audit_seals SET payload = replace(payload, '\"last\":6', '\"last\":7')", Kind.SEAL_FORGED, 6),
        ("UPDATE audit_seals SET jws = '' WHERE last = 6", Kind.SEAL_FORGED, 6),
        ("DELETE FROM audit_signers", Kind.SEAL_FORGED, 3),
    ],
)
def test_tampering_by_sql_is_found(audits: Audits, statement: str, kind: Kind, place: int) -> None:
    auditor = audits.auditor()
    for number in range(3):
        happen(audits.store, 3, kind=str(number))
        audits.seal(auditor, 4.0 * number)
    assert not audits.problems()
    with intruder(audits.store, url_of(audits.store)) as connection:
        connection.exec_driver_sql(statement)
    found = audits.problems()
    assert (found[0].kind, found[0].place) == (kind, place), found
    happen(audits.store)
    audits.seal(auditor, 20)
    assert audits.problems()[0].place == place, "it does not heal"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET detail = x'ff00ff' WHERE id = 4",
        "UPDATE audit SET time = 'soon' WHERE id = 4",
        "UPDATE audit SET time = 9e999 WHERE id = 4",
        "UPDATE audit SET event = x'' WHERE id = 4",
        "UPDATE audit_links SET entry = 'x' WHERE place = 4",
        "UPDATE audit_links SET place = 'x' WHERE place = 4",
        "UPDATE audit_links SET place = 4.5 WHERE place = 4",
        "UPDATE audit_links SET hash = x'ff' WHERE place = 4",
        "UPDATE audit_seals SET payload = x'ff' WHERE last = 6",
        "UPDATE audit_seals SET jws = x'ff' WHERE last = 6",
        "UPDATE audit_signers SET ders = 'x'",
        "UPDATE audit_seals SET payload = x'ff' WHERE last = 9",
        "INSERT INTO audit_seals VALUES ('x', '', '{}', '')",
        "INSERT INTO audit_unsealed VALUES ('x', 1.0)",
    ],
)
def test_what_fits_no_column_is_found_as_well(audits: Audits, statement: str) -> None:
    """SQLite keeps whatever it is given."""
    auditor = audits.auditor()
    for number in range(3):
        happen(audits.store, 3)
        audits.seal(auditor, 4.0 * number)
    if audits.store.dialect == "postgresql":
        return  # refuses it
    with intruder(audits.store, url_of(audits.store)) as connection:
        connection.exec_driver_sql(statement)
    harmless = "audit_seals VALUES" in statement  # no place, so no seal
    assert harmless or "unsealed" in statement or audits.problems()
    happen(audits.store)
    audits.seal(auditor, 20.0)
    assert audits.links().last == 10, "the sealing goes on"
    assert harmless != bool(audits.problems(later=3600.0))


def test_the_end_cut_off_is_known_to_whoever_noted_a_head(audits: Audits) -> None:
    auditor = audits.auditor()
    heads = []
    for number in range(3):
        happen(audits.store, 3)
        heads += [told.head for told in audits.seal(auditor, 4.0 * number)]
    with intruder(audits.store, url_of(audits.store)) as connection:
        for condition in ("audit WHERE id > 6", "audit_links WHERE place > 6", "audit_seals WHERE last > 6"):
            connection.execute(sa.text(f"DELETE FROM {condition}"))
    assert not audits.problems(), "nothing in the database tells of it"
    assert [one.kind for one in audits.problems(heads={heads[-1]: 9})] == [Kind.CUT_OFF]
    # The auditor itself remembers: it goes on behind what was there, and says so.
    happen(audits.store)
    audits.seal(auditor, 20)
    (first, *_) = audits.problems()
    assert (first.kind, first.place) == (Kind.REMOVED, 7)
    with audits.store.reading() as tx:
        assert audit.query(tx, event="audit.tail-changed")


def test_an_entry_taken_away_before_it_was_sealed_is_told_of(audits: Audits) -> None:
    auditor = audits.auditor()
    happen(audits.store, 3)
    with intruder(audits.store, url_of(audits.store)) as connection:
        connection.execute(sa.text("DELETE FROM audit WHERE id = 2"))
    audits.seal(auditor)
    audits.seal(auditor, 4)
    with audits.store.reading() as tx:
        (told,) = audit.query(tx, event="audit.entry-missing")
    assert b'"entries":[2]' in told.detail
    assert not audits.problems()


def test_an_entry_past_all_of_us_gets_its_place_and_a_word(audits: Audits) -> None:
    """An older release wrote it, or somebody by SQL."""
    auditor = audits.auditor()
    happen(audits.store)
    audits.seal(auditor)
    with intruder(audits.store, url_of(audits.store)) as connection:
        text = "INSERT INTO audit (time, event, identity, client, detail) VALUES (5, 'login', '', '', '{}')"
        connection.execute(sa.text(text))
    audits.seal(auditor, 4)
    assert len(places(audits)) == 1
    for later in (STRAY_SECONDS + 1, STRAY_SECONDS + 5):
        audits.seal(auditor, later)
    assert [entry.event for entry in audits.links().entries] == ["login", "login", "audit.strays"]
    assert not audits.problems()


def test_an_entry_that_nobody_seals_is_told_of(audits: Audits) -> None:
    happen(audits.store)
    links = audits.links()
    assert (links.unsealed, links.oldest_unsealed) == (1, 1000.0)
    assert [one.kind for one in audits.problems()] == [Kind.UNSEALED]


# -- questions -------------------------------------------------------------------------------------------------------


def ask(audits: Audits, question: QueryAudit | WalkAudit | TraceAudit) -> object:
    (answer,) = tell(audits.store, audits.auditor(), [admitted(question, OLGA)]).said
    return answer


def page(audits: Audits, **fields: object) -> AuditPage:
    answer = ask(audits, QueryAudit(**fields))  # type: ignore[arg-type]  # as the test wants it
    assert isinstance(answer, AuditPage)
    return answer


def test_questions(audits: Audits) -> None:
    with audits.store.transaction() as tx:
        for number in range(1, 11):
            detail = {"job": number, "group": "50%_off" if number == 3 else "Plain"}
            who, name = ("/CN=Ada", "proxy.refused") if number % 2 else ("/CN=Bob", "proxy.issued")
            audit.append(tx, 100.0 * number, name, identity=who, client=f"c.{number}", detail=detail)
        audit.append(tx, 5000.0, "job.commanded", detail={"command": "job.kill.v1", "jobs": "3-5,9"})
    audits.seal(audits.auditor())

    def ids(**fields: object) -> list[int]:
        return [entry.id for entry in page(audits, **fields).entries]

    assert ids() == list(range(11, 0, -1))
    assert ids(limit=3) == [11, 10, 9]
    assert ids(limit=3, before=9) == [8, 7, 6]
    assert ids(since=300.0, until=600.0) == [5, 4, 3]
    assert ids(event="proxy.refused") == [9, 7, 5, 3, 1]
    assert ids(event="proxy.*", limit=2) == [10, 9]
    assert ids(identity="/CN=Bob", since=700.0) == [10, 8]
    assert ids(client="c.7") == [7]
    assert ids(text="%_OFF") == [3]
    assert ids(text="plain", until=350.0) == [2, 1]
    assert ids(job=4) == [11, 4]
    assert ids(job=9) == [11, 9]
    assert ids(job=6) == [6]
    assert ids(job=99) == []
    first = page(audits).entries[-1]
    assert (first.place, first.event, first.identity, first.time) == (1, "proxy.refused", "/CN=Ada", 100.0)
    assert len(first.hash) == 64


def test_a_question_looks_through_a_bounded_part_and_says_where_to_go_on(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit.page, "__kwdefaults__", {**(audit.page.__kwdefaults__ or {}), "scan": 4})
    happen(audits.store, 10)
    answer = page(audits, identity="/CN=Nobody")
    assert (answer.entries, answer.next) == ((), 7)
    assert page(audits, identity="/CN=Nobody", before=3).next == 0
    assert page(audits, before=1).next == 0


def test_a_page_is_bounded_in_bytes(audits: Audits) -> None:
    with audits.store.transaction() as tx:
        for _ in range(20):
            audit.append(tx, 1.0, "login", identity="x" * 200_000)
    answer = page(audits)
    assert 1 <= len(answer.entries) < 20
    assert answer.next == answer.entries[-1].id
    auditor = audits.auditor()
    audits.seal(auditor)
    assert 1 <= audits.links().until < 20
    assert not audits.problems(page=500)


def test_the_chain_ends_where_nothing_is_yet(audits: Audits) -> None:
    assert audits.links(after=7).until == 7
    assert not audits.problems()
    with audits.store.reading() as tx:
        assert audit_chain.newest_seal(tx) is None
    assert isinstance(audits.auditor(), Auditor)
    with audits.store.transaction() as tx:
        assert leader.acquire_or_renew(tx, "auditor", "x", 1.0, 1.0) == 1


def test_rights_to_insert_and_read_are_enough(audits: Audits) -> None:
    """What the how-to says to take away is not needed."""
    if audits.store.dialect == "sqlite":
        return  # knows no accounts
    kept = ("audit", "audit_links", "audit_seals", "audit_signers")
    url = sa.make_url(url_of(audits.store))
    role = f"lesser_{url.database}"
    with intruder(audits.store, url_of(audits.store)) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        connection.exec_driver_sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        connection.exec_driver_sql(f"REVOKE UPDATE, DELETE, TRUNCATE ON {', '.join(kept)} FROM {role}")
    try:
        sa.event.listen(
            audits.store._writer, "begin", lambda connection: connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        )
        auditor = audits.auditor()
        for later in (0.0, 5.0, STRAY_SECONDS + 6):
            happen(audits.store, 2)
            audits.seal(auditor, later)
        assert audits.links().last == 6
        assert not audits.problems()
    finally:
        audits.store._writer.dispose()
        with intruder(audits.store, url_of(audits.store)) as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


# -- what a credential did -------------------------------------------------------------------------------------------


def test_entries_about_somebody(audits: Audits) -> None:
    ada, quoted = user("ada"), '/CN=A "q" Ö'
    with audits.store.transaction() as tx:
        audit.append(tx, 1.0, "login", identity=ada.identity, client=ada.cli, detail={"thumbprint": "T1"})
        audit.append(tx, 2.0, "login", identity="/CN=Bob", client="bob.1")
        audit.append(tx, 3.0, "login.denied", client=ada.cli, detail={"reason": "clock"})
        audit.append(
            tx, 4.0, "repository.deleted", identity="/CN=Olga", client="olga.1", detail={"owner": ada.identity}
        )
        audit.append(tx, 5.0, "repository.deleted", identity="/CN=Olga", detail={"owner": quoted})

    def ids(about: str) -> list[int]:
        return [entry.id for entry in page(audits, about=about).entries]

    assert ids(ada.identity) == [4, 3, 1]
    assert ids(ada.cli) == [3, 1]
    assert ids("T1") == [1]
    assert ids(quoted) == [5]
    assert ids("/CN=%") == []


def test_what_other_tables_know_of_somebody(audits: Audits) -> None:
    ada, bob, runner = user("ada"), user("bob"), pilot()
    store = audits.store
    put_job(store, 5, ada)
    with store.transaction() as tx:
        sessions.put(tx, ada.cli, ada.identity, "vo_user", "T1", "user", 10.0)
        sessions.put(tx, runner.cli, runner.identity, "vo_pilot", "T2", "pilot", 11.0)
        pilots.seen(tx, runner.cli, runner.identity, 11.0)
        for owner, key in ((ada, "a"), (bob, "b")):
            new = submissions.NewSubmission(
                owner=owner.identity, grp="vo_user", key=key, digest="", count=2, descriptions=b"[]", files=b"[]",
                client=owner.cli, created=20.0, expanded=2,
            )  # fmt: skip
            submissions.create(tx, [new])
        row = AttemptRow(job=5, attempt=1, pilot=runner.cli, site="S1", matched=30.0)
        attempts.insert(tx, [row])
        proxies.put(tx, Proxy(ada.identity, "vo_user", "chain", b"key", 99.0, 15.0))

    def trail(who: Sender, **fields: object) -> AuditTrail:
        answer = ask(audits, TraceAudit(identity=who.identity, **fields))  # type: ignore[arg-type]  # as given
        assert isinstance(answer, AuditTrail)
        return answer

    of_ada = trail(ada, clients=(runner.cli,))
    assert [(one.client, one.thumbprint) for one in of_ada.sessions] == [(ada.cli, "T1")]
    assert [(one.client, one.count) for one in of_ada.submissions] == [(ada.cli, 2)]
    assert [(one.job, one.owner, one.site) for one in of_ada.attempts] == [(5, ada.identity, "S1")]
    assert [(one.group, one.not_after) for one in of_ada.proxies] == [("vo_user", 99.0)]
    assert [(one.client, one.identity) for one in of_ada.pilots] == [(runner.cli, runner.identity)]
    assert not of_ada.more
    assert not trail(ada, since=21.0).submissions
    assert not trail(ada, until=20.0).submissions
    assert not trail(ada, clients=(runner.cli,), since=31.0).attempts
    of_pilot = trail(runner)
    assert [one.job for one in of_pilot.attempts] == [5]
    assert not of_pilot.submissions
    assert trail(user("nobody")) == AuditTrail()
