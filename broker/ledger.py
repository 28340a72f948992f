"""The bookkeeping of AMQP tags: which publications are unconfirmed, which deliveries are unsettled. Pure, one thread.

Lives as long as one channel: tags start at 1 on every new channel, and a book is thrown away with its channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class ConfirmLedger(Generic[Entry]):
    """Publications that were sent on one channel and are not yet confirmed.

    AMQP numbers them 1, 2, ... in the order of sending; a confirm names one number, or all up to one
    (``multiple``; 0 then means all that are open).
    """

    __slots__ = ("_bytes", "_open", "_sent")

    def __init__(self) -> None:
        self._open: dict[int, tuple[Entry, int]] = {}  # insertion order = order of tags
        self._sent = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def bytes(self) -> int:
        """The summed sizes of the open publications."""
        return self._bytes

    def add(self, entry: Entry, size: int = 0) -> int:
        """Notes a publication as sent and returns its tag."""
        self._sent += 1
        self._open[self._sent] = (entry, size)
        self._bytes += size
        return self._sent

    def settle(self, tag: int, *, multiple: bool = False) -> list[Entry]:
        """Removes and returns what a confirm covers; an unknown tag covers nothing."""
        if not multiple:
            found = self._open.pop(tag, None)
            if found is None:
                return []
            self._bytes -= found[1]
            return [found[0]]
        covered = list(takewhile(lambda open_tag: not tag or open_tag <= tag, self._open))
        settled: list[Entry] = []
        for covered_tag in covered:
            entry, size = self._open.pop(covered_tag)
            self._bytes -= size
            settled.append(entry)
        return settled

    def entries(self) -> Iterable[Entry]:
        """The open publications, oldest first."""
        return (entry for entry, _ in self._open.values())

    def clear(self) -> list[Entry]:
        """Removes and returns everything, oldest first."""
        return self.settle(0, multiple=True)


class AckBook:
    """Deliveries of one channel that are not yet settled, and the fewest frames that settle some of them.

    A ``multiple`` acknowledgement covers every open tag up to its own, so it may be used exactly for the run at
    the front of the book; the others are acknowledged one by one.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # insertion order = order of tags

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tag: int) -> None:
        """Notes a delivery."""
        self._open[tag] = None

    def ack(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Settles ``tags`` and returns the frames as (tag, multiple); tags that are not open are skipped."""
        chosen = {tag for tag in tags if tag in self._open}
        frames: list[tuple[int, bool]] = []
        last, run = 0, 0
        for tag in self._open:
            if tag not in chosen:
                break
            last, run = tag, run + 1
        if run:
            frames.append((last, run > 1))
        frames.extend((tag, False) for tag in sorted(chosen) if tag > last)
        for tag in chosen:
            del self._open[tag]
        return frames

    def remove(self, tags: Iterable[int]) -> list[int]:
        """Settles ``tags`` one by one and returns those that were open, in order."""
        chosen = sorted({tag for tag in tags if tag in self._open})
        for tag in chosen:
            del self._open[tag]
        return chosen
