"""The load: pilots that ask for jobs, several in one process, each with a session and an identity of its own.

A requester does what a pilot's session does with a match request and nothing else: it signs each request, publishes it
with a confirm, verifies each answer (signature, chain, sender's right) and acknowledges it. It runs nothing and reports
nothing. Without a rate it asks again as soon as it was answered; with one it keeps to a timetable, and times count from
the moment that was due, so that a slow answer is not hidden by asking later.

The process reads one :class:`Run` per line from stdin and answers each with one line, :class:`Seen`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from broker.connection import Endpoint
from broker.identity import load_credential, make_csr, new_key
from broker.session import Session, SessionSettings
from schemas.messages.pilot import HeldProxy, Offer, RequestMatch
from schemas.messages.service import MatchResponse

ANSWER_SECONDS = 60.0
"""A first request waits for the matcher to start."""

NEAR = 1e-3
"""Seconds: a wait that short is not worth a sleep."""


class Where(msgspec.Struct):
    """How a process reaches the deployment, and who its requesters are."""

    port: int
    ca: str
    broker: str
    trust: str
    gatekeeper: str
    credentials: list[str]
    offers: str
    owners: list[tuple[str, str]]


class Run(msgspec.Struct):
    """One measurement: how long, how many jobs per request, requests per second of each requester (0: no pause).

    Attributes:
        matches: end when the process has got so many.
        csrs: certificate requests in place of proxies that the pilot still holds.
        slots: requests of each requester under way at a time, one for each of its pilot's slots; without a rate only.
    """

    seconds: float
    jobs: int = 1
    rate: float = 0.0
    matches: int = 1 << 60
    csrs: int = 0
    slots: int = 1


class Seen(msgspec.Struct):
    """What the requesters of one process saw."""

    seconds: float = 0.0
    requests: int = 0
    matches: int = 0
    empty: int = 0
    proxies: int = 0
    times: list[float] = []
    first: float = 0.0


@dataclass
class Requester:
    """One pilot."""

    session: Session
    offers: Sequence[Offer]
    owners: Sequence[tuple[str, str]]
    csrs: tuple[bytes, ...] = ()
    asked: int = 0
    seen: Seen = field(default_factory=Seen)
    under_way: dict[str, float] = field(default_factory=dict)

    def work(self, run: Run, begun: float, total: list[int]) -> None:
        """Ask until the time is over."""
        seen = self.seen = Seen()
        due = begun
        while True:
            now = time.monotonic()
            if now - begun >= run.seconds or total[0] >= run.matches:
                break
            if run.rate:
                if due - now > NEAR:
                    time.sleep(due - now)
                start, due = due, due + 1 / run.rate
            else:
                start = now
            self.under_way[self._ask(run)] = start
            if len(self.under_way) >= run.slots:
                total[0] += self._hear()
        while self.under_way:
            total[0] += self._hear()
        seen.seconds = time.monotonic() - begun

    def _ask(self, run: Run) -> str:
        """Send a request; its message id."""
        session, offer = self.session, self.offers[self.asked % len(self.offers)]
        slot = str(self.asked % run.slots)
        self.asked += 1
        until = session.now() + 40_000.0
        held = () if run.csrs else tuple(HeldProxy(owner=o, group=g, not_after=until) for o, g in self.owners)
        request = RequestMatch(slot=slot, offer=offer, jobs=run.jobs, holds=held, csrs=self.csrs[: run.csrs])
        letter = session.letter(request)
        session.post([letter])
        return letter.message_id

    def _hear(self) -> int:
        """Wait until a request or more are answered; the jobs that came."""
        seen, before = self.seen, self.seen.matches
        deadline = time.monotonic() + ANSWER_SECONDS
        many = len(self.under_way)
        while len(self.under_way) == many:
            if time.monotonic() > deadline:
                raise RuntimeError("a match request was not answered")
            for incoming in self.session.receive(16, deadline - time.monotonic()):
                self.session.ack([incoming])
                start = self.under_way.pop(incoming.verified.header.cid or "", None)
                if start is None or not isinstance(incoming.message, MatchResponse):
                    seen.proxies += 1
                    continue
                matches = incoming.message.matches
                if matches and not seen.first:
                    seen.first = time.time()
                seen.requests += 1
                seen.times.append(time.monotonic() - start)
                seen.matches += len(matches)
                seen.empty += not matches
        return seen.matches - before


def main() -> int:
    """Serve measurements until stdin ends."""
    where = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Where)
    settings = SessionSettings(
        Endpoint("localhost", where.port, Path(where.ca)), where.broker, Path(where.trust), where.gatekeeper
    )
    offers = msgspec.json.decode(Path(where.offers).read_bytes(), type=list[Offer])
    share = len(offers) // len(where.credentials)
    csrs = tuple(make_csr(new_key()) for _ in range(8))
    requesters = []
    for number, path in enumerate(where.credentials):
        session = Session(settings, load_credential(Path(path)), name=f"requester-{number}")
        session.open()
        requesters.append(Requester(session, offers[number * share :][:share], where.owners, csrs))
    _say(b"{}")
    for line in sys.stdin.buffer:
        _say(msgspec.json.encode(_run(requesters, msgspec.json.decode(line, type=Run))))
    for one in requesters:
        one.session.close()
    return 0


def _run(requesters: Sequence[Requester], run: Run) -> Seen:
    total, begun = [0], time.monotonic()
    gap = 1 / run.rate / len(requesters) if run.rate else 0.0
    threads = [
        threading.Thread(target=one.work, args=(run, begun + number * gap, total))
        for number, one in enumerate(requesters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [one.seen for one in requesters]
    return Seen(
        max(one.seconds for one in seen),
        sum(one.requests for one in seen),
        sum(one.matches for one in seen),
        sum(one.empty for one in seen),
        sum(one.proxies for one in seen),
        [seconds for one in seen for seconds in one.times],
        min((one.first for one in seen if one.first), default=0.0),
    )


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


class Requesters:
    """A process of requesters, from outside."""

    def __init__(self, where: Where, folder: Path, number: int) -> None:
        path = folder / f"requesters-{number}.json"
        path.write_bytes(msgspec.json.encode(where))
        command = [sys.executable, "-m", "tests.benchmarks.requesters", str(path)]
        self._log = (folder / f"requesters-{number}.log").open("w+b")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env={**os.environ}
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def start(self, run: Run) -> None:
        """Let it begin."""
        if self._process.stdin is None:
            raise RuntimeError("no way to talk to the requesters")
        self._process.stdin.write(msgspec.json.encode(run) + b"\n")
        self._process.stdin.flush()

    def result(self) -> Seen:
        """What it saw, when it has ended."""
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the requesters have ended: {self._log.read()[-2000:].decode(errors='replace')}")
        return msgspec.json.decode(line, type=Seen)

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


if __name__ == "__main__":
    sys.exit(main())
