"""What pilots offer, for others to see: each pilot's newest offer, but not with each of many requests a second."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.messages.pilot import Offer

from .asked import Asked

NOTE_SECONDS = 10.0
"""How old the offer that is shown of a busy pilot may be."""

MAX_NOTED = 100_000
"""Pilots remembered for it; then all are noted anew."""


class Noticeboard:
    """Which offers are to be written down now. Memory grows with the pilots that asked lately."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._owed: dict[str, Offer] = {}

    def take(self, asked: Iterable[Asked], now: float) -> list[Asked]:
        """Of these requests those to be noted at once; the others' offers are owed (:meth:`due`)."""
        newest = {one.client: one for one in asked}
        at_once = []
        for client, one in newest.items():
            if now < self._next.get(client, 0.0):
                self._owed[client] = one.request.offer
            else:
                at_once.append(one)
                self._owed.pop(client, None)
        if len(self._next) > MAX_NOTED:
            self._next.clear()
        self._next.update(dict.fromkeys((one.client for one in at_once), now + NOTE_SECONDS))
        return at_once

    def due(self, now: float) -> dict[str, Offer]:
        """Owed offers whose time has come, by client: what a pilot that asks no more had asked last."""
        ripe = [client for client in self._owed if now >= self._next.get(client, 0.0)]
        self._next.update(dict.fromkeys(ripe, now + NOTE_SECONDS))
        return {client: self._owed.pop(client) for client in ripe}
