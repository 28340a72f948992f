"""What is said to pilots: their matches with everything that the payload needs, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from schemas.job import JobStatus
from schemas.messages.common import MAX_INLINE_BYTES, InputFile, SandboxFile
from schemas.messages.event import EndedLease, JobChange, ProxyWanted
from schemas.messages.pilot import Offer
from schemas.messages.service import Match, MatchResponse

from ..batch import Batch
from ..changes import Changes
from ..domain.choose import NoMatch, why_not
from ..domain.facts import Unroutable
from ..domain.index import Index
from ..domain.requirements import not_theirs
from ..store import sandboxes
from ..store.rows import Claimed
from .asked import Asked
from .limiting import Limiting
from .rights import Rights

MAX_RESPONSE_BYTES = 6 << 20
"""Matches of one answer, about: the pilot refuses a message above 8 MiB, and with it everybody's jobs in it. A single
match stays far below (descriptions and copies of input data are bounded)."""

MAX_REASONS = 10
"""Reasons in an empty answer."""

MAX_REASON = 500
"""Characters of each."""

GONE = "what fits was given to others meanwhile"

MAX_OWNERS = 256
"""Owners whose rights are looked at for an empty answer."""


class Answers:
    """Makes answers. Keeps the contents of small input files, which many jobs share.

    Args:
        index: for the reasons.
        limits: likewise; they are told what waits on.
        rights: likewise.
    """

    def __init__(self, index: Index, limits: Limiting, rights: Rights) -> None:
        self._index = index
        self._limits = limits
        self._rights = rights
        self._contents: dict[str, bytes] = {}
        self._contents_bytes = 0

    def give(self, batch: Batch, at_work: Sequence[Asked]) -> list[JobChange]:
        """Answer those that got something; what is too much for one answer waits on and is theirs no more.

        Returns:
            What became of the jobs.
        """
        contents = self._inline(batch, [claimed for one in at_work for claimed in one.claimed])
        self._limits.ended(_give_back(batch, at_work, contents))
        changed: list[JobChange] = []
        for one in at_work:
            if one.claimed:
                self._respond(batch, one, contents)
                changed.extend(_matched(claimed, one, batch.now) for claimed in one.claimed)
        return changed

    def say_why_not(self, batch: Batch, one: Asked) -> None:
        """Answer that there is nothing, and why."""
        offer = one.offer(batch.now)
        fitting = self._index.classes.fitting(offer)
        closed = self._limits.closed_for(offer, batch.now)
        found = why_not(offer, self._index, closed=closed)
        more = [*_unserved(self._index, one, offer, fitting, self._rights, batch.now)] if fitting else []
        if closed is not None and not offer.owners:  # what others' limits are is nothing for a private pilot
            more.extend(islice(closed.texts(fitting, self._index), MAX_REASONS // 2))
        if not found and not more and any(group.mask & fitting for group in self._index.groups.values()):
            more.append(GONE)
        if one.kept:
            more.insert(0, one.kept)
        texts = NoMatch(found).texts()[: MAX_REASONS - len(more)] if found or not more else ()
        reasons = tuple(text[:MAX_REASON] for text in (*texts, *more))
        _say(batch, one, MatchResponse(slot=one.request.slot, reasons=reasons))

    def _respond(self, batch: Batch, one: Asked, contents: dict[str, bytes]) -> None:
        """Answer with what was claimed; the proxy of a job that has its own serves no other."""
        wanted: set[tuple[str, str]] = set()
        matches = []
        for claimed in one.claimed:
            if claimed.own_proxy:
                matches.append(msgspec.structs.replace(_match(claimed, -1, contents), own_proxy=True))
                continue
            place = one.csr_of[claimed.owner, claimed.grp]
            if place >= 0 and (claimed.owner, claimed.grp) not in wanted:
                wanted.add((claimed.owner, claimed.grp))
                self._order_proxy(batch, one, claimed, place)
            matches.append(_match(claimed, place, contents))
        response = MatchResponse(slot=one.request.slot, matches=tuple(matches))
        _say(batch, one, response)

    @staticmethod
    def _order_proxy(batch: Batch, one: Asked, claimed: Claimed, place: int) -> None:
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


def _unserved(index: Index, one: Asked, offer: Offer, fitting: int, rights: Rights, now: float) -> Iterator[str]:
    """What of all that fits an offer is kept from this pilot by its owners' rights, or for want of a proxy."""
    barred = keyless = 0
    theirs = (
        (group.name, owner.name)
        for group in index.groups.values()
        if group.mask & fitting
        for owner in group.owners.values()
        if owner.mask & fitting and not_theirs(offer, owner.name, group.name) is None
    )
    for group, owner in islice(theirs, MAX_OWNERS):
        if rights.is_barred(owner, group, offer.site):
            barred += 1
        elif one.proxy_place(owner, group, now) is None:
            keyless += 1
    if barred:
        yield f"{_owners(barred)}: rules, or the loss of their rights, keep their jobs from site {offer.site}"
    if keyless:
        yield f"{_owners(keyless)}: the request brought no certificate request for their proxies"


def _owners(count: int) -> str:
    return f"{count} owner{'' if count == 1 else 's'}"


def _say(batch: Batch, one: Asked, response: MatchResponse) -> None:
    if one.message is not None:
        batch.answer(one.message, response)
    else:
        batch.tell(one.client, response, one.correlation)


def _give_back(batch: Batch, at_work: Sequence[Asked], contents: Mapping[str, bytes]) -> list[EndedLease]:
    """What does not fit into one answer waits on, uncharged; its leases are over."""
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
    if not excess:
        return []
    changes = Changes(batch, "matcher")
    changes.load([claimed.job for claimed, _ in excess])
    for claimed, client in excess:
        changes.decide(claimed.job, Unroutable(claimed.attempt, client))
    changes.flush()
    return changes.ended()


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
