"""How much somebody may have or ask for: the built-in limits, and operators' own. Pure.

Of the limits for one measure the most special counts: the user's own (``dn:``), then his group's, then everybody's
(``*``), then the built-in one. A group's limit is for all of the group together where things are counted; the size of
one submission, and what one owner keeps in the sandbox store, are each submission's and each owner's in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.access import ANYTHING, Limit, Measure

BUILT_IN: Mapping[Measure, int] = {
    # As many waiting jobs as the matcher and the store were measured with.
    Measure.ACTIVE_JOBS: 1_000_000,
    # Sustained a hundred a second: more than a script makes one by one. Who wants more jobs sends many in one
    # submission, which costs all of us far less.
    Measure.SUBMISSIONS_PER_MINUTE: 6_000,
    # Ten of the largest submissions, more than any site runs in an hour. At 2 kB each a user who loops fills 2 GB
    # before somebody looks, not the disk.
    Measure.JOBS_PER_HOUR: 1_000_000,
    # The message's own bound (schemas.messages.user): descriptions, and small files inside.
    Measure.SUBMISSION_BYTES: 1 << 20,
    # A hundred of the largest sandboxes that no job refers to (yet).
    Measure.SANDBOX_BYTES: 1 << 30,
}
"""Of one identity, where operators set nothing."""

LIMITED: Mapping[str, tuple[Measure, ...]] = {
    "job.submit.v1": (
        Measure.SUBMISSIONS_PER_MINUTE,
        Measure.JOBS_PER_HOUR,
        Measure.ACTIVE_JOBS,
        Measure.SUBMISSION_BYTES,
    ),
    "sandbox.put.v1": (Measure.SANDBOX_BYTES,),
}
"""Which messages each limit can refuse."""

SHARED = frozenset({Measure.ACTIVE_JOBS, Measure.SUBMISSIONS_PER_MINUTE, Measure.JOBS_PER_HOUR})
"""Measures of which a group's limit is for all its members together."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The limit that counts.

    Attributes:
        value: the most.
        of_group: the group's members share it.
        source: who set it, for people.
    """

    measure: Measure
    value: int
    of_group: bool
    source: str

    @property
    def whose(self) -> str:
        """Whose things are counted, for people."""
        return "of your group" if self.of_group else "of yours"


def ceiling(limits: Iterable[Limit], measure: Measure, identity: str, group: str) -> Ceiling:
    """The limit that counts for somebody who acts for a group."""
    by_who = {limit.who: limit.value for limit in limits if limit.measure is measure}
    for who, source in ((f"dn:{identity}", "set for you"), (f"group:{group}", f"set for group {group!r}")):
        if who in by_who:
            return Ceiling(measure, by_who[who], who.startswith("group:") and measure in SHARED, source)
    if ANYTHING in by_who:
        return Ceiling(measure, by_who[ANYTHING], False, "set for everybody")
    return Ceiling(measure, BUILT_IN[measure], False, "built in")
