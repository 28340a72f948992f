"""``pilotage audit`` over the real wire: a server that may lie, and what is printed."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from broker.identity import create_proxy, thumbprint
from broker.signing import Signer, Verified
from producers.commands import audit as command
from producers.commands import watch
from producers.commands.context import Output, OutputOption, make_app
from producers.commands.exit_codes import ExitCode
from producers.errors import NotFoundError
from schemas.audit import GENESIS, digest, from_line
from schemas.errors import InvalidInputError
from schemas.messages.audit import (
    AuditEntry,
    AuditLinks,
    AuditPage,
    AuditSeal,
    AuditSealed,
    AuditSigner,
    AuditTrail,
    QueryAudit,
    TraceAudit,
    TrailAttempt,
    TrailPilot,
    TrailProxy,
    TrailSubmission,
    WalkAudit,
)
from schemas.messages.event import EVENTS
from schemas.registry import Message, encode, type_of
from tests.support.fake_deployment import ROOT, USER, FakeDeployment

NOW = time.time()
DASHED = "-print1" + 36 * "o"  # as long as a thumbprint, with an option's letter


class Result:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(deployment: FakeDeployment) -> Callable[..., Result]:
    def call(*words: str) -> Result:
        app: typer.Typer = command.app
        result = CliRunner().invoke(app, list(words), obj=deployment.settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


def entry(number: int, **fields: object) -> AuditEntry:
    values: dict[str, object] = {"time": NOW - 1000 + number, "event": "login", "identity": USER, "detail": "{}"}
    return AuditEntry(id=number, **(values | fields))  # type: ignore[arg-type]  # whatever the test wants


class Chain:
    """What the auditor of this deployment keeps and answers."""

    def __init__(self, deployment: FakeDeployment, service: str = "auditor") -> None:
        self.credential = deployment.services[service]
        dn = f"{ROOT}/OU=Services/CN={service}"
        self.signer = Signer(self.credential.key, thumbprint(self.credential.leaf), dn, "auditor")
        self.entries: list[AuditEntry] = []
        self.seals: list[AuditSeal] = []
        self.heads: list[AuditSealed] = []
        deployment.answer_with(WalkAudit, self.answer)

    def seal(self, count: int) -> None:
        place, head = (self.entries[-1].place, self.entries[-1].hash) if self.entries else (0, GENESIS)
        first, previous = place + 1, head
        for _ in range(count):
            place += 1
            one = entry(place, place=place)
            head = digest(place, head, one)
            self.entries.append(msgspec.structs.replace(one, hash=head))
        said = AuditSealed(first=first, last=place, previous=previous, head=head, time=NOW, epoch=1)
        payload = encode(said)
        jws = self.signer.sign(type_of(said), payload, audience=EVENTS, now=time.time(), message_id=f"seal-{place}")
        self.seals.append(AuditSeal(last=place, payload=payload, jws=jws))
        self.heads.append(said)

    def answer(self, asked: Verified[Message]) -> Sequence[Message]:
        message = asked.message
        assert isinstance(message, WalkAudit)
        last = self.seals[-1].last if self.seals else 0
        until = max(message.after, min(message.after + 3, last))
        signers = (AuditSigner(thumbprint=self.signer.thumbprint, chain=self.credential.chain_pem.decode()),)
        return [
            AuditLinks(
                entries=tuple(one for one in self.entries if message.after < one.place <= until),
                seals=tuple(one for one in self.seals if message.after < one.last <= until),
                signers=signers, until=until, last=last, unsealed=2, oldest_unsealed=NOW, time=NOW,
            )
        ]  # fmt: skip


class TestVerify:
    def test_a_good_chain(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        chain = Chain(deployment)
        chain.seal(4)
        chain.seal(5)
        deployment.happen(chain.heads[-1], 1, service="auditor")
        result = run("verify")
        assert result.code == 0
        assert "9 entries and 2 seals checked." in result.out
        assert f"whole up to 9:{chain.heads[-1].head}" in result.out
        assert "2 more entries wait" in result.out
        deployment.happen(chain.heads[0], 1, service="relay")
        document = json.loads(run("verify", "-o", "json").out)
        assert (document["ok"], document["checked"], document["witnesses"]) == (True, 9, 1)
        assert run("verify", "--no-stream", "-o", "quiet").out == f"9:{chain.heads[-1].head}\n"
        assert run("verify", "--no-stream", "--from", "6").code == 0

    def test_an_end_that_only_the_stream_knows(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        chain = Chain(deployment)
        chain.seal(4)
        chain.seal(5)
        deployment.happen(chain.heads[-1], 1, service="auditor")
        del chain.entries[4:], chain.seals[1:]
        result = run("verify")
        assert result.code == ExitCode.NO
        assert "place 5: cut off" in result.out
        assert "tampered" in result.err

    def test_heads_noted_elsewhere(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        chain = Chain(deployment)
        chain.seal(4)
        head = chain.heads[-1].head
        for good in (head, f"4:{head}", head.upper()):
            assert run("verify", "--no-stream", "--expect-head", good).code == 0
        for bad in (f"3:{head}", "0" * 64):
            assert run("verify", "--no-stream", "--expect-head", bad).code == ExitCode.NO
        with pytest.raises(InvalidInputError, match="is no head"):
            run("verify", "--expect-head", "12")

    def test_a_changed_entry(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        chain = Chain(deployment)
        chain.seal(9)
        chain.entries[6] = msgspec.structs.replace(chain.entries[6], event="log\x1b[31min")
        result = run("verify", "--no-stream")
        assert result.code == ExitCode.NO
        assert "place 7: changed: the entry 7 is not what was sealed here" in result.out
        assert "\x1b" not in result.out
        (problem,) = json.loads(run("verify", "--no-stream", "-o", "json").out)["problems"]
        assert problem["kind"] == "changed"
        assert (problem["place"], problem["entry"]) == (7, 7)

    def test_another_service_cannot_seal(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        Chain(deployment, "matcher").seal(2)
        result = run("verify", "--no-stream")
        assert result.code == ExitCode.NO
        assert "seal forged" in result.out
        assert "CN=matcher" in result.out

    def test_a_chain_that_no_authority_here_stands_behind(
        self, deployment: FakeDeployment, run: Callable[..., Result]
    ) -> None:
        chain = Chain(deployment)
        chain.credential = create_proxy(
            deployment.user.ders, deployment.user.key, lifetime=deployment.now.resolution * 60_000_000, limited=False,
            now=deployment.now,
        )  # fmt: skip
        chain.seal(2)
        assert "seal forged" in run("verify", "--no-stream").out

    def test_answers_that_lead_nowhere_end(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        deployment.answer(WalkAudit, AuditLinks(entries=(), until=0, last=10, time=NOW))
        with pytest.raises(InvalidInputError, match="do not go on"):
            run("verify", "--no-stream")

    def test_an_empty_audit(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        Chain(deployment)
        assert run("verify", "--no-stream").out.splitlines()[-1] == "Nothing is sealed there."


class TestCopies:
    def test_a_copy_is_checked_first_and_then_what_came_since(
        self, deployment: FakeDeployment, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        chain = Chain(deployment)
        chain.seal(4)
        chain.seal(5)
        one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
        assert run("export", str(one)).code == 0
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
        assert len(one.read_text().splitlines()) == 9 + 2 + 1
        with pytest.raises(FileExistsError):
            run("export", str(one))
        chain.seal(3)
        deployment.sent.clear()
        document = json.loads(run("verify", "--no-stream", "--archive", str(one), "-o", "json").out)
        assert (document["ok"], document["last"]) == (True, 12)
        assert deployment.sent[0] == WalkAudit(after=7), "only what came since is asked for"
        assert run("export", str(two), "--from", "10").code == 0
        assert from_line(two.read_text().splitlines()[1]).place == 9, "the one before goes with it"
        both = ["--archive", str(one), "--archive", str(two)]
        document = json.loads(run("verify", "--no-stream", *both, "-o", "json").out)
        assert (document["ok"], document["last"], document["seals"]) == (True, 12, 4)

    def test_a_chain_that_is_not_the_copys_is_found(
        self, deployment: FakeDeployment, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        chain = Chain(deployment)
        chain.seal(4)
        copy = tmp_path / "copy.jsonl"
        run("export", str(copy))
        del chain.entries[2:], chain.seals[:]
        chain.seal(0)
        chain.seals[-1] = msgspec.structs.replace(chain.seals[-1], last=2)
        result = run("verify", "--no-stream", "--archive", str(copy))
        assert result.code == ExitCode.NO
        assert "cut off" in result.out

    @pytest.mark.parametrize("line", range(8))
    def test_a_copy_that_was_changed_is_found(
        self, deployment: FakeDeployment, run: Callable[..., Result], tmp_path: Path, line: int
    ) -> None:
        chain = Chain(deployment)
        chain.seal(3)
        chain.seal(2)
        copy = tmp_path / "copy.jsonl"
        assert run("export", str(copy)).code == 0
        lines = copy.read_text().splitlines()
        assert len(lines) == 8
        copy.write_text("\n".join(lines[:line] + lines[line + 1 :]) + "\n")
        deployment.sent.clear()
        result = run("verify", "--no-stream", "--archive", str(copy))
        if line == 1:  # as good as a copy from place 3 on: what stands before is checked at the server
            assert deployment.sent[0] == WalkAudit(after=0)
            assert result.code == 0
        else:
            assert result.code == ExitCode.NO

    def test_what_is_no_copy_says_which_line(
        self, deployment: FakeDeployment, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        Chain(deployment).seal(2)
        copy = tmp_path / "copy.jsonl"
        run("export", str(copy))
        with copy.open("a") as file:
            file.write("{}\n")
        with pytest.raises(InvalidInputError, match="line 5: no line of an audit"):
            run("verify", "--archive", str(copy))
        copy.write_text("")
        with pytest.raises(InvalidInputError, match="nothing in it"):
            run("verify", "--archive", str(copy))


class TestList:
    def test_filters_pages_and_outputs(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        found = [entry(9, place=3, hash="ab" * 32, detail='{"group":"g","n":1}'), entry(8, identity="", client="x.1")]

        def answer(asked: Verified[Message]) -> Sequence[Message]:
            query = asked.message
            assert isinstance(query, QueryAudit)
            rows = [one for one in found if not query.before or one.id < query.before][: min(1, query.limit)]
            return [AuditPage(entries=tuple(rows), next=rows[-1].id if rows and rows[-1].id > 8 else 0)]

        deployment.answer_with(QueryAudit, answer)
        table = run("list", "--since", "1h", "--event", "login*", "--identity", USER, "--job", "5", "--text", "t")
        asked = deployment.take(QueryAudit)
        assert (asked.event, asked.identity, asked.job, asked.text) == ("login*", USER, 5, "t")
        assert abs(asked.since - (time.time() - 3600)) < 60
        assert deployment.take(QueryAudit).before == 9
        lines = table.out.splitlines()
        assert not any("…" in line for line in lines)  # no terminal: names stand in full, to be copied
        assert "group=g n=1" in lines[1]
        assert lines[2].split()[1] == "-"
        assert run("list", "-o", "quiet").out == "9\n8\n"
        assert [one["id"] for one in json.loads(run("list", "-o", "json").out)["entries"]] == [9, 8]
        parsed = [from_line(line) for line in run("list", "-o", "lines").out.splitlines()]
        assert [(one.id, one.place) for one in parsed] == [(9, 3), (8, 0)]
        assert "--before 9" in run("list", "--limit", "1").err

    def test_nothing(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        deployment.answer(QueryAudit, AuditPage(entries=()))
        assert run("list").err == "No entries.\n"

    def test_a_page_that_repeats_itself_ends(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        deployment.answer(QueryAudit, AuditPage(entries=(), next=5))
        with pytest.raises(InvalidInputError, match="do not go on"):
            run("list")


class TestTrace:
    def entries(self) -> list[AuditEntry]:
        def said(number: int, event: str, client: str, **facts: object) -> AuditEntry:
            identity = facts.pop("identity", USER)
            return entry(number, event=event, client=client, identity=identity, detail=json.dumps(facts))

        return [
            said(1, "login", "u.1", thumbprint=DASHED),
            said(2, "login", "u.2", thumbprint="print2"),
            said(3, "job.commanded", "u.2", jobs="1", command="job.kill.v1"),
            said(4, "proxy.stored", "u.1", thumbprint="proxy1"),
            said(
                5,
                "proxy.issued",
                "p.1",
                job=7,
                group="g",
                not_after=time.time() + 4000,
                serial="beef",
                thumbprint="issued1",
            ),
            said(6, "proxy.issued", "p.1", job=8, group="g", not_after=NOW - 3600, serial="cafe", thumbprint="issued2"),
            said(7, "job.commanded", "u.1", jobs="7", command="job.kill.v1"),
            said(8, "proxy.stored", "u.2", thumbprint="proxy2", parent="print2"),
            said(9, "proxy.renewed", "", thumbprint="proxy3", previous="proxy2"),
            said(10, "proxy.issued", "p.1", job=9, not_after=time.time() + 9000, thumbprint="issued3", parent="proxy3"),
            said(11, "proxy.issued", "p.1", job=9, not_after=time.time() + 9000, thumbprint="issued4", parent="proxy1"),
        ]

    @pytest.fixture(autouse=True)
    def answers(self, deployment: FakeDeployment) -> None:
        def page(asked: Verified[Message]) -> Sequence[Message]:
            query = asked.message
            assert isinstance(query, QueryAudit)
            about = query.about
            found = [one for one in self.entries() if about in {one.identity, one.client} or about in one.detail]
            return [AuditPage(entries=tuple(found[::-1]))]

        deployment.answer_with(QueryAudit, page)
        trail = AuditTrail(
            submissions=(TrailSubmission(submission=1, time=NOW - 990, client="u.1", group="g", first=7, count=2),),
            attempts=(
                TrailAttempt(client="p.1", job=7, attempt=1, owner=USER, group="g", site="S1", matched=NOW - 980),
            ),
            proxies=(TrailProxy(group="g", not_after=time.time() + 7200, stored=NOW - 990),),
            pilots=(TrailPilot(client="p.1", identity="/CN=pilot", site="S1", status="alive", last_seen=NOW),),
        )
        deployment.answer(TraceAudit, trail)

    def traced(self, run: Callable[..., Result], who: str) -> dict[str, Any]:
        result = run("trace", "-o", "json", who)
        assert result.code == 0
        found: dict[str, Any] = json.loads(result.out)
        return found

    def test_an_identity(self, deployment: FakeDeployment, run: Callable[..., Result]) -> None:
        found = self.traced(run, USER)
        whats = [step["what"] for step in found["steps"]]
        assert whats == ["login", "login", "job.commanded", "proxy.stored", "proxy.issued", "proxy.issued",
                         "job.commanded", "proxy.stored", "proxy.renewed", "proxy.issued", "job.submitted",
                         "proxy.issued"]  # fmt: skip
        assert [(one["job"], one["site"], one["serial"]) for one in found["given"][:2]] == [(7, "S1", "beef"),
                                                                                        (8, "S1", "cafe")]  # fmt: skip
        assert set(deployment.sent[-1].clients) == {"p.1"}  # type: ignore[attr-defined]  # a TraceAudit

    def test_one_proxy_and_what_was_delegated_by_it(self, run: Callable[..., Result]) -> None:
        found = self.traced(run, DASHED)
        assert found["identity"] == USER
        assert found["clients"] == ["u.1"]
        entries = [step["entry"] for step in found["steps"] if step["entry"]]
        assert entries == [1, 4, 5, 6, 7, 11], "not what the other login did"
        assert [one["first"] for one in found["trail"]["submissions"]] == [7]

    def test_what_became_of_a_delegated_proxy_is_followed(self, run: Callable[..., Result]) -> None:
        found = self.traced(run, "print2")
        assert [step["entry"] for step in found["steps"] if step["entry"]] == [2, 3, 8, 9, 10]
        assert [one["thumbprint"] for one in found["given"]] == ["issued3"]

    def test_a_pilots_own_proxy_by_serial_and_by_fingerprint(self, run: Callable[..., Result]) -> None:
        assert self.traced(run, "beef")["identity"] == USER
        digest_of = bytes(range(32))
        text = base64.urlsafe_b64encode(digest_of).rstrip(b"=").decode()
        with pytest.raises(NotFoundError, match=text):
            run("trace", ":".join(f"{byte:02X}" for byte in digest_of))

    def test_for_people(self, run: Callable[..., Result]) -> None:
        lines = run("trace", USER).out.splitlines()
        assert lines[0] == f"Identity:  {USER}"
        assert "Kept:      a proxy of group g, 2h left" in lines
        assert "Proxies of theirs that pilots got: 4, of which 3 can still be used." in lines
        assert not any("…" in line for line in lines)  # no terminal: names stand in full, to be copied
        assert [line.split()[0] for line in lines[-4:]] == ["1h", "ended", "2h", "2h"]
        assert run("trace", USER, "-o", "quiet").out == "".join(f"{number}\n" for number in range(1, 12))


def test_who_watches_is_not_shown_each_seal(deployment: FakeDeployment) -> None:
    said = AuditSealed(first=1, last=2, previous="", head="ab" * 32, time=NOW, epoch=1)
    for output, expected in (("table", ""), ("json", "audit.sealed.v1")):
        deployment.happen(said, 1, service="auditor")
        words = ["--since", "first", "--until-now", "-o", output]
        result = CliRunner().invoke(watch.app, words, obj=deployment.settings)
        assert (expected in result.stdout) if expected else not result.stdout


def test_a_thumbprint_may_begin_with_a_dash_and_hold_letters_of_options() -> None:
    thumbprint = "-Opd3xbqFn3IFPwoZRU4uDWVHwWDeD6NodOGe3hs-o8"
    told: list[tuple[str, str]] = []
    app = make_app("test", "For this test.")

    @app.command(cls=command.TakesThumbprints)
    def told_of(subject: str, output: OutputOption = Output.TABLE) -> None:
        told.append((subject, output))

    @app.command()
    def other() -> None:
        """A second command, so that names are needed."""

    for arguments in (["told-of", thumbprint, "-o", "json"], ["told-of", "-o", "json", "--", thumbprint]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert told == [(thumbprint, "json")] * 2
    assert CliRunner().invoke(app, ["told-of", "-x"]).exit_code == 2
