"""When a stored proxy is renewed, warned of and forgotten, how long a pilot's lives, and for which group it serves.

Pure: figures in, decisions out. All times are seconds since the epoch, all lengths seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.errors import InvalidInputError
from schemas.identity import Fqan

HOUR = 3600.0

SLOW_POWER = 5.0
"""Normalised power (HS06) of a slow core: half of what the grid assumes of a node. CPUTime is work, a proxy ends by the
clock."""

TRANSFER_MARGIN = HOUR
"""For the input before the payload and the output after it."""

RENEW_SHARE = 0.25
"""A proxy is renewed when less than this share of its life is left: of 12 h the last three. An outage of MyProxy may
take hours."""

FIRST_RETRY = 60.0
"""After a failed renewal; doubled with each."""

LONGEST_RETRY = 1800.0
"""Six tries within the last three hours at least."""

WARNINGS = (2 * HOUR, HOUR / 2)
"""The owner is told twice: while he can do something about it at his desk, and at the last moment."""


@dataclass(frozen=True, slots=True)
class IssueBounds:
    """How long a pilot's proxy may live.

    Attributes:
        floor: less serves nobody: a pilot holds a job before it starts, and each issue costs a message.
        ceiling: a thief of the node has no longer; who runs on asks again.
    """

    floor: float = HOUR
    ceiling: float = 12 * HOUR


def issue_seconds(cpu_time: float, left: float, bounds: IssueBounds) -> float:
    """Lifetime of a pilot's proxy for a job.

    Args:
        cpu_time: normalised CPU work that the job asks for, per processor.
        left: what the owner's proxy still lives.
        bounds: floor and ceiling.

    Returns:
        As long as the job needs on a slow node and for its transfers, between the bounds; never longer than ``left``.
    """
    need = cpu_time / SLOW_POWER + TRANSFER_MARGIN
    return max(0.0, min(left, bounds.ceiling, max(bounds.floor, need)))


def renewal_due(stored: float, not_after: float, now: float) -> bool:
    """Whether a proxy should be renewed now; one that has ended cannot be any more."""
    return now < not_after and not_after - now < RENEW_SHARE * (not_after - stored)


def attribute_due(stored: float, not_after: float, attribute_until: float | None, now: float) -> bool:
    """Whether a proxy should get a VOMS attribute now: it has none, or one that ends while the proxy lives on."""
    if now >= not_after:
        return False
    if attribute_until is None:
        return True
    return attribute_until < not_after and attribute_until - now < RENEW_SHARE * (not_after - stored)


def next_try(failures: int, now: float) -> float:
    """When to try again after so many failures in a row."""
    return now + min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** max(0, min(failures, 32) - 1))


def warning_due(stored: float, not_after: float, warned: float | None, now: float) -> float | None:
    """The threshold to warn of now, or None.

    Thresholds above half of the proxy's life do not count: it was so short from the beginning, and its owner knows.

    Args:
        stored: when it was stored.
        not_after: its end.
        warned: the threshold that was warned of last.
        now: the time.
    """
    left = not_after - now
    if left <= 0:
        return None
    passed = [limit for limit in WARNINGS if left < limit <= (not_after - stored) / 2]
    lowest = min(passed, default=None)
    return lowest if lowest is not None and (warned is None or lowest < warned) else None


def why_unfit(claimed: Iterable[str], own: str, pilots: Collection[str], others: Collection[str]) -> str:
    """Why a proxy with these attributes does not serve jobs of a group; empty if it does.

    Membership of other groups does no harm: who is in them has them everywhere. A *role* is asked for on purpose, and
    one of another group of ours (the pilots' above all) would let a payload act for that group.

    Args:
        claimed: FQANs that the proxy's attribute certificates name, proven or not.
        own: FQAN of the group that the proxy is for; may be empty.
        pilots: FQANs of pilots' groups.
        others: FQANs of all other groups.
    """
    mine = _normal(own)
    forbidden = {_normal(one) for one in pilots if one} - {None}
    roles = {_normal(one) for one in others if one} - {None}
    for text in claimed:
        fqan = _normal(text)
        if fqan is None:
            continue  # unreadable: nobody can act by it
        if fqan in forbidden:
            return f"it carries the pilots' attribute {text}: no payload runs with it"
        if fqan != mine and "/Role=" in fqan and fqan in roles:
            return f"it carries {text}, which is another group's"
    return ""


def _normal(text: str) -> str | None:
    try:
        return str(Fqan.parse(text))
    except InvalidInputError:
        return None


def has_attribute(fqans: Iterable[str], own: str) -> bool:
    """Whether these FQANs contain the group's own."""
    mine = _normal(own)
    return mine is not None and any(_normal(text) == mine for text in fqans)
