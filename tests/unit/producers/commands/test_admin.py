"""The commands on the registry over the real wire: what they send, what they print, how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import typer
from typer.testing import CliRunner

from broker.signing import Verified
from producers.commands import admin, site
from producers.commands.exit_codes import ExitCode
from producers.errors import NotFoundError, ServiceRefusedError
from schemas.access import Effect, Measure
from schemas.entries import (
    AnyEntry,
    ComputingEntry,
    ComputingQueue,
    GroupEntry,
    LimitEntry,
    MatchLimitEntry,
    MemberEntry,
    RuleEntry,
    ServiceEntry,
    SiteEntry,
    StorageEntry,
    UserEntry,
)
from schemas.errors import InvalidInputError
from schemas.messages.enrolment import EnrolmentListing, RevokeEnrolments
from schemas.messages.registrar import (
    ChangeRegistry,
    Difference,
    HistoryLine,
    ListedEntry,
    Operation,
    QueryRegistry,
    QueryRegistryHistory,
    RegistryApplied,
    RegistryListing,
    RegistryPast,
    RegistrySynced,
    SourceOutcome,
    SyncRegistry,
)
from schemas.messages.service import RefusalDetail, Refused
from schemas.registry import Message
from tests.support.fake_deployment import FakeDeployment

JANE = "/CN=Jane"
EVIL = "S\x1b[2Jite"


class Result:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Result]


@pytest.fixture
def run(deployment: FakeDeployment) -> Run:
    def call(app: typer.Typer, *words: str) -> Result:
        result = CliRunner().invoke(app, list(words), obj=deployment.settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


def know(deployment: FakeDeployment, *entries: AnyEntry, sources: tuple[str, ...] = ("seed",)) -> None:
    """The registry knows these."""

    def answer(asked: Verified[Message]) -> Sequence[Message]:
        query = asked.message
        assert isinstance(query, QueryRegistry)
        found = [
            ListedEntry(entry=entry, sources=sources, groups=("g1", "g2") if entry.key[0] == "user" else ())
            for entry in entries
            if entry.key[0] == query.kind
            and (not query.names or {entry.key[1], getattr(entry, "nickname", "")} & set(query.names))
        ]
        return [RegistryListing(entries=tuple(found), version=3)]

    deployment.answer_with(QueryRegistry, answer)


def accept(deployment: FakeDeployment, *differences: Difference, notes: tuple[str, ...] = ()) -> None:
    """Every change is made, and this becomes different."""
    deployment.answer(ChangeRegistry, RegistryApplied(version=4, differences=differences, notes=notes))


def sent(deployment: FakeDeployment) -> ChangeRegistry:
    """The change that was sent."""
    (message,) = [one for one in deployment.sent if isinstance(one, ChangeRegistry)]
    deployment.sent.clear()
    return message


CHANGES: list[tuple[list[str], Operation, list[AnyEntry]]] = [
    (["user", "add", "/CN=New", "--nickname", "new", "-g", "a", "-g", "b"], Operation.ADD,
     [UserEntry(dn="/CN=New", nickname="new", mail=""), MemberEntry(dn="/CN=New", group="a"),
      MemberEntry(dn="/CN=New", group="b")]),
    (["user", "set", "jane", "--mail", "j@x.org"], Operation.SET, [UserEntry(dn=JANE, mail="j@x.org")]),
    (["user", "suspend", "jane"], Operation.SET, [UserEntry(dn=JANE, suspended=True)]),
    (["user", "allow", JANE], Operation.SET, [UserEntry(dn=JANE, suspended=False)]),
    (["user", "remove", "jane"], Operation.REMOVE, [UserEntry(dn=JANE)]),
    (["user", "reset", "jane"], Operation.RESET, [UserEntry(dn=JANE)]),
    (["user", "join", "jane", "a", "b"], Operation.ADD,
     [MemberEntry(dn=JANE, group="a"), MemberEntry(dn=JANE, group="b")]),
    (["user", "leave", "jane", "a"], Operation.REMOVE, [MemberEntry(dn=JANE, group="a")]),
    (["user", "share", "jane", "a", "2.5"], Operation.SET, [MemberEntry(dn=JANE, group="a", share=2.5)]),
    (["group", "add", "g", "--fqan", "/vo", "-p", "NormalUser", "--share", "2"], Operation.ADD,
     [GroupEntry(name="g", fqan="/vo", properties=("NormalUser",), share=2.0)]),
    (["group", "set", "g", "--background"], Operation.SET, [GroupEntry(name="g", background=True)]),
    (["group", "set", "g", "--voms-required"], Operation.SET, [GroupEntry(name="g", voms_required=True)]),
    (["group", "remove", "g"], Operation.REMOVE, [GroupEntry(name="g")]),
    (["group", "reset", "g"], Operation.RESET, [GroupEntry(name="g")]),
    (["service", "add", "relay", "/CN=r2", "--sends", "x.v1"], Operation.ADD,
     [ServiceEntry(dn="/CN=r2", name="relay", sends=("x.v1",))]),
    (["service", "remove", "/CN=r2"], Operation.REMOVE, [ServiceEntry(dn="/CN=r2")]),
    (["site", "ban", "S1", "S2"], Operation.SET,
     [SiteEntry(name="S1", usable=False), SiteEntry(name="S2", usable=False)]),
    (["site", "allow", "S1"], Operation.SET, [SiteEntry(name="S1", usable=True)]),
    (["site", "add", "S1"], Operation.ADD, [SiteEntry(name="S1")]),
    (["site", "remove", "S1"], Operation.REMOVE, [SiteEntry(name="S1")]),
    (["se", "add", "SE", "-s", "S1"], Operation.ADD, [StorageEntry(name="SE", sites=("S1",))]),
    (["se", "set", "SE"], Operation.SET, [StorageEntry(name="SE", sites=())]),
    (["se", "remove", "SE"], Operation.REMOVE, [StorageEntry(name="SE")]),
    (["ce", "add", "CE", "-s", "S1", "-t", "slurm", "--queue", "long wall_seconds=60 tags=a,b"], Operation.ADD,
     [ComputingEntry(name="CE", site="S1", type="slurm", address="",
                     queues=(ComputingQueue(name="long", wall_seconds=60, tags=("a", "b")),))]),
    (["ce", "set", "CE", "--address", "x"], Operation.SET, [ComputingEntry(name="CE", address="x")]),
    (["ce", "remove", "CE"], Operation.REMOVE, [ComputingEntry(name="CE")]),
    (["rule", "deny", "r", "group:g", "job.submit.v1"], Operation.ADD,
     [RuleEntry(name="r", effect=Effect.DENY, who="group:g", what="job.submit.v1", site="*", reason="why")]),
    (["rule", "allow", "r", "*", "events.read"], Operation.ADD,
     [RuleEntry(name="r", effect=Effect.ALLOW, who="*", what="events.read", site="*", reason="why")]),
    (["rule", "remove", "r"], Operation.REMOVE, [RuleEntry(name="r")]),
    (["limit", "set", "*", "active-jobs", "7"], Operation.ADD,
     [LimitEntry(who="*", measure=Measure.ACTIVE_JOBS, value=7)]),
    (["limit", "set", "group:g", "active-jobs", "8"], Operation.SET,
     [LimitEntry(who="group:g", measure=Measure.ACTIVE_JOBS, value=8)]),
    (["limit", "remove", "*", "active-jobs"], Operation.REMOVE, [LimitEntry(who="*", measure=Measure.ACTIVE_JOBS)]),
    (["match-limit", "set", "job-type=MC", "site=S1", "--running", "9"], Operation.ADD,
     [MatchLimitEntry(scope="site=S1,job-type=MC", running=9, reason="why")]),
    (["match-limit", "set", "group=g,job-type=*", "--delay", "2.5"], Operation.ADD,
     [MatchLimitEntry(scope="job-type=*,group=g", delay_seconds=2.5, reason="why")]),
    (["match-limit", "set", "site=*", "--running", "0"], Operation.SET,
     [MatchLimitEntry(scope="site=*", running=0, reason="why")]),
    (["match-limit", "set", "owner=/CN=Doe, Jane", "--running", "1"], Operation.ADD,
     [MatchLimitEntry(scope="owner=/CN=Doe\\, Jane", running=1, reason="why")]),
    (["match-limit", "remove", "site=*"], Operation.REMOVE, [MatchLimitEntry(scope="site=*")]),
    (["block", "user", "jane"], Operation.SET, [UserEntry(dn=JANE, suspended=True)]),
    (["block", "site", "S1"], Operation.SET, [SiteEntry(name="S1", usable=False)]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "operation", "entries"), CHANGES, ids=[" ".join(case[0][:2]) for case in CHANGES])
def test_each_command_sends_its_change(
    deployment: FakeDeployment, run: Run, words: list[str], operation: Operation, entries: list[AnyEntry]
) -> None:
    know(
        deployment,
        UserEntry(dn=JANE, nickname="jane"),
        LimitEntry(who="group:g", measure=Measure.ACTIVE_JOBS, value=1),
        MatchLimitEntry(scope="site=*", running=1),
    )
    accept(deployment)
    assert run(admin.app, *words, "--reason", "why", "--dry-run").code == 0
    message = sent(deployment)
    assert [change.operation for change in message.changes] == [operation] * len(entries)
    assert [change.entry for change in message.changes] == entries
    assert (message.reason, message.dry_run, message.force) == ("why", True, False)
    assert run(admin.app, *words).code == ExitCode.USAGE  # no change without a reason
    assert not [one for one in deployment.sent if isinstance(one, ChangeRegistry)]


def test_what_became_different_is_printed_harmlessly(deployment: FakeDeployment, run: Run) -> None:
    accept(
        deployment,
        Difference(after=SiteEntry(name=EVIL, usable=True, reason="")),
        Difference(before=GroupEntry(name="g", share=1.0), after=GroupEntry(name="g", share=5.0)),
        Difference(before=UserEntry(dn=JANE, nickname="jane", suspended=False)),
        notes=("still suspended by sync:vo",),
    )
    result = run(site.app, "add", "S", "-r", "why")
    assert result.out.splitlines() == [
        "+ site S\N{REPLACEMENT CHARACTER}[2Jite usable=yes", "~ group g  share: 1 → 5", "- user /CN=Jane nickname=jane"
    ]  # fmt: skip
    assert "note: still suspended by sync:vo" in result.err
    assert run(site.app, "add", "S", "-r", "why", "-o", "quiet").out.splitlines() == [
        "S\N{REPLACEMENT CHARACTER}[2Jite", "g", JANE
    ]  # fmt: skip
    assert json.loads(run(site.app, "add", "S", "-r", "why", "-o", "json").out)["version"] == 4


def test_all_errors_are_shown(deployment: FakeDeployment, run: Run) -> None:
    errors = (RefusalDetail(message="site S: no"), RefusalDetail(message="site T: no"))
    deployment.answer(ChangeRegistry, Refused(code="invalid", reason="2 errors", errors=errors))
    result = run(site.app, "ban", "S", "T", "-r", "why")
    assert (result.code, result.err.splitlines()) == (ExitCode.USAGE, ["error: site S: no", "error: site T: no"])
    deployment.answer(ChangeRegistry, Refused(code="conflict", reason="no operator would be left"))
    with pytest.raises(ServiceRefusedError, match="no operator would be left"):
        run(admin.app, "group", "remove", "g", "-r", "why")


def test_lists_and_single_entries(deployment: FakeDeployment, run: Run) -> None:
    know(
        deployment, UserEntry(dn=JANE, nickname="jane", suspended=False), SiteEntry(name=EVIL, usable=False, reason="x")
    )
    assert run(admin.app, "user", "list").out.splitlines()[1].split() == ["jane", JANE, "g1,g2", "no", "seed"]
    assert "\x1b" not in run(site.app, "list").out
    assert run(site.app, "list", "-o", "quiet").out == "S\N{REPLACEMENT CHARACTER}[2Jite\n"
    line = HistoryLine(id=5, time=1.0, source="operator", actor="/CN=op", reason="why", after=UserEntry(dn=JANE))
    deployment.answer(QueryRegistryHistory, RegistryPast(lines=(line,)))
    shown = run(admin.app, "user", "show", "jane").out
    assert "groups:     g1,g2" in shown
    assert "/CN=op  why" in shown
    assert json.loads(run(admin.app, "user", "show", "jane", "-o", "json").out)["entry"]["dn"] == JANE
    with pytest.raises(NotFoundError, match="no user 'joe'"):
        run(admin.app, "user", "show", "joe")
    for app in ("group", "service", "se", "ce", "rule", "limit", "match-limit"):
        assert "There are none." in run(admin.app, app, "list").err


def test_a_nickname_of_two_is_nobodys(deployment: FakeDeployment, run: Run) -> None:
    know(deployment, UserEntry(dn="/CN=a", nickname="jane"), UserEntry(dn="/CN=b", nickname="jane"))
    with pytest.raises(InvalidInputError, match="more than one user"):
        run(admin.app, "user", "suspend", "jane", "-r", "why")


def test_history(deployment: FakeDeployment, run: Run) -> None:
    lines = tuple(
        HistoryLine(id=number, time=1.0, source="sync:vo", actor="/CN=op", before=UserEntry(dn=JANE))
        for number in (9, 8)
    )
    deployment.answer(QueryRegistryHistory, RegistryPast(lines=lines))
    shown = run(admin.app, "history", "--kind", "user", "--name", JANE).out.splitlines()
    assert shown[0].split()[-2:] == ["/CN=op", "(sync:vo)"]
    assert shown[1].strip() == "- user /CN=Jane"
    assert run(admin.app, "history", "-o", "quiet").out == "9\n8\n"
    assert len(json.loads(run(admin.app, "history", "-o", "json").out)) == 2
    with pytest.raises(InvalidInputError, match="no kind 'users'"):
        run(admin.app, "history", "--kind", "users")


def test_sync(deployment: FakeDeployment, run: Run) -> None:
    difference = Difference(after=UserEntry(dn=JANE, nickname="jane"))
    good = SourceOutcome(source="vo", ok=True, users=1, differences=(difference,), notes=("x is no DN",))
    deployment.answer(SyncRegistry, RegistrySynced(outcomes=(good,), version=5, dry_run=True))
    result = run(admin.app, "sync", "vo", "--dry-run")
    assert (result.code, result.out.splitlines()) == (0, ["vo: 1 users", "+ user /CN=Jane nickname=jane"])
    assert "note: x is no DN" in result.err
    assert run(admin.app, "sync", "-o", "quiet").out == f"{JANE}\n"
    bad = SourceOutcome(source="vo", ok=False, reason="HTTP 503")
    deployment.answer(SyncRegistry, RegistrySynced(outcomes=(good, bad), version=5))
    result = run(admin.app, "sync")
    assert result.code == ExitCode.NO
    assert "error: vo: HTTP 503" in result.err


def test_a_pilot_is_blocked_wherever_it_is_known(deployment: FakeDeployment, run: Run) -> None:
    know(deployment, UserEntry(dn="/CN=pilot-1", nickname="p1"))
    accept(deployment)
    deployment.answer(RevokeEnrolments, EnrolmentListing(enrolments=()))
    with pytest.raises(NotFoundError, match="neither in the registry nor enrolled: abc"):
        run(admin.app, "block", "pilot", "p1", "abc", "-r", "stolen")
    revoked = [one for one in deployment.sent if isinstance(one, RevokeEnrolments)]
    assert [(one.whom, one.reason) for one in revoked] == [(("abc",), "stolen")]
    assert sent(deployment).changes[0].entry == UserEntry(dn="/CN=pilot-1", suspended=True)


@pytest.mark.parametrize(
    "text", ["", "wall_seconds=3", "long nonsense", "long wall=3", "long processors=many", "long name=x"]
)
def test_a_queue_that_is_none_is_refused(run: Run, text: str) -> None:
    with pytest.raises(InvalidInputError, match="queue"):
        run(admin.app, "ce", "add", "CE", "-s", "S", "-t", "slurm", "--queue", text, "-r", "why")


def test_a_measure_that_is_none_is_refused(run: Run) -> None:
    with pytest.raises(InvalidInputError, match="active-jobs"):
        run(admin.app, "limit", "remove", "*", "jobs", "-r", "why")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["site"], "needs a value"),
        (["sites=A"], "cannot be limited"),
        (["site=A", "ce=B", "group=g"], "one or two"),
        (["site=A,ce=B,group=g"], "one or two"),
        (["site=A", "site=B"], "twice"),
    ],
)
def test_a_scope_that_is_none_is_refused(run: Run, words: list[str], wrong: str) -> None:
    with pytest.raises(InvalidInputError, match=wrong):
        run(admin.app, "match-limit", "set", *words, "--running", "1", "-r", "why")


def test_a_match_limit_limits_something(run: Run) -> None:
    with pytest.raises(InvalidInputError, match="--running N, --delay SECONDS"):
        run(admin.app, "match-limit", "set", "site=A", "-r", "why")
