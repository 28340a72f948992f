"""Proxies of jobs that go on for longer than them: asked for in time, and put into the place of the old ones.

The rules. A proxy is asked for anew when a quarter of its life is left; while no answer comes, or a refusal, again and
again, ever sooner, but never more often than every :data:`SHORTEST_RETRY` and at least every :data:`LONGEST_RETRY`
seconds. What comes replaces the file of each running job that it serves, at once and whole. Whatever goes wrong is
logged, and the payload goes on: it may not need its proxy any more, and the end of its lease is another matter. Jobs
with a proxy of their own ask for it before they start, the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import structlog

from broker.identity import Credential
from schemas.messages.proxies import RequestProxy

from .post import Post
from .proxies import Held, Proxies, Slot
from .sandbox import SandboxError
from .task import Stage, Task

REFRESH_SHARE = 0.25
"""Of its life a proxy has left when the next is asked for: of 12 h three, so that an outage of ours may take hours."""

SHORTEST_RETRY = 5.0
"""A request under way is answered within a second; more requests would only be more."""

LONGEST_RETRY = 600.0
"""Whoever was refused may be allowed again: his proxy was renewed, say."""

PLACE_RETRY = 60.0
"""After a file could not be replaced: its disk is full, perhaps."""

REMEMBERED = 64
"""Requests under way at most."""

log = structlog.get_logger(__name__)


def wants_new(held: Held, now: float) -> bool:
    """Whether it is time to ask for the next one."""
    return held.until - now < REFRESH_SHARE * (held.until - held.since)


def retry_after(held: Held | None, now: float) -> float:
    """Seconds until the next request, if nothing comes."""
    left = 0.0 if held is None else held.until - now
    if left <= 0:
        return SHORTEST_RETRY if held is None else LONGEST_RETRY
    return min(LONGEST_RETRY, max(SHORTEST_RETRY, left / 4))


class Refresh:
    """Keeps running jobs in proxies.

    Args:
        post: what is to be said.
        proxies: keys and proxies.
        place: puts a proxy into a running attempt's file.
    """

    def __init__(self, post: Post, proxies: Proxies, place: Callable[[Task, Credential], None]) -> None:
        self._post = post
        self._proxies = proxies
        self._place = place
        self._next: dict[Slot, float] = {}
        self._asked: OrderedDict[str, bytes] = OrderedDict()

    def turn(self, tasks: Iterable[Task], now: float) -> None:
        """Ask for what is due, and place what came."""
        needy: dict[Slot, Task] = {}
        for task in tasks:
            if task.stage is Stage.RUNNING and task.payload is not None and task.outcome is None:
                self._put(task, now)
            elif not task.match.own_proxy or task.stage not in {Stage.STAGING, Stage.PROXY} or task.proxy_refused:
                continue
            if not task.abandoned and not task.killed:
                # The job whose lease lasts longest asks for all.
                needy[task.slot] = max(needy.get(task.slot, task), task, key=lambda one: one.lease_end)
        self._next = {slot: at for slot, at in self._next.items() if slot in needy}
        for slot, task in needy.items():
            held = self._proxies.held(slot)
            if now >= self._next.get(slot, 0.0) and (held is None or wants_new(held, now)):
                self._ask(slot, task, held, now)

    def refused(self, slot: Slot, reason: str) -> None:
        """A running job gets no new proxy (yet)."""
        log.warning("pilot.proxy_not_renewed", owner=slot.owner, group=slot.group, reason=reason)

    def on_refused(self, message_id: str, reason: str) -> Slot | None:
        """A request was refused as such; for which slot, or None if it was none of these."""
        csr = self._asked.pop(message_id, None)
        if csr is None:
            return None
        slot = self._proxies.slot_of(csr)
        self._proxies.drop(csr)
        if slot is not None:
            self.refused(slot, reason)
        return slot

    def _ask(self, slot: Slot, task: Task, held: Held | None, now: float) -> None:
        csr = self._proxies.request(slot)
        message_id = self._post.say(RequestProxy(job=task.match.job, attempt=task.match.attempt, csr=csr))
        self._asked[message_id] = csr
        while len(self._asked) > REMEMBERED:
            self._proxies.drop(self._asked.popitem(last=False)[1])
        self._next[slot] = now + retry_after(held, now)
        if held is not None:
            log.info("pilot.proxy_asked_again", owner=slot.owner, job=task.match.job, left=round(held.until - now))

    def _put(self, task: Task, now: float) -> None:
        """Place the newest proxy of a running job, if its file holds another."""
        held = self._proxies.held(task.slot)
        if held is None or held.credential is task.proxy or held.until <= now or now < task.place_after:
            return
        try:
            self._place(task, held.credential)
        except (SandboxError, OSError) as error:
            # The error's own text: no key is in it, only the file's name.
            log.warning("pilot.proxy_not_placed", job=task.match.job, reason=str(error))
            task.place_after = now + PLACE_RETRY
        else:
            task.proxy = held.credential
            log.info("pilot.proxy_renewed", job=task.match.job, until=held.until)
