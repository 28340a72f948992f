"""A pilot's agent without broker and processes: its real session speaks the real wire to a fake deployment.

Payloads are figures that the test ends; work directories, signatures, certificate requests and proxies are real.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import pytest

from broker.connection import Wakeup
from broker.identity import Credential, sign_csr
from broker.session import Session, SessionSettings
from broker.transport import Endpoint
from pilot.agent import Agent
from pilot.attempts import Attempts
from pilot.limits import Limits, Sample
from pilot.node import NodeMeasure
from pilot.payload import Outcome, PayloadSpec, Usage
from pilot.post import Post
from pilot.proxies import Proxies
from pilot.runner import PayloadRunner
from pilot.running import ExitCallback, Payload
from pilot.settings import PilotSettings
from pilot.shares import Ledger
from pilot.stagehand import Stagehand
from pilot.watchdog import Watchdog
from pilot.workdir import WorkArea
from schemas.job import JobStatus
from schemas.messages.common import InputFile, SandboxFile
from schemas.messages.pilot import Report, ReportJobs, RequestMatch
from schemas.messages.service import Match, MatchResponse, ProxyIssued
from schemas.registry import Message

from .fake_deployment import ROOT, FakeDeployment, install
from .messages import description

SITE = "S1"
ADA, BOB = f"{ROOT}/CN=ada", f"{ROOT}/CN=bob"
USED = Usage(cpu_seconds=1.5, wall_seconds=2.0, memory_mb=10.0, memory_peak_mb=20.0, disk_mb=1.0, processes=1)
NODE = NodeMeasure("node", "x86_64-test", "Linux", "6", "glibc", "cpu", 8, 16_000, 100_000, None)


class FakePayload:
    """Runs until the test ends it."""

    def __init__(self, spec: PayloadSpec, on_exit: ExitCallback, started: float) -> None:
        self.spec = spec
        self.started = started
        self.pid = 1
        self.outcome: Outcome | None = None
        self.stopped = ""
        self._on_exit = on_exit

    def stop(self, reason: str, grace: float) -> None:
        if self.outcome is None:
            self.stopped = self.stopped or reason

    def end(self, exit_code: int | None = 0, reason: str | None = None) -> None:
        """It ends, by itself or because it was told to."""
        assert self.outcome is None, "it ended twice"
        self.outcome = Outcome(exit_code, None if exit_code is not None else 15, reason, USED)
        self._on_exit(cast("Payload", self), self.outcome)

    def obey(self) -> None:
        """It ends because it was stopped."""
        assert self.stopped, "nobody stopped it"
        self.end(None, self.stopped)


class FakeRunner:
    """Starts figures."""

    def __init__(self) -> None:
        self.started: list[FakePayload] = []

    def now(self) -> float:
        return 0.0

    def start(self, spec: PayloadSpec, on_exit: ExitCallback) -> FakePayload:
        assert spec.proxy is not None
        assert spec.proxy.exists(), "a payload without proxy"
        payload = FakePayload(spec, on_exit, 0.0)
        self.started.append(payload)
        return payload


class FakeWatchdog:
    """Remembers the limits."""

    def __init__(self) -> None:
        self.limits: dict[str, Limits] = {}

    def watch(self, payload: FakePayload, limits: Limits) -> None:
        self.limits[payload.spec.job_id] = limits

    set_limits = watch

    def latest(self, payload: FakePayload) -> Sample:
        return Sample(cpu_seconds=3.0)


class ShiftedSession:
    """The session as the pilot sees it, some time later; on the wire it stays now."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shift = 0.0
        self.acked = 0

    def now(self) -> float:
        return self.session.now() + self.shift

    def ack(self, incomings: Sequence[object]) -> None:
        self.acked += len(incomings)

    def __getattr__(self, name: str) -> object:
        return getattr(self.session, name)


@dataclass(frozen=True)
class Asked:
    """A match request as it came."""

    id: str
    request: RequestMatch


class Desk:
    """A pilot and the services that it talks to.

    Attributes:
        asked: match requests so far.
        runner: payloads so far.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
        (folder / "deployment").mkdir()
        self.deployment = FakeDeployment(folder / "deployment")
        self.deployment.properties = ("GenericPilot",)
        self.asked: list[Asked] = []
        self._owners: dict[str, Credential] = {}
        self.deployment.answer_with(RequestMatch, self._note)
        install(self.deployment, monkeypatch)
        told = SessionSettings(
            endpoint=Endpoint("localhost", 5671, folder / "deployment" / "ca.pem"),
            broker="test",
            trust_dir=folder / "deployment" / "ca",
            gatekeeper=self.deployment.settings.broker.gatekeeper,
        )
        options = {"slots": 2, "idle_seconds": 0.0, **settings}
        mine = PilotSettings(told, folder / "pilot.pem", SITE, folder / "work", **options)  # type: ignore[arg-type]
        self.wakeup = Wakeup()
        self.session = ShiftedSession(Session(told, self.deployment.proxy, name="pilot", wakeup=self.wakeup))
        self.session.session.open()
        self.area = WorkArea(folder / "work", "test").__enter__()
        self.runner, self.watchdog = FakeRunner(), FakeWatchdog()
        session = cast("Session", self.session)
        self.post, self.proxies = Post(session), Proxies()
        processors = mine.slots or 1
        hands = Stagehand(
            self.area,
            cast("PayloadRunner", self.runner),
            cast("Watchdog", self.watchdog),
            site=SITE,
            stores=mine.stores,
            cpu_power=10.0,
            processors=processors,
        )
        ledger = Ledger(processors, mine.memory_mb or 2000.0, mine.gpus or ())
        self.attempts = Attempts(hands, self.post, self.proxies, ledger, self.wakeup, self.session.now)
        self.agent = Agent(mine, NODE, ledger, session, self.wakeup, self.attempts, self.post, self.proxies)

    def _note(self, verified: object) -> Sequence[Message]:
        self.asked.append(Asked(verified.header.jti, verified.message))  # type: ignore[attr-defined]
        return ()

    def close(self) -> None:
        self.attempts.close()
        self.area.__exit__(None, None, None)

    # -- time and turns -----------------------------------------------------------------------------------------

    def turn(self, after: float = 0.0) -> None:
        """Some time later the agent looks up; two turns, so that whatever one turn posts is sent."""
        self.session.shift += after
        self.agent.turn()
        self.post.flush(time.monotonic() + 10)

    # -- what services say --------------------------------------------------------------------------------------

    def say(self, message: Message, correlation: str = "") -> None:
        """A service says it and the pilot takes it in."""
        self.deployment.say(message, correlation)
        self.turn()

    def match(
        self,
        job: int,
        attempt: int = 1,
        *,
        owner: str = ADA,
        csr: int = 0,
        run_lease: float = 60.0,
        accept: float = 20.0,
        files: Sequence[SandboxFile] = (),
        data: Sequence[InputFile] = (),
        **fields: object,
    ) -> Match:
        """One match."""
        return Match(
            job=job,
            attempt=attempt,
            owner=owner,
            group="vo_user",
            lease_until=self.session.now() + accept,
            run_lease=run_lease,
            description=msgspec.Raw(description(**fields)),
            files=tuple(files),
            data=tuple(data),
            csr=csr,
        )

    def give(self, *matches: Match, to: Asked | None = None) -> Asked:
        """Answer the newest match request, or an older one."""
        if not self.asked:
            self.turn()
        asked = to or self.asked[-1]
        self.say(MatchResponse(slot=asked.request.slot, matches=matches), asked.id)
        return asked

    def issue(self, asked: Asked, place: int = 0, owner: str = ADA, *, seconds: float = 7200.0) -> None:
        """Issue the proxy of an owner for one of the request's certificate requests."""
        csr = asked.request.csrs[place]
        if owner not in self._owners:
            self._owners[owner] = self.deployment.authority.issue(owner)
        his = self._owners[owner]
        now = dt.datetime.now(dt.UTC)
        pem = sign_csr(csr, his.ders, his.key, lifetime=dt.timedelta(hours=2), limited=True, now=now)
        self.say(
            ProxyIssued(
                owner=owner,
                group="vo_user",
                csr_sha256=hashlib.sha256(csr).hexdigest(),
                chain=pem.decode(),
                not_after=self.session.now() + seconds,
            )
        )

    def refuse(self, asked: Asked, place: int = 0, owner: str = ADA, reason: str = "it ended") -> None:
        """Refuse it."""
        digest = hashlib.sha256(asked.request.csrs[place]).hexdigest()
        self.say(ProxyIssued(owner=owner, group="vo_user", csr_sha256=digest, reason=reason))

    def run(self, job: int, **how: object) -> FakePayload:
        """Bring one job as far as its payload."""
        asked = self.give(self.match(job, **how))  # type: ignore[arg-type]
        self.issue(asked)
        return self.payload(job)

    def payload(self, job: int) -> FakePayload:
        """The payload of a job, which was started exactly once."""
        [payload] = [one for one in self.runner.started if one.spec.job_id == str(job)]
        return payload

    # -- what the pilot said ------------------------------------------------------------------------------------

    def take(self, kind: type[Message]) -> list[Message]:
        """All messages of a kind that were sent since the last look."""
        found = [message for message in self.deployment.sent if isinstance(message, kind)]
        kept = [message for message in self.deployment.sent if not isinstance(message, kind)]
        self.deployment.sent.clear()
        self.deployment.sent.extend(kept)
        return found

    def reports(self, job: int) -> list[Report]:
        """Reports about a job since the last look (those about others are dropped)."""
        return [
            report
            for message in self.take(ReportJobs)
            if isinstance(message, ReportJobs)
            for report in message.reports
            if report.job == job
        ]

    def last_word(self, job: int) -> Report:
        """The one final report about a job."""
        final = [one for one in self.reports(job) if one.status not in {JobStatus.RUNNING, JobStatus.COMPLETING}]
        assert len(final) == 1, final
        return final[0]

    def directories(self) -> list[str]:
        """Work directories that there are."""
        return sorted(path.name for path in self.area.path.iterdir() if path.is_dir())
