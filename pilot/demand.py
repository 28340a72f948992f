"""How much work to ask for. Pure: figures in, figures out.

One job per free processor; where payloads are short, some more in advance, so that the pilot does not wait a round trip
between two of them. What is held in advance is bounded by time, not by count: nobody else's pilot should starve for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.messages.pilot import MAX_JOBS_PER_REQUEST

HORIZON_SECONDS = 0.25
"""Work to hold in advance: covers a match round trip on a loaded system several times."""

SMOOTHING = 0.2
"""Weight of the newest payload in the mean duration."""


@dataclass(slots=True)
class Demand:
    """Learns how long payloads take.

    Attributes:
        processors: what the pilot has.
    """

    processors: int
    mean_seconds: float | None = None

    def ended(self, seconds: float) -> None:
        """A payload took so long."""
        known = self.mean_seconds
        self.mean_seconds = seconds if known is None else (1 - SMOOTHING) * known + SMOOTHING * seconds

    def in_advance(self) -> int:
        """Jobs to hold beyond the running ones."""
        if self.mean_seconds is None or self.mean_seconds > HORIZON_SECONDS:
            return 0
        wanted = self.processors * HORIZON_SECONDS / max(self.mean_seconds, 0.001)
        return max(0, min(MAX_JOBS_PER_REQUEST - self.processors, int(wanted)))

    def wanted(self, busy: int, waiting: int) -> int:
        """Jobs to ask for now.

        Args:
            busy: processors in use.
            waiting: processors that jobs here wait for which have not started.
        """
        free = max(0, self.processors - busy - waiting)
        advance = self.in_advance()
        beyond = max(0, waiting - max(0, self.processors - busy))
        # Ask again when half of what is held in advance is used up: few, larger requests.
        extra = advance - beyond if beyond * 2 <= advance else 0
        return max(0, min(MAX_JOBS_PER_REQUEST, free + extra))
