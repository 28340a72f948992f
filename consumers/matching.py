"""One leadership's worth of matching: the index, the parked requests, the pages of job ids.

Made anew by each takeover from the store; changed only by the leading matcher's thread, inside its transactions.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from broker.authorization import Principal, may_run_payload, payload_rules
from broker.subscriber import Admitted
from schemas.access import AccessRule
from schemas.envelope import reply_queue
from schemas.job import JobStatus
from schemas.messages.common import MAX_INLINE_BYTES, InputFile, SandboxFile
from schemas.messages.event import JobChange, ProxyWanted
from schemas.messages.pilot import RequestMatch
from schemas.messages.service import Match, MatchResponse

from .batch import Batch
from .changes import Changes, publish_changes
from .directory import Directory
from .domain.choose import Choice, NoMatch, reserve, why_not
from .domain.facts import Unroutable
from .domain.index import Index
from .domain.parked import ParkedIndex
from .domain.requirements import Requirements
from .domain.shares import DEFAULT_SHARE
from .settings import LeaseSettings
from .store import jobs, parked, queues, sandboxes, submission_proxies
from .store.registry import Registry
from .store.rows import Claim, Claimed

PAGE = 256
"""Job ids fetched at once for a queue: a page costs one indexed read."""

ROUNDS = 4
"""Claims that failed (killed meanwhile) are replaced by other jobs in so many rounds; then the pilot waits parked."""

MIN_PROXY_SECONDS = 900.0
"""A proxy that a pilot holds is good for another job if it lives at least so long."""

ALL = 1 << 62
"""More jobs than there can be."""

MAX_RESPONSE_BYTES = 6 << 20
"""Matches of one answer, about: the pilot refuses a message above 8 MiB, and with it everybody's jobs in it. A single
match stays far below (descriptions and copies of input data are bounded)."""

MAX_SLOTS = 64
"""Requests of one pilot that are parked: it has one for each of its slots, and nobody fills the memory."""

MAX_REASONS = 10
"""Reasons in an empty answer."""

Key = tuple[str, str]
"""(client, slot)"""


@dataclass(slots=True)
class Asked:
    """A request at work: new or parked."""

    client: str
    identity: str
    request: RequestMatch
    correlation: str
    since: float
    deadline: float
    message: Admitted | None = None
    choices: list[tuple[Choice, int]] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    csr_of: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Admitted, request: RequestMatch, now: float) -> Asked:
        """A request that just came."""
        return cls(
            client=message.client,
            identity=message.principal.identity,
            request=request,
            correlation=message.verified.header.jti,
            since=now,
            deadline=now + request.wait_seconds,
            message=message,
        )

    @property
    def key(self) -> Key:
        """What a newer request replaces."""
        return self.client, self.request.slot

    @property
    def wanted(self) -> int:
        """Jobs still wanted."""
        return self.request.jobs - len(self.claimed)


class Matching:
    """The leader's memory.

    Args:
        settings: times.
        directory: registry (who may have jobs run, shares, site mask, rules).
    """

    def __init__(self, settings: LeaseSettings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._index = Index()
        self._parked: ParkedIndex[Key] = ParkedIndex()
        self._waiting: dict[Key, Asked] = {}
        self._slots: Counter[str] = Counter()
        self._deadlines: list[tuple[float, Key]] = []
        self._pages: dict[tuple[int, int], deque[int]] = {}
        self._contents: dict[str, bytes] = {}
        self._contents_bytes = 0
        self._registry: Registry | None = None
        self._bars: tuple[AccessRule, ...] = ()
        self._barred: dict[tuple[str, str, str], bool] = {}

    # -- from the store -----------------------------------------------------------------------------------------

    def load(self, batch: Batch) -> None:
        """Everything, at a takeover."""
        self.reconcile(batch)
        for row in parked.load(batch.tx):
            request = msgspec.json.decode(row.request, type=RequestMatch)
            self._keep(Asked(row.client, row.identity, request, row.cid, row.since, row.deadline))
        self.serve_all(batch)

    def serve_all(self, batch: Batch) -> None:
        """Answer whatever parked request can be answered: at a takeover, and where a hint was lost."""
        self.serve(batch, [], set(self._index))

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since this last looked: parked requests may have become answerable."""
        return self._registry is None or self._registry.version != self._directory.registry().version

    def reconcile(self, batch: Batch) -> None:
        """Put the counts of all queues right."""
        self._note_registry()
        counts = queues.waiting_counts(batch.tx)
        self._learn(batch, counts.keys() - set(self._index))
        for queue_id in list(self._index):
            if queue_id in counts:
                self._index.set_counts(queue_id, counts[queue_id])
            else:
                self._index.drop_queue(queue_id)
        self._pages.clear()

    def _note_registry(self) -> None:
        """Sites, shares and rules as they are now; unchanged they cost one comparison for each batch."""
        registry = self._directory.registry()
        if self._registry is not None and registry.version == self._registry.version:
            return
        self._registry = registry
        self._bars, self._barred = payload_rules(registry.rules), {}
        usable = {name for name, site in registry.sites.items() if site.usable}
        self._index.set_usable_sites(usable if registry.sites else None)
        for group in registry.groups.values():
            self._index.set_share(group.name, round(group.share * DEFAULT_SHARE))

    def _learn(self, batch: Batch, ids: Collection[int]) -> None:
        for row in queues.load(batch.tx, ids):
            self._index.add_queue(row.id, Requirements.from_json(row.requirements), row.grp, row.owner)

    def _refresh(self, batch: Batch, ids: Collection[int]) -> None:
        if not ids:
            return
        self._learn(batch, [queue_id for queue_id in ids if queue_id not in self._index])
        counts = queues.waiting_counts(batch.tx, ids)
        for queue_id in ids:
            if queue_id in self._index:
                self._index.set_counts(queue_id, counts.get(queue_id, {}))
        for page in [page for page in self._pages if page[0] in ids]:
            del self._pages[page]

    # -- serving ------------------------------------------------------------------------------------------------

    def serve(self, batch: Batch, asked: Sequence[Asked], hinted: Collection[int]) -> None:
        """Answer requests, and those parked ones for which the hinted queues have work."""
        self._note_registry()
        self._refresh(batch, hinted)
        newest = {one.key: one for one in asked}
        for key in newest:
            self._drop(key)
        at_work = [*self._concerned(batch, hinted), *newest.values()]
        spoken_for: set[int] = set()
        for _ in range(ROUNDS):
            if not self._round(batch, at_work, spoken_for):
                break
        self._answer(batch, at_work, known={one.key for one in newest.values()})

    def _concerned(self, batch: Batch, hinted: Collection[int]) -> list[Asked]:
        """Parked requests that fit a hinted queue, newest first."""
        while True:
            keys = self._candidates(hinted)
            # The store knows better: a pilot that said goodbye to job-state is not to be given anything.
            gone = keys - parked.present(batch.tx, {client for client, _ in keys})
            if not gone:
                return sorted((self._waiting[key] for key in keys), key=lambda one: -one.since)
            for key in gone:
                self._drop(key)

    def _is_barred(self, owner: str, group: str, site: str) -> bool:
        """Whether the owner has lost his rights, or operators' rules keep his jobs from a site."""
        registry = self._registry or self._directory.registry()
        user = registry.users.get(owner)
        if user is None or user.suspended or group not in user.groups:
            return True  # his jobs wait until he is let in again
        if not self._bars:
            return False
        key = (owner, group, site)
        if key not in self._barred:
            known = registry.groups.get(group)
            principal = Principal(owner, group, frozenset(known.properties if known else ()))
            self._barred[key] = may_run_payload(principal, site, self._bars) is not None
        return self._barred[key]

    def _candidates(self, hinted: Collection[int]) -> set[Key]:
        keys: set[Key] = set()
        usable = self._index.classes.usable_sites
        for queue_id in hinted:
            if queue_id not in self._index:
                continue
            queue = self._index.queue(queue_id)
            left = queue.waiting
            for key in self._parked.candidates(queue.requirements, queue.owner.name, usable):
                if left <= 0:
                    break
                site = self._waiting[key].request.offer.site
                if self._is_barred(queue.owner.name, queue.group.name, site):
                    continue
                keys.add(key)
                left -= self._waiting[key].request.jobs
        return keys

    def _round(self, batch: Batch, at_work: Iterable[Asked], spoken_for: set[int]) -> bool:
        """Choose, page and claim once; whether another round could help."""
        for one in at_work:
            if one.wanted > 0:
                self._choose(batch, one, spoken_for)
        picks = [(one, choice, job) for one in at_work for choice, job in one.choices]
        if not picks:
            return False
        claims = [
            Claim(job, one.client, one.request.offer.site, batch.now + self._settings.accept) for one, _, job in picks
        ]
        claimed = {done.job: done for done in jobs.claim(batch.tx, claims, batch.now)}
        missed = False
        for one, choice, job in picks:
            if job in claimed:
                one.claimed.append(claimed[job])
            else:
                missed = True
                if choice.queue_id in self._index:
                    self._index.refund(choice.queue_id)
        for one in at_work:
            one.choices = []
        return missed

    def _choose(self, batch: Batch, one: Asked, spoken_for: set[int]) -> None:
        """Choose job by job: what a pilot can serve changes with each certificate request that is used up."""
        site = one.request.offer.site

        def serves(group: str, owner: str) -> bool:
            if self._is_barred(owner, group, site):
                return False
            return self._proxy_place(one, owner, group, batch.now) is not None

        while len(one.choices) < one.wanted:
            chosen = reserve(one.request.offer, self._index, batch.now, 1, serves)
            if isinstance(chosen, NoMatch):
                return
            choice = chosen[0]
            queue = self._index.queue(choice.queue_id)
            job = self._next_job(batch, choice, spoken_for)
            if job is None:
                continue  # the counts were put right meanwhile
            place = self._proxy_place(one, queue.owner.name, queue.group.name, batch.now)
            if place is not None:
                one.csr_of[queue.owner.name, queue.group.name] = place
            spoken_for.add(job)
            one.choices.append((choice, job))

    @staticmethod
    def _proxy_place(one: Asked, owner: str, group: str, now: float) -> int | None:
        """Which certificate request serves for this owner: -1 if the pilot holds his proxy, None if none is left."""
        known = one.csr_of.get((owner, group))
        if known is not None:
            return known
        for held in one.request.holds:
            if held.owner == owner and held.group == group and held.not_after - now > MIN_PROXY_SECONDS:
                return -1
        used = sum(1 for place in one.csr_of.values() if place >= 0)
        return used if used < len(one.request.csrs) else None

    def _next_job(self, batch: Batch, choice: Choice, spoken_for: set[int]) -> int | None:
        page = self._pages.setdefault((choice.queue_id, choice.priority), deque())
        while True:
            while page:
                job = page.popleft()
                if job not in spoken_for:
                    return job
            found = queues.head(batch.tx, choice.queue_id, choice.priority, PAGE, spoken_for)
            if not found:
                # Fewer wait than the index thought. No new count now: it would hold those that are spoken for.
                self._index.refund(choice.queue_id)
                self._index.remove(choice.queue_id, choice.priority, ALL)
                return None
            page.extend(job for job, _ in found)

    # -- answering ----------------------------------------------------------------------------------------------

    def _answer(self, batch: Batch, at_work: Sequence[Asked], known: Collection[Key]) -> None:
        changed: list[JobChange] = []
        contents = self._inline(batch, [claimed for one in at_work for claimed in one.claimed])
        own = submission_proxies.having(batch.tx, {claimed.submission for one in at_work for claimed in one.claimed})
        self._give_back(batch, at_work, contents)
        park: list[Asked] = []
        unpark: list[Key] = []
        for one in at_work:
            if one.claimed:
                self._respond(batch, one, contents, own)
                changed.extend(_matched(claimed, one, batch.now) for claimed in one.claimed)
                if one.key in self._waiting:
                    unpark.append(one.key)
            elif one.key in known:
                if one.deadline > batch.now and self._slots.get(one.client, 0) < MAX_SLOTS:
                    park.append(one)
                else:
                    unpark.append(one.key)
                    self._say_why_not(batch, one)
            else:
                one.csr_of = {}  # all that was chosen for it was gone: its certificate requests are unused
        if changed:
            publish_changes(batch, changed)
        # A request that was answered at once replaces an older parked one of its slot, too.
        unpark.extend(one.key for one in at_work if one.claimed and one.key in known)
        parked.remove(batch.tx, set(unpark))
        for key in unpark:
            self._drop(key)
        parked.put(
            batch.tx,
            [
                parked.ParkedRow(
                    one.client,
                    one.request.slot,
                    one.identity,
                    msgspec.json.encode(one.request),
                    reply_queue(one.client),
                    one.correlation,
                    one.since,
                    one.deadline,
                )
                for one in park
            ],
        )
        for one in park:
            self._keep(one)

    @staticmethod
    def _give_back(batch: Batch, at_work: Sequence[Asked], contents: Mapping[str, bytes]) -> None:
        """What does not fit into one answer waits on, uncharged."""
        excess: list[tuple[Claimed, str]] = []
        for one in at_work:
            total, kept = 0, 0
            for claimed in one.claimed:
                total += _weight(claimed, contents)
                if kept and total > MAX_RESPONSE_BYTES:
                    break
                kept += 1
            excess.extend((claimed, one.client) for claimed in one.claimed[kept:])
            del one.claimed[kept:]
        if excess:
            changes = Changes(batch, "matcher")
            changes.load([claimed.job for claimed, _ in excess])
            for claimed, client in excess:
                changes.decide(claimed.job, Unroutable(claimed.attempt, client))
            changes.flush()

    def _respond(self, batch: Batch, one: Asked, contents: dict[str, bytes], own: Collection[int]) -> None:
        """Answer with what was claimed; jobs of the submissions in ``own`` have proxies that serve no other."""
        wanted: set[tuple[str, str]] = set()
        matches = []
        for claimed in one.claimed:
            if claimed.submission in own:
                matches.append(msgspec.structs.replace(_match(claimed, -1, contents), own_proxy=True))
                continue
            place = one.csr_of[claimed.owner, claimed.grp]
            if place >= 0 and (claimed.owner, claimed.grp) not in wanted:
                wanted.add((claimed.owner, claimed.grp))
                self._order_proxy(batch, one, claimed, place)
            matches.append(_match(claimed, place, contents))
        response = MatchResponse(slot=one.request.slot, matches=tuple(matches))
        if one.message is not None:
            batch.answer(one.message, response)
        else:
            batch.tell(one.client, response, one.correlation)

    def _order_proxy(self, batch: Batch, one: Asked, claimed: Claimed, place: int) -> None:
        batch.publish(
            ProxyWanted(
                client=one.client,
                reply_to=one.client,
                job=claimed.job,
                attempt=claimed.attempt,
                owner=claimed.owner,
                group=claimed.grp,
                csr=one.request.csrs[place],
            )
        )

    def _say_why_not(self, batch: Batch, one: Asked) -> None:
        reasons = NoMatch(why_not(one.request.offer, self._index)).texts()[:MAX_REASONS]
        response = MatchResponse(slot=one.request.slot, reasons=reasons)
        if one.message is not None:
            batch.answer(one.message, response)
        else:
            batch.tell(one.client, response, one.correlation)

    def _inline(self, batch: Batch, claimed: Sequence[Claimed]) -> dict[str, bytes]:
        """Contents of small sandbox files, from memory or the store."""
        wanted = {file.sha256: file.size for one in claimed for file in _carried(one)}
        missing = [sha256 for sha256 in wanted if sha256 not in self._contents]
        if missing:
            if self._contents_bytes > 256 * MAX_INLINE_BYTES:
                self._contents.clear()
                self._contents_bytes = 0
                missing = list(wanted)
            fetched = sandboxes.contents(batch.tx, missing, MAX_INLINE_BYTES)
            self._contents.update(fetched)
            self._contents_bytes += sum(map(len, fetched.values()))
        return self._contents

    # -- parked requests ----------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When the next parked request must be answered."""
        return self._deadlines[0][0] if self._deadlines else None

    def answer_overdue(self, batch: Batch) -> None:
        """Tell those that waited in vain why."""
        overdue: list[Key] = []
        while self._deadlines and self._deadlines[0][0] <= batch.now:
            deadline, key = heapq.heappop(self._deadlines)
            one = self._waiting.get(key)
            if one is not None and one.deadline == deadline:
                self._say_why_not(batch, one)
                overdue.append(key)
        if overdue:
            parked.remove(batch.tx, set(overdue))
            for key in overdue:
                self._drop(key)

    def forget(self, clients: Collection[str]) -> None:
        """These clients are gone."""
        for key in [key for key in self._waiting if key[0] in clients]:
            self._drop(key)

    def _keep(self, one: Asked) -> None:
        one.message = None
        one.csr_of = {}
        self._slots[one.client] += one.key not in self._waiting
        self._waiting[one.key] = one
        self._parked.add(one.key, one.request.offer)
        heapq.heappush(self._deadlines, (one.deadline, one.key))
        if len(self._deadlines) > 2 * len(self._waiting) + 1000:  # replaced requests leave theirs behind
            self._deadlines = sorted((waiting.deadline, key) for key, waiting in self._waiting.items())

    def _drop(self, key: Key) -> None:
        if self._waiting.pop(key, None) is not None:
            self._parked.remove(key)
            self._slots[key[0]] -= 1
            if not self._slots[key[0]]:
                del self._slots[key[0]]


def _carried(claimed: Claimed) -> Iterator[SandboxFile]:
    """Files of a job that may travel inside the match, as far as their sizes tell."""
    total = 0
    for file in _files(claimed):
        if total + file.size <= MAX_INLINE_BYTES:
            total += file.size
            yield file


def _files(claimed: Claimed) -> tuple[SandboxFile, ...]:
    return msgspec.json.decode(claimed.files, type=tuple[SandboxFile, ...]) if claimed.files != b"[]" else ()


def _weight(claimed: Claimed, contents: Mapping[str, bytes]) -> int:
    inside = sum(len(contents.get(file.sha256, b"")) for file in _carried(claimed)) if claimed.files != b"[]" else 0
    return len(claimed.description) + len(claimed.data) + len(claimed.files) + min(inside, MAX_INLINE_BYTES) * 4 // 3


def _match(claimed: Claimed, csr: int, contents: dict[str, bytes]) -> Match:
    total = 0
    carried = []
    for file in _files(claimed):
        content = contents.get(file.sha256)
        if content is not None and total + len(content) <= MAX_INLINE_BYTES:
            total += len(content)
            file = msgspec.structs.replace(file, content=content)  # noqa: PLW2901 - the same file, with its bytes
        carried.append(file)
    data = msgspec.json.decode(claimed.data, type=tuple[InputFile, ...]) if claimed.data != b"[]" else ()
    return Match(
        job=claimed.job,
        attempt=claimed.attempt,
        owner=claimed.owner,
        group=claimed.grp,
        lease_until=claimed.lease_until,
        run_lease=claimed.lease_seconds,
        description=msgspec.Raw(claimed.description),
        files=tuple(carried),
        data=data,
        csr=csr,
    )


def _matched(claimed: Claimed, one: Asked, now: float) -> JobChange:
    return JobChange(
        job=claimed.job,
        status=JobStatus.MATCHED,
        attempt=claimed.attempt,
        time=now,
        owner=claimed.owner,
        group=claimed.grp,
        site=one.request.offer.site,
        pilot=one.client,
        source="matcher",
        cause="matched",
    )
