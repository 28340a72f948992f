"""Sets of classes as the bits of one Python int each: by value, by amount, and remembered per kind of offer.

Who changes the classes writes it into a :class:`Journal`; what is remembered is then put right class by class when it
is next asked for, not thrown away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
C = TypeVar("C")

MAX_CHANGES = 256
"""Changes after which an answer is worked out anew: testing one class takes about a third of a microsecond, asking for
all of some thousands 50 to 200."""


class Bits(dict[K, int], Generic[K]):
    """Value → classes that have it."""

    def put(self, value: K, bit: int) -> None:
        """A class has this value."""
        self[value] = self.get(value, 0) | bit

    def drop(self, value: K, bit: int) -> None:
        """A class that had this value goes."""
        left = self[value] & ~bit
        if left:
            self[value] = left
        else:
            del self[value]


class Steps:
    """Classes that need at least some amount; :meth:`within` gives those that a given amount satisfies."""

    def __init__(self) -> None:
        self._bits: Bits[int] = Bits()
        self._values: list[int] = []
        self._sums: list[int] = []

    def put(self, value: int, bit: int) -> None:
        """A class needs this amount."""
        place = bisect_left(self._values, value)
        if value not in self._bits:
            self._values.insert(place, value)
        self._bits.put(value, bit)
        del self._sums[place:]

    def drop(self, value: int, bit: int) -> None:
        """A class that needed this amount goes."""
        place = bisect_left(self._values, value)
        self._bits.drop(value, bit)
        if value not in self._bits:
            del self._values[place]
        del self._sums[place:]

    def within(self, amount: float) -> int:
        """The classes that need no more."""
        rank = bisect_right(self._values, amount)
        sums = self._sums
        while len(sums) < rank:
            sums.append((sums[-1] if sums else 0) | self._bits[self._values[len(sums)]])
        return sums[rank - 1] if rank else 0


class Journal(Generic[C]):
    """The last changes of the classes: each a bit, and the class that it stands for from then on (``None``: none)."""

    def __init__(self) -> None:
        self.version = 0
        self._changes: list[tuple[int, C | None]] = []

    def note(self, bit: int, now: C | None) -> None:
        """A class comes or goes."""
        self.version += 1
        self._changes.append((bit, now))
        if len(self._changes) >= 2 * MAX_CHANGES:
            del self._changes[:MAX_CHANGES]

    def since(self, version: int) -> list[tuple[int, C | None]] | None:
        """What changed after a version; ``None`` if that was too much."""
        count = self.version - version
        return self._changes[len(self._changes) - count :] if count <= MAX_CHANGES else None


class Remembered(Generic[K, C]):
    """The classes that one condition leaves, for each value that offers have of it."""

    def __init__(
        self, journal: Journal[C], every: Callable[[K], int], one: Callable[[K, C], bool], most: int = 4096
    ) -> None:
        """Start with nothing.

        Args:
            journal: of the classes.
            every: value → all classes that pass.
            one: whether one class passes; the same question.
            most: values kept; the one that came first goes first.
        """
        self._journal, self._every, self._one, self._most = journal, every, one, most
        self._answers: dict[K, tuple[int, int]] = {}

    def forget(self) -> None:
        """Work everything out anew."""
        self._answers.clear()

    def get(self, value: K) -> int:
        """The classes that pass."""
        version = self._journal.version
        known = self._answers.get(value)
        if known is not None and known[1] == version:
            return known[0]
        changes = None if known is None else self._journal.since(known[1])
        if known is None or changes is None:
            mask = self._every(value)
        else:
            mask = known[0]
            for bit, now in changes:
                mask = mask | bit if now is not None and self._one(value, now) else mask & ~bit
        if known is None and len(self._answers) >= self._most:
            del self._answers[next(iter(self._answers))]
        self._answers[value] = mask, version
        return mask
