"""What an offer is worth when it is looked at: less time than it says, and perhaps fewer owners.

A pilot says what it has at the moment of asking. It may be older than that when a job is looked for, its right to be
here may end before its slot does, and it may serve one owner only. Promises: nothing here ever widens an offer; what
comes out for a later moment is never more than for an earlier one. Pure.

Units: ``wall_seconds`` are seconds by the clock; ``cpu_seconds`` are work per processor, HS06·s, so their quotient is
the power of one processor, HS06.
"""

from __future__ import annotations

from math import inf

from msgspec.structs import replace

from schemas.messages.pilot import Offer

ASSUMED_POWER = 10.0
"""HS06 of one processor where an offer says CPU work but no wall time: what the grid assumes of a node."""


def bounded(offer: Offer, seconds_left: float = inf, age: float = 0.0) -> Offer:
    """The offer with the time that is really left.

    The CPU work shrinks with the wall time, by the power that the offer itself says.

    Args:
        offer: as it was made.
        seconds_left: how long the pilot may still act, from now on: the life of the chain that it signs with, or of its
            enrolment.
        age: seconds since the offer was made.
    """
    age, seconds_left = max(0.0, age), max(0.0, seconds_left)
    if not offer.wall_seconds:
        work = max(0.0, min(offer.cpu_seconds - age * ASSUMED_POWER, seconds_left * ASSUMED_POWER))
        return offer if work == offer.cpu_seconds else replace(offer, cpu_seconds=work)
    wall = max(0.0, min(offer.wall_seconds - age, seconds_left))
    if wall == offer.wall_seconds:
        return offer
    return replace(offer, wall_seconds=wall, cpu_seconds=offer.cpu_seconds * (wall / offer.wall_seconds))


def private(offer: Offer, owner: str) -> Offer:
    """The offer of a private pilot: its owner's jobs only, whatever it says itself."""
    return offer if offer.owners == (owner,) else replace(offer, owners=(owner,))
