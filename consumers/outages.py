"""Times when nobody of ours listened: pilots must not pay for them with their leases. Pure values."""

from __future__ import annotations

import msgspec

REMEMBERED_SECONDS = 7 * 86_400.0
"""Longer than any lease."""


class Outage(msgspec.Struct, frozen=True):
    """From when to when, seconds since the epoch."""

    start: float
    end: float


class _Kept(msgspec.Struct):
    listened: float
    outages: list[Outage]


class Outages:
    """Remembers outages and how much of them lies in an interval.

    Args:
        longest_gap: seconds between two looks that are not yet an outage.
    """

    def __init__(self, longest_gap: float) -> None:
        self._gap = longest_gap
        self._listened: float | None = None
        self._outages: list[Outage] = []

    def restore(self, kept: bytes | None, now: float) -> None:
        """Go on from what an earlier process wrote."""
        if kept is None:
            self._listened = now
            return
        state = msgspec.json.decode(kept, type=_Kept)
        self._listened, self._outages = state.listened, state.outages

    def dump(self) -> bytes:
        """What to write down."""
        return msgspec.json.encode(_Kept(self._listened or 0.0, self._outages))

    def listened(self, now: float) -> None:
        """We listen now; if the last time is long ago, that was an outage."""
        last, self._listened = self._listened, now
        if last is not None and now - last > self._gap:
            self._outages.append(Outage(last, now))
        self._outages = [outage for outage in self._outages if outage.end > now - REMEMBERED_SECONDS]

    def between(self, start: float, end: float) -> float:
        """Seconds of outage within an interval."""
        return sum(max(0.0, min(end, outage.end) - max(start, outage.start)) for outage in self._outages)
