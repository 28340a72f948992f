"""Jobs for one request: chosen one by one by :func:`consumers.domain.choose.reserve`, side by side and in rounds."""

from __future__ import annotations

from ..batch import Batch
from ..domain.choose import Closed, NoMatch, Serves, reserve
from ..domain.index import Index, Queue
from ..domain.packing import Packing
from ..domain.reservations import Only, Reservations
from .asked import Asked
from .limiting import Limiting
from .pages import Pages
from .rights import Rights

KEPT = "the pilot is kept for a job that waited long and needs more than is free now"


class Chooser:
    """Chooses jobs; what it chose is taken out of the index and is to be claimed.

    Args:
        index: what waits.
        pages: of job ids.
        rights: who may have jobs run where.
        limits: on running jobs.
        reservations: pilots that are kept for large jobs.
    """

    def __init__(
        self, index: Index, pages: Pages, rights: Rights, limits: Limiting, reservations: Reservations
    ) -> None:
        self._index = index
        self._pages = pages
        self._rights = rights
        self._limits = limits
        self._reservations = reservations

    def choose(self, batch: Batch, one: Asked, spoken_for: set[int]) -> None:
        """Choose job by job: what a pilot can serve changes with each job, and with each certificate request."""
        offer = one.offer(batch.now)
        site = offer.site

        def serves(group: str, owner: str) -> bool:
            if self._rights.is_barred(owner, group, site):
                return False
            return one.proxy_place(owner, group, batch.now) is not None

        packing = one.packing = one.packing or Packing(offer)
        if not one.claimed and not self._has_its_turn(batch, one, packing, serves, spoken_for):
            return
        while len(one.choices) < one.wanted:
            if self._choose_one(batch, one, packing, serves, spoken_for):
                continue
            # Only who asks for more jobs than it has processors wants some that wait there for the first to end.
            if one.request.jobs <= offer.processors or not packing.next_round():
                return

    def _has_its_turn(self, batch: Batch, one: Asked, packing: Packing, serves: Serves, spoken_for: set[int]) -> bool:
        """Whether it takes what comes: it is kept for no job, or has just got that."""
        offer = packing.left
        closed = self._limits.closed_for(offer, batch.now)
        queue = self._reservations.ask(one.key, offer, batch.now, serves, closed)
        if queue is not None and not self._index.classes.fitting(offer) >> queue.place & 1:
            one.kept = KEPT
            return False
        one.kept = ""
        if queue is not None:
            self._choose_one(batch, one, packing, serves, spoken_for, queue)
            self._reservations.release(one.key)  # it has what it was kept for, or cannot have it
        return True

    def _choose_one(
        self,
        batch: Batch,
        one: Asked,
        packing: Packing,
        serves: Serves,
        spoken_for: set[int],
        only: Queue | None = None,
    ) -> bool:
        """Choose a job beside those chosen (of one class only); whether there is one."""
        while packing.left.processors and self._index.classes.fitting(packing.left):
            closed: Closed | None = self._limits.closed_for(packing.left, batch.now)
            if only is not None:
                closed = Only(only, closed)
            chosen = reserve(packing.left, self._index, batch.now, 1, serves, closed)
            if isinstance(chosen, NoMatch):
                return False
            choice = chosen[0]
            queue = self._index.queue(choice.queue_id)
            job = self._pages.next_job(batch.tx, choice, spoken_for)
            if job is None:
                continue  # the counts were put right meanwhile
            place = one.proxy_place(queue.owner.name, queue.group.name, batch.now)
            if place is not None:
                one.csr_of[queue.owner.name, queue.group.name] = place
            spoken_for.add(job)
            self._limits.chosen(packing.left, choice, job, batch.now)
            one.choices.append((choice, job))
            one.placed[job] = packing.place(queue.requirements)
            return True
        return False
