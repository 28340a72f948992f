"""The pilot agent: asks for work, accepts it, runs it, tells what happened, obeys, and ends in order.

One thread decides; it wakes for messages, for ended payloads (told by the runner's thread) and for its own times. Long
copies run in a small pool. Promises: no payload runs beyond its lease (server time as learned, never behind); a kill is
obeyed within two seconds; a stale or abandoned attempt is stopped and not told of; every attempt's work directory is
wiped whatever happened. Lies elsewhere: one attempt's steps (:mod:`pilot.attempts`), running (:mod:`pilot.runner`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import structlog

from broker.connection import Wakeup
from broker.session import Incoming, Session
from schemas.job import JobStatus
from schemas.messages.common import JobRef
from schemas.messages.enrolment import PilotEnrolled
from schemas.messages.pilot import AcceptJobs, ControlDone, Goodbye, Gpu, Heartbeat, Offer, PayloadBeat, RequestMatch
from schemas.messages.service import (
    ChainUnknown,
    ControlJobs,
    LeasesRenewed,
    MatchResponse,
    Order,
    ProxyIssued,
    Refused,
    SandboxChunk,
    SandboxStored,
)

from .attempts import Attempts
from .demand import Demand
from .kernel import steady_now
from .node import NodeMeasure
from .post import Post
from .proxies import Proxies, Slot
from .renewal import Renewal
from .settings import PilotSettings
from .shares import Free, Ledger
from .task import Key, Task
from .workdir import free_disk_mb

REMEMBERED = 10_000
"""Message ids and tombstones kept: far more than can be redelivered or overtaken within their lifetimes."""

PARK_SECONDS = 300.0
"""How long a match request may be parked."""

ANSWER_SECONDS = 30.0
"""After its parking time a request without an answer is asked again after so long."""

MAX_CSRS = 4
"""Certificate requests with a match request: more new owners than that in one answer wait for the next one."""

REASK_SECONDS = 0.2
"""A parked request is replaced by one that asks for more, or for less, no more often than this."""

LONGEST_SLEEP = 0.5

log = structlog.get_logger(__name__)


class Agent:
    """One pilot at work.

    Args:
        settings: what it was told.
        measure: what it found.
        ledger: what it has to give to payloads.
        session: an opened session of its identity.
        wakeup: the one that the session sets.
        attempts: runs attempts.
        post: what it has to say.
        proxies: keys and proxies.
        renewal: keeps its own certificate young, if it was enrolled.
    """

    def __init__(
        self,
        settings: PilotSettings,
        measure: NodeMeasure,
        ledger: Ledger,
        session: Session,
        wakeup: Wakeup,
        attempts: Attempts,
        post: Post,
        proxies: Proxies,
        renewal: Renewal | None = None,
    ) -> None:
        self._settings = settings
        self._measure = measure
        self._session = session
        self._wakeup = wakeup
        self._attempts = attempts
        self._post = post
        self._proxies = proxies
        self._renewal = renewal
        self._ledger = ledger
        self._processors = ledger.processors
        self._demand = Demand(self._processors)
        self._started = steady_now()
        self._asked: tuple[str, int, float] | None = None
        self._last_beat = float("-inf")
        self._last_work = steady_now()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._tombstones: OrderedDict[Key, str] = OrderedDict()
        self._welcome = session.welcome
        self._leaving = False
        self.reasons: tuple[str, ...] = ()

    def run(self, stop: threading.Event) -> str:
        """Work until told to stop or until there is nothing to do; returns why it ended."""
        why = ""
        while not why:
            if stop.is_set():
                why = "told to stop"
                break
            self.turn()
            why = self._why_end()
            if not why:
                self._wakeup.wait(self._sleep())
        self._leave(why)
        return why

    # -- one turn -----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Take in what came, take every attempt as far as it goes, say what is to be said."""
        incomings = self._session.receive(256, 0.0)
        while incomings:
            for incoming in incomings:
                self._on_message(incoming)
            self._session.ack(incomings)
            incomings = self._session.receive(256, 0.0)
        if self._session.welcome is not self._welcome:
            self._welcome = self._session.welcome
            self._asked = None  # a new login: what was asked may be lost
        now = self._session.now()
        for seconds in self._attempts.advance(now):
            self._demand.ended(seconds)
        if len(self._attempts):
            self._last_work = steady_now()
        if self._renewal is not None:
            self._renewal.turn(now)
        self._beat(now)
        self._ask(now)
        self._post.flush(time.monotonic(), gather=len(self._attempts) > 0)

    def _sleep(self) -> float:
        to_send, to_beat = self._post.due_in(time.monotonic()), self._next_beat() - self._session.now()
        return max(0.0, min(LONGEST_SLEEP, to_beat, to_send, self._attempts.due_in()))

    def _why_end(self) -> str:
        if len(self._attempts):
            return ""
        left = self._wall_left()
        if left is not None and left <= 0:
            return "the slot ends"  # even with something unsaid: leaving tries for a while
        idle = steady_now() - self._last_work
        if self._settings.idle_seconds and idle > self._settings.idle_seconds and not len(self._post):
            return f"nothing to do for {idle:.0f} s"
        return ""

    # -- messages -----------------------------------------------------------------------------------------------

    def _is_news(self, message_id: str) -> bool:
        if message_id in self._seen:
            return False
        self._seen[message_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _on_message(self, incoming: Incoming) -> None:
        if not self._is_news(incoming.verified.header.jti):
            return
        match incoming.message:
            case MatchResponse() as response:
                self._on_match(response, incoming.verified.header.cid)
            case LeasesRenewed() as renewed:
                self._on_leases(renewed)
            case ControlJobs(orders=orders):
                for order in orders:
                    self._on_order(order)
            case ProxyIssued() as issued:
                self._on_proxy(issued)
            case PilotEnrolled() as enrolled if self._renewal is not None:
                self._renewal.on_enrolled(enrolled, incoming.verified.header.cid)
            case Refused(reason=reason) if self._attempts.refuse_request(incoming.verified.header.cid, reason):
                self._attempts.look_again()
            case SandboxChunk() as chunk:
                self._attempts.on_chunk(chunk)
            case SandboxStored() as stored:
                self._attempts.on_stored(stored)
            case ChainUnknown():
                self._on_chain_unknown(incoming.verified.header.cid)
            case other:
                log.warning("pilot.unexpected_message", type=type(other).__name__)

    def _on_leases(self, renewed: LeasesRenewed) -> None:
        self._attempts.renew(renewed.leases)
        for ref in renewed.lost:
            self._attempts.abandon((ref.job, ref.attempt), "the lease is lost")

    def _on_chain_unknown(self, message_id: str) -> None:
        self._session.log_in_again()
        if not self._post.repeat(message_id, time.monotonic()):
            log.warning("pilot.unheard", message=message_id)

    def _on_match(self, response: MatchResponse, request: str) -> None:
        if self._asked is not None and self._asked[0] == request:
            self._asked = None
        self._note_reasons(response.reasons)
        if self._leaving:
            self._give_back(response, request)
            return
        refs: list[JobRef] = []
        for match in response.matches:
            if match.csr >= 0 and not match.own_proxy:
                self._proxies.assign(request, match.csr, match.owner, match.group)
            task = Task.of(match, request, match.lease_until - self._session.now(), self._session.now())
            why = self._tombstones.get(task.key)
            if why is not None:
                task.killed = why
            self._attempts.add(task)
            refs.append(task.ref)
        self._proxies.settle(request)
        if refs:
            self._post.say(AcceptJobs(jobs=tuple(refs)))

    def _note_reasons(self, reasons: tuple[str, ...]) -> None:
        """Say once why nothing was given, not with each of the same answers."""
        if reasons and reasons != self.reasons:
            log.info("pilot.no_match", why="; ".join(reasons))
        self.reasons = reasons

    def _give_back(self, response: MatchResponse, request: str) -> None:
        """Work that came when the pilot was about to end: never accepted, given back at once."""
        now = self._session.now()
        for match in response.matches:
            task = Task.of(match, request, match.lease_until - now, now)
            self._post.report(
                task.report(JobStatus.RESCHEDULED, reason="its pilot was about to end", infrastructure=True)
            )

    def _on_order(self, order: Order) -> None:
        key = (order.job, order.attempt)
        if order.action == "abandon":
            self._attempts.abandon(key, order.reason)
        elif not self._attempts.kill(key, order.reason):
            # A kill that overtook its match: the match finds this tombstone.
            self._tombstones[key] = order.reason or "killed"
            if len(self._tombstones) > REMEMBERED:
                self._tombstones.popitem(last=False)
        done = ControlDone(job=order.job, attempt=order.attempt, action=order.action, outcome="obeyed")
        self._post.say(done)

    def _on_proxy(self, issued: ProxyIssued) -> None:
        slot = self._proxies.wanted(issued.csr_sha256) or Slot(issued.owner, issued.group)
        accepted = self._proxies.issued(issued, self._session.now())  # also of a refusal: its key is of no use any more
        if issued.chain and not accepted:
            log.warning("pilot.proxy_not_asked_for", owner=issued.owner)
        elif not issued.chain and slot[:2] == (issued.owner, issued.group):
            self._attempts.refuse_proxy(slot, issued.reason)
        self._attempts.look_again()

    # -- what it says of itself ---------------------------------------------------------------------------------

    def _wall_left(self) -> float | None:
        wall = self._settings.wall_seconds
        return None if wall is None else wall - (steady_now() - self._started)

    def _offer(self) -> Offer:
        """What is free; if nothing is, then what will be: work in advance waits here for its turn."""
        settings, measure, ledger = self._settings, self._measure, self._ledger
        left = self._wall_left()
        wall = left if left is not None else FOREVER
        free = self._attempts.free()
        disk = max(0.0, free_disk_mb(settings.work_dir) - free.disk_promised_mb)
        if not free.processors:
            free = Free(ledger.processors, ledger.memory_mb, ledger.gpus)
        return Offer(
            site=settings.site,
            ce=settings.ce,
            platforms=settings.platforms or (measure.platform,),
            cpu_seconds=wall * settings.cpu_power,
            wall_seconds=wall,
            processors=free.processors,
            memory_mb=free.memory_mb,
            disk_mb=disk,
            tags=settings.tags,
            required_tags=settings.required_tags,
            whole_node=not len(self._attempts),
            owners=settings.owners,
            groups=settings.groups,
            architecture=measure.architecture,
            gpus=tuple(Gpu(model=gpu.model, memory_mb=gpu.memory_mb) for gpu in free.gpus),
            job_types=settings.job_types,
            pool=settings.pool,
            total_processors=ledger.processors,
            total_memory_mb=ledger.memory_mb,
        )

    def _ask(self, now: float) -> None:
        left = self._wall_left()
        if left is not None and left <= 0:
            return
        busy, waiting = self._attempts.busy_processors(), self._attempts.waiting()
        wanted = self._demand.wanted(busy, waiting)
        if self._asked is not None:
            _, asked, since = self._asked
            overdue = now - since > PARK_SECONDS + ANSWER_SECONDS
            other = wanted != asked and now - since > REASK_SECONDS
            if not overdue and not other:
                return
        if wanted <= 0:
            return
        csrs = self._proxies.new_requests(min(wanted, MAX_CSRS))
        request = RequestMatch(
            slot="main",
            offer=self._offer(),
            jobs=wanted,
            wait_seconds=self._park_seconds(),
            csrs=csrs,
            holds=self._proxies.holds(now),
        )
        message_id = self._post.say(request)
        self._proxies.sent(message_id, csrs)
        self._asked = (message_id, wanted, now)

    def _park_seconds(self) -> float:
        """Not longer than the pilot itself would wait."""
        idle = self._settings.idle_seconds
        return min(PARK_SECONDS, idle) if idle else PARK_SECONDS

    def _next_beat(self) -> float:
        """Asked anew each time: a match with a short lease cannot wait for the beat that was planned before it."""
        return self._last_beat + min(self._settings.heartbeat_seconds, self._attempts.shortest_lease() / 4)

    def _beat(self, now: float) -> None:
        if now < self._next_beat():
            return
        self._last_beat = now
        payloads = tuple(
            PayloadBeat(job=task.match.job, attempt=task.match.attempt, usage=usage)
            for task, usage in self._attempts.figures()
        )
        self._post.say(
            Heartbeat(
                site=self._settings.site,
                payloads=payloads[:1024],
                memory_mb=float(self._measure.memory_mb),
                disk_mb=float(self._measure.disk_mb),
                processors=self._processors,
            )
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def _leave(self, why: str) -> None:
        """Stop what runs, give back what did not end, say goodbye; bounded in time."""
        self._leaving = True
        deadline = time.monotonic() + LEAVE_SECONDS
        said = False
        while time.monotonic() < deadline:
            incomings = self._session.receive(256, 0.0)
            for incoming in incomings:
                self._on_message(incoming)
            self._session.ack(incomings)
            self._attempts.give_back_all(f"the pilot ends: {why}")  # a match that comes only now, too
            self._attempts.advance(self._session.now())
            # Not before the broker has all reports: a goodbye gives back whatever is not known to have ended.
            if not len(self._attempts) and not len(self._post) and not said:
                self._post.say(Goodbye(reason=why, site=self._settings.site))
                said = True
            self._post.flush(time.monotonic())
            if said and not len(self._post):
                return
            self._wakeup.wait(0.05)
        log.warning("pilot.left_unsaid", messages=len(self._post))


FOREVER = 10 * 365 * 86_400.0
"""Wall time left where nobody set an end."""

LEAVE_SECONDS = 20.0
"""For outputs and the last words; batch systems kill 30 s after TERM or later."""
