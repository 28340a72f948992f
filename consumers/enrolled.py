"""Pilots that were enrolled, as the directory knows them.

They are not in the registry's tables, for they come and go by the thousand. Promises: a revoked one is known as revoked
within :data:`REFRESH_SECONDS`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from math import inf

from .store import Store, enrolments

REFRESH_SECONDS = 2.0
"""As the registry's own."""

CACHED_PILOTS = 50_000
"""About 300 bytes each: the pilots of a large grid."""


@dataclass(frozen=True, slots=True)
class EnrolledPilot:
    """What an enrolment says of a pilot; ``ends``: when its identity ends for good, however often it is renewed."""

    group: str
    site: str
    revoked: bool
    ends: float


class EnrolledPilots:
    """Looks enrolled pilots up by their identity; what it knows of them never changes but by a revocation.

    Args:
        store: the state.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, EnrolledPilot] = OrderedDict()
        self._version = -1
        self._looked = float("-inf")

    def get(self, identity: str) -> EnrolledPilot | None:
        """The pilot of this identity; None if nobody was enrolled under that name."""
        with self._lock:
            self._refresh()
            found = self._known.get(identity)
            if found is not None:
                self._known.move_to_end(identity)
                return found
            version = self._version
        with self._store.reading() as tx:
            row = enrolments.of_identity(tx, identity)
        if row is None or row.used is None:
            return None
        pilot = EnrolledPilot(row.grp, row.site, row.revoked is not None, inf if row.ends is None else row.ends)
        with self._lock:
            if version == self._version:
                self._known[identity] = pilot
                while len(self._known) > CACHED_PILOTS:
                    self._known.popitem(last=False)
        return pilot

    def version(self) -> int:
        """Grows with each revocation."""
        with self._lock:
            self._refresh()
            return self._version

    def forget(self) -> None:
        """Somebody was revoked just now: look at once."""
        with self._lock:
            self._looked = float("-inf")

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked <= REFRESH_SECONDS:
            return
        with self._store.reading() as tx:
            version = enrolments.version(tx)
        if version != self._version:
            self._known.clear()
            self._version = version
        self._looked = now
