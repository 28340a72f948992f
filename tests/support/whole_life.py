"""A small world around the real matcher, job-state and job-manager: users, pilots, two matchers, a clock, and bad luck.

The consumers and the store are the real ones; what lies between them, the broker, is two lists: hints and requests on
their way to the matcher, answers on their way to pilots. Both may be late, and hints may be lost. Whatever happens,
:meth:`World.check` holds after each step; :meth:`World.settle` lets everything arrive, and then nothing that fits may
wait beside anybody who asked for it.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from broker.publisher import Letter
from broker.subscriber import Admitted
from consumers.batch import Batch, Consumer
from consumers.directory import Directory
from consumers.job_manager import JobManager
from consumers.job_state import JobState
from consumers.matcher import RECONCILE_SECONDS, Matcher
from consumers.optimizer import Optimizer
from consumers.settings import LeaseSettings
from consumers.store import Store, attempts, jobs, parked, proxies, registry
from consumers.store.errors import NotLeader
from consumers.store.proxies import Proxy
from consumers.store.rows import JobRow
from schemas.job import FINAL, LEASED, JobStatus, lease_margin
from schemas.limits import MatchLimit, make_scope, scope_text
from schemas.messages.common import JobRef
from schemas.messages.event import JobsReceived, LeasesEnded, WorkWaiting
from schemas.messages.pilot import (
    AcceptJobs,
    Goodbye,
    Heartbeat,
    HeldProxy,
    Offer,
    PayloadBeat,
    Report,
    ReportJobs,
    RequestMatch,
    Step,
)
from schemas.messages.service import ControlJobs, JobsSubmitted, LeasesRenewed, Match, MatchResponse
from schemas.messages.user import DeleteJobs, KillJobs, RescheduleJobs, SubmitJobs
from schemas.registry import Message
from tests.support import pki
from tests.support.messages import Sender, admitted, opened, pilot, service, user
from tests.support.reference_matcher import CE, GROUP, JOB_TYPE, OWNER, SITE, Limited, Start, Wish, aged, obstacle
from tests.support.rules import set_match_limits

S = JobStatus
LEASE = 60.0
SWEEP = 2.0
MOST_SLICES = 10
"""Of a consumer's chores at one moment."""

ADA, BOB = user("ada"), user("bob")
PROD = user("bob", "NormalUser", "JobSharing", group="vo_prod")
USERS = (ADA, BOB, PROD)
SITES = ("S1", "S2", "S3")

REGISTRY: dict[str, Any] = {
    "groups": {
        "vo_user": {"fqan": "/vo", "properties": ["NormalUser"]},
        "vo_prod": {"fqan": "/vo/Role=production", "properties": ["NormalUser", "JobSharing"], "share": 3.0},
        "vo_pilot": {"properties": ["GenericPilot"]},
    },
    "users": [
        {"dn": ADA.identity, "nickname": "ada", "groups": ["vo_user"]},
        {"dn": BOB.identity, "nickname": "bob", "groups": ["vo_user", "vo_prod"]},
        {"dn": pilot().identity, "nickname": "pilot", "groups": ["vo_pilot"]},
    ],
    "sites": {site: {} for site in SITES},
}

SHAPES: tuple[tuple[str, Wish], ...] = (
    ("", Wish()),
    ("Priority = 7;", Wish()),
    ('Site = "S1";', Wish(sites=("S1",))),
    ('BannedSites = {"S1"};', Wish(banned_sites=("S1",))),
    ('JobType = "Test";', Wish(job_type="Test")),
    ("NumberOfProcessors = 2;", Wish(min_processors=2)),
    ("NumberOfProcessors = 4;", Wish(min_processors=4)),
    ("WholeNode = true;", Wish(whole_node=True)),
    ('Tags = {"gold"};', Wish(tags=("gold",))),
    ("MaxRAM = 3000;", Wish(memory_mb=3000)),
    ('GridCE = "ce1";', Wish(ces=("ce1",))),
)
"""JDL, and the same for the reference."""

LARGE = {"cpu_seconds": 36_000.0, "wall_seconds": 3000.0, "memory_mb": 2000.0, "disk_mb": 1e5}
OFFERS: tuple[tuple[Offer, ...], ...] = (
    (
        Offer(site="S1", ce="ce1", processors=1, **LARGE),  # type: ignore[arg-type]
        Offer(site="S1", ce="ce1", processors=3, owners=(BOB.identity,), **LARGE),  # type: ignore[arg-type]
    ),
    (
        Offer(site="S1", ce="ce2", processors=4, whole_node=True, **LARGE),  # type: ignore[arg-type]
        Offer(site="S1", ce="ce2", processors=1, groups=("vo_prod",), **LARGE),  # type: ignore[arg-type]
    ),
    (
        Offer(site="S2", processors=2, tags=("gold",), **LARGE),  # type: ignore[arg-type]
        Offer(site="S2", processors=1, tags=("gold",), required_tags=("gold",), **LARGE),  # type: ignore[arg-type]
    ),
    (Offer(site="S3", ce="any", processors=8, **LARGE | {"memory_mb": 8000.0}),),  # type: ignore[arg-type]
)
"""Of each pilot: it stays where it is."""


@functools.cache
def authority() -> pki.Pki:
    """A throwaway authority; nothing here is signed by it, but a directory needs one."""
    return pki.make_pki(Path(tempfile.mkdtemp(prefix="whole-life-")))


class BadLuckError(Exception):
    """The transaction cannot be committed."""


@dataclass
class Held:
    """What a pilot knows of a match of its own."""

    job: int
    attempt: int
    until: float
    length: float
    accepted: bool = False
    over: bool = False
    sequence: int = 0
    steps: list[Step] = field(default_factory=list)

    def may_run(self, now: float) -> bool:
        """Its payload may have processes now: the pilot ends them before the lease does, by its own clock."""
        return self.accepted and not self.over and now < self.until - lease_margin(self.length)


@dataclass
class Pilot:
    """A pilot with its own knowledge."""

    sender: Sender
    alive: bool = True
    mailbox: list[Message] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)


@dataclass
class Request:
    """A request, and how it was answered."""

    pilot: str
    message: RequestMatch
    since: float
    answers: int = 0


def values_of(owner: Sender, wish: Wish, offer: Offer) -> dict[str, str]:
    """What limits look at."""
    return {SITE: offer.site, CE: offer.ce, JOB_TYPE: wish.job_type, OWNER: owner.identity, GROUP: owner.group}


class World:
    """Everything; each method is something that happens.

    Args:
        store: empty.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = time.time()
        with store.transaction() as tx:
            registry.seed(tx, REGISTRY)
            for one in USERS:
                proxies.put(tx, Proxy(one.identity, one.group, "chain", b"key", self.now + 9e6, self.now))
        self.directory = Directory(store, authority().trust)
        self.settings = LeaseSettings(sweep=SWEEP, silent=30.0)
        self.limits: list[Limited] = []
        self.starts: list[Start] = []
        self.allowed: Counter[tuple[object, ...]] = Counter()
        self.manager = JobManager(self.directory)
        self.optimizer = Optimizer(self.directory)
        self.state = JobState(self.settings, lambda: True, "state", lambda: bool(self.limits))
        self.state.idle = True
        self._made = 0
        self.matchers = [self.new_matcher(), self.new_matcher()]
        self.asleep: set[int] = set()
        self.to_matcher: list[Admitted] = []
        self.lost = False
        self.returned: list[Letter] = []
        self.pilots = [Pilot(pilot(str(number))) for number in range(4)]
        self.requests: dict[str, Request] = {}
        self.submitted: dict[int, tuple[Sender, Wish]] = {}
        self.grants: dict[tuple[int, int], Offer] = {}
        self.usable = set(SITES)
        self.suspended: set[str] = set()
        self._rows: dict[int, JobRow] = {}
        with store.transaction() as tx:
            self.state.start(Batch(tx, self.now))
        self.chores()

    def new_matcher(self) -> Matcher:
        """A matcher's process starts."""
        self._made += 1
        return Matcher(self.settings, self.directory, f"matcher-{self._made}")

    # -- one transaction ----------------------------------------------------------------------------------------

    def act(self, consumer: Consumer, action: Callable[[Batch], object], *, fail: bool = False) -> bool:
        """One transaction of a consumer, and what it then says; whether it was committed."""
        try:
            with self.store.transaction() as tx:
                batch = Batch(tx, self.now)
                action(batch)
                if fail:
                    raise BadLuckError
        except (BadLuckError, NotLeader):
            on_rollback = getattr(consumer, "on_rollback", None)
            if on_rollback is not None:
                on_rollback()
            return False
        for commit in batch.commits:
            commit()
        for letter in [*batch.letters, *batch.unrecorded]:
            self.hear(letter)
        return True

    def tell(self, consumer: Consumer, *messages: Admitted, fail: bool = False) -> bool:
        """Messages reach a consumer."""
        return self.act(consumer, lambda batch: consumer.handle(batch, messages), fail=fail)

    def hear(self, letter: Letter) -> None:
        """A letter leaves."""
        message = opened(letter)
        match message:
            case WorkWaiting() | LeasesEnded():
                self.to_matcher.append(admitted(message, service("job-manager"), now=self.now))
            case JobsReceived():
                self.tell(self.optimizer, admitted(message, service("job-manager"), now=self.now))
            case MatchResponse():
                self.answered(letter, message)
            case ControlJobs() | LeasesRenewed():
                self.pilot_of(letter.audience).mailbox.append(message)
            case JobsSubmitted(first=first, count=count):
                self.ids = range(first, first + count)

    def pilot_of(self, client: str) -> Pilot:
        """The pilot with this client id."""
        return next(one for one in self.pilots if one.sender.cli == client)

    def answered(self, letter: Letter, response: MatchResponse) -> None:
        """An answer leaves: once per request, to who asked, with work that fits or with reasons."""
        request = self.requests[letter.correlation]
        request.answers += 1
        assert request.answers == 1, f"answered twice: {request}"
        assert letter.audience == request.pilot
        assert response.slot == request.message.slot
        assert len(response.matches) <= request.message.jobs
        assert response.matches or response.reasons, "nothing, and no reason"
        for match in response.matches:
            self.granted(request, match)
        self.check_room(request, [self.submitted[match.job][1] for match in response.matches])
        one = self.pilot_of(request.pilot)
        if one.alive:
            one.mailbox.append(response)
        else:
            self.returned.append(letter)

    def granted(self, request: Request, match: Match) -> None:
        """A match: of a job that exists and fits, and never given before."""
        key = (match.job, match.attempt)
        assert key not in self.grants, f"given twice: {key}"
        offer = aged(request.message.offer, self.now - request.since)
        owner, wish = self.submitted[match.job]
        assert (match.owner, match.group) == (owner.identity, owner.group)
        assert obstacle(wish, offer, self.usable) is None, (obstacle(wish, offer, self.usable), wish, offer)
        assert not offer.owners or owner.identity in offer.owners
        assert not offer.groups or owner.group in offer.groups
        assert owner.identity not in self.suspended
        self.grants[key] = offer
        start = Start(match.job, self.now, values_of(owner, wish, offer))
        for limit in self.limits:
            allowed = not limit.concerns(start.values) or all(
                self.now >= one.at + limit.delay for one in self.starts if limit.is_alike(one.values, start.values)
            )
            assert allowed, f"too soon: {limit}, {start}"
        self.starts.append(start)

    @staticmethod
    def check_room(request: Request, wishes: Sequence[Wish]) -> None:
        """The jobs of one answer fit beside each other, if no more were asked for than there are processors."""
        offer = request.message.offer
        if request.message.jobs <= offer.processors:
            whole = any(wish.whole_node for wish in wishes)
            assert not whole or len(wishes) == 1, wishes
            assert whole or sum(wish.min_processors for wish in wishes) <= offer.processors, wishes
            assert sum(wish.memory_mb for wish in wishes) <= offer.memory_mb, wishes

    # -- users --------------------------------------------------------------------------------------------------

    def submit(self, sender: Sender, shape: int, count: int) -> None:
        """A submission of so many jobs."""
        more, wish = SHAPES[shape]
        text = f'[ Executable = "/bin/true"; CPUTime = 360; LeaseDuration = {LEASE:.0f}; Parameters = {count}; {more} ]'
        self.ids = range(0)
        self.tell(self.manager, admitted(SubmitJobs(descriptions=(text,)), sender, now=self.now))
        if sender.identity in self.suspended:
            return  # the gate would not have let him in
        assert len(self.ids) == count
        self.submitted.update(dict.fromkeys(self.ids, (sender, wish)))

    def command(self, kind: type[KillJobs | DeleteJobs | RescheduleJobs], job: int) -> None:
        """The owner's command on a job."""
        owner, _ = self.submitted[job]
        self.tell(self.manager, admitted(kind(jobs=(job,)), owner, now=self.now))

    # -- pilots -------------------------------------------------------------------------------------------------

    def request(self, number: int, which: int, jobs: int, slot: str, wait: float, csrs: int, holds: Sender) -> None:
        """A pilot asks."""
        one = self.pilots[number]
        if not one.alive:
            return
        offer = OFFERS[number][which % len(OFFERS[number])]
        held = () if csrs else (HeldProxy(owner=holds.identity, group=holds.group, not_after=self.now + 9000),)
        message = RequestMatch(
            slot=slot,
            offer=offer,
            jobs=jobs,
            wait_seconds=wait,
            csrs=tuple(b"csr %d" % place for place in range(csrs)),
            holds=held,
        )
        sealed = admitted(message, one.sender, now=self.now)
        self.requests[sealed.verified.header.jti] = Request(one.sender.cli, message, self.now)
        self.to_matcher.append(sealed)

    def read_mail(self, number: int, *, accept: bool = True) -> None:
        """A pilot reads what came, and accepts its matches or loses them."""
        one = self.pilots[number]
        mail, one.mailbox = one.mailbox, []
        for message in mail:
            match message:
                case MatchResponse(matches=matches):
                    refs = []
                    for match in matches:
                        one.held[match.job] = Held(match.job, match.attempt, match.lease_until, match.run_lease)
                        refs.append(JobRef(job=match.job, attempt=match.attempt))
                    if refs and accept:
                        self.say(one, AcceptJobs(jobs=tuple(refs)))
                case LeasesRenewed(leases=leases, lost=lost):
                    for lease in leases:
                        held = one.held.get(lease.job)
                        if held is not None and held.attempt == lease.attempt and not held.over:
                            held.until, held.accepted = lease.until, True
                    for ref in lost:
                        self.drop(one, ref.job, ref.attempt)
                case ControlJobs(orders=orders):
                    for order in orders:
                        self.drop(one, order.job, order.attempt)

    @staticmethod
    def drop(one: Pilot, job: int, attempt: int) -> None:
        """A pilot ends a payload and forgets it."""
        held = one.held.get(job)
        if held is not None and held.attempt == attempt:
            held.over = True

    def say(self, one: Pilot, message: Message) -> None:
        """A pilot tells job-state something, and reads the answer at once."""
        self.tell(self.state, admitted(message, one.sender, now=self.now))

    def heartbeat(self, number: int) -> None:
        """A pilot says that it lives, and what with it."""
        one = self.pilots[number]
        if one.alive:
            beats = tuple(PayloadBeat(job=held.job, attempt=held.attempt) for held in self.running(one))
            self.say(one, Heartbeat(site="S1", payloads=beats))

    def running(self, one: Pilot) -> list[Held]:
        """What a pilot thinks that it may run."""
        return [held for held in one.held.values() if held.may_run(self.now)]

    def report(self, number: int, status: JobStatus) -> None:
        """A pilot tells how its first payload fares."""
        one = self.pilots[number]
        running = self.running(one)
        if not one.alive or not running:
            return
        held = running[0]
        held.sequence += 1
        held.steps.append(Step(status=status, time=self.now))
        if status in FINAL or status is S.RESCHEDULED:
            held.over = True
        given_back = status is S.RESCHEDULED
        report = Report(
            job=held.job, attempt=held.attempt, sequence=held.sequence, status=status, steps=tuple(held.steps),
            reason="given back" if given_back else "", infrastructure=given_back,
        )  # fmt: skip
        self.say(one, ReportJobs(reports=(report,)))

    def goodbye(self, number: int, *, says_so: bool) -> None:
        """A pilot ends, in good order or not; its place is taken by a new one."""
        one = self.pilots[number]
        one.alive = False
        for held in one.held.values():
            held.over = True
        if says_so:
            self.say(one, Goodbye(reason="done"))

    def new_pilot(self, number: int) -> None:
        """A pilot starts in the place of an old one."""
        if not self.pilots[number].alive:
            self.pilots.append(self.pilots[number])
            self.pilots[number] = Pilot(pilot(str(len(self.pilots))))

    # -- the matcher and time -----------------------------------------------------------------------------------

    def leading(self) -> list[Matcher]:
        """Those that think that they lead."""
        return [one for one in self.matchers if one.wants_queues()]

    def deliver(self, most: int = 100, *, which: int = 0, fail: bool = False) -> None:
        """What is on its way reaches who thinks that he leads."""
        leading = self.leading()
        if not leading or not self.to_matcher:
            return
        some = self.to_matcher[:most]
        if self.tell(leading[which % len(leading)], *some, fail=fail):
            del self.to_matcher[:most]

    def lose_hints(self) -> None:
        """Hints on their way are lost."""
        kept = [one for one in self.to_matcher if not isinstance(one.message, WorkWaiting | LeasesEnded)]
        self.lost |= len(kept) < len(self.to_matcher)
        self.to_matcher = kept

    def send_back(self) -> None:
        """Answers that nobody could be given come back to who leads."""
        returned, self.returned = self.returned, []
        leading = self.leading()
        for letter in returned:
            if leading:
                leading[0].on_returned(letter)

    def chores(self, *, fail: bool = False) -> None:
        """Who is awake does his chores."""
        for number, one in enumerate(self.matchers):
            for _ in range(0 if number in self.asleep else MOST_SLICES):
                due = one.due_in(self.now)
                if due is None or due > 0:
                    break
                self.act(one, one.chores, fail=fail)
        self.act(self.state, self.state.chores)

    def pass_time(self, seconds: float) -> None:
        """Time passes, and everybody who is awake works."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + SWEEP)
            self.chores()

    def restart_matcher(self, number: int) -> None:
        """A matcher's process is killed and another one started."""
        self.matchers[number] = self.new_matcher()
        self.asleep.discard(number)

    # -- operators ----------------------------------------------------------------------------------------------

    def set_site(self, site: str, *, usable: bool) -> None:
        """An operator bans or allows a site."""
        with self.store.transaction() as tx:
            registry.set_site(tx, site, usable=usable, reason="test")
        (self.usable.add if usable else self.usable.discard)(site)
        self.registry_changed()

    def set_suspended(self, sender: Sender, *, suspended: bool) -> None:
        """An operator suspends a user or lets him in again."""
        with self.store.transaction() as tx:
            registry.set_suspended(tx, sender.identity, suspended=suspended, reason="test")
        (self.suspended.add if suspended else self.suspended.discard)(sender.identity)
        self.registry_changed()

    def set_limits(self, limits: Sequence[Limited]) -> None:
        """An operator sets these limits in place of those there were."""
        rows = {scope_text(make_scope([f"{name}={value}" for name, value in one.scope.items()])): one for one in limits}
        self.limits = list(rows.values())
        entries = [
            MatchLimit(scope=scope, running=one.running, delay_seconds=one.delay or None) for scope, one in rows.items()
        ]
        set_match_limits(self.store, *entries)
        self.allowed = self.running_counts()  # what runs already is not stopped
        self.registry_changed()

    def registry_changed(self) -> None:
        """Everybody knows within two seconds; here at once."""
        self.directory.forget()
        self.lost = True

    # -- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """After each step."""
        with self.store.reading() as tx:
            rows = jobs.load(tx, list(self.submitted), for_update=False)
            tried = {job: attempts.of(tx, job) for job in self.submitted}
        assert rows.keys() == self.submitted.keys(), "a job is lost"
        for job, row in rows.items():
            assert row.status in {S.WAITING, *LEASED, *FINAL}, f"stuck: {row}"
            self._check_leases(row, tried[job])
        self._rows = rows
        holders: dict[int, list[str]] = defaultdict(list)
        for one in self.pilots:
            for held in self.running(one):
                holders[held.job].append(one.sender.cli)
        assert all(len(some) == 1 for some in holders.values()), f"runs twice at once: {holders}"
        self._check_limits()
        if self.is_quiet():
            self.check_nobody_waits_in_vain()

    def _check_limits(self) -> None:
        """Never above a limit; where more ran when it was set, never more than ran before."""
        counts = self.running_counts()
        for instance, count in counts.items():
            limit = self.limits[instance[0]]  # type: ignore[call-overload]  # its number stands first
            assert limit.running is None or count <= max(limit.running, self.allowed[instance]), (
                limit,
                instance,
                count,
            )
        self.allowed = counts

    def running_counts(self) -> Counter[tuple[object, ...]]:
        """For each limit and each of its values how many leases live."""
        found: Counter[tuple[object, ...]] = Counter()
        for number, limit in enumerate(self.limits):
            for start in self.live():
                if limit.concerns(start.values):
                    found[number, *(start.values[name] for name in limit.scope)] += 1
        return found

    def live(self) -> list[Start]:
        """What limits look at, of every live lease."""
        with self.store.reading() as tx:
            rows = jobs.load(tx, list(self.submitted), for_update=False).values()
        return [
            Start(row.id, 0.0, values_of(*self.submitted[row.id], self.grants[row.id, row.attempt]))
            for row in rows
            if row.status in LEASED
        ]

    def _check_leases(self, row: JobRow, tried: Sequence[Any]) -> None:
        assert [one.attempt for one in tried] == list(range(1, len(tried) + 1)), tried
        live = [one for one in tried if one.ended is None]
        if row.status in LEASED:
            assert row.lease_until is not None
            assert [(one.attempt, one.pilot) for one in live] == [(row.attempt, row.pilot)], (row, tried)
            assert (row.id, row.attempt) in self.grants, f"leased, and nobody was told: {row}"
        else:
            assert row.lease_until is None
            assert not live, (row, tried)

    def settle(self) -> None:
        """Everything arrives, everybody works; then nothing that fits waits beside who asked for it."""
        self.asleep.clear()
        self.pass_time(RECONCILE_SECONDS + 10)
        for _ in range(20):
            self.send_back()
            self.deliver()
            self.chores()
            if not self.to_matcher and not self.returned:
                break
        assert not self.to_matcher, "nobody leads"
        assert len([one for one in self.matchers if one.wants_queues()]) == 1
        self.lost = False
        self.check()
        self.check_nobody_waits_in_vain()

    def is_quiet(self) -> bool:
        """Nothing is on its way, nothing was lost, and who leads has nothing left to do."""
        leading = self.leading()
        if self.to_matcher or self.returned or self.lost or self.asleep or len(leading) != 1:
            return False
        due = leading[0].due_in(self.now)
        return due is not None and due > 0

    def check_nobody_waits_in_vain(self) -> None:
        """No waiting job fits a parked request."""
        with self.store.reading() as tx:
            requests = parked.page(tx)
        gone = {one.sender.cli for one in self.pilots if not one.alive}
        live = self.live()
        for row in requests:
            asked = msgspec.json.decode(row.request, type=RequestMatch)
            offer = aged(asked.offer, self.now - row.since)
            for job in self._rows.values():
                owner, wish = self.submitted[job.id]
                values = values_of(owner, wish, offer)
                if not all(limit.allows(values, live, self.starts, self.now) for limit in self.limits):
                    continue
                if job.status is S.WAITING and row.client not in gone and self.may_have(owner, asked):
                    assert obstacle(wish, offer, self.usable) is not None, f"{job.id} waits beside {row}"

    def may_have(self, owner: Sender, asked: RequestMatch) -> bool:
        """Whether jobs of this owner may run on what was asked for, at this moment."""
        if asked.offer.groups and owner.group not in asked.offer.groups:
            return False
        if owner.identity in self.suspended or (asked.offer.owners and owner.identity not in asked.offer.owners):
            return False
        held = {(one.owner, one.group) for one in asked.holds if one.not_after - self.now > 900}
        return bool(asked.csrs) or (owner.identity, owner.group) in held

    def counts(self) -> Counter[JobStatus]:
        """How many jobs stand where."""
        return Counter(row.status for row in self._rows.values())


__all__ = ["OFFERS", "SHAPES", "SITES", "USERS", "World"]
