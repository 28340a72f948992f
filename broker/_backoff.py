"""How long to wait before the next try: tenacity computes the delays. Pure; the time is an argument."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, wait_random, wait_random_exponential

from .transport import Pace

# tenacity computes 2**attempt before it takes the minimum: stop counting where the longest delay is long reached.
MAX_ATTEMPT = 32

# A broker that was restarted refuses logins until its gatekeeper has found it again. Whoever was let in before
# believes so many refusals to be that, and tries again soon.
DOUBTS = 4


class Backoff:
    """Delays with full jitter that widen with each failure and start anew after a stable time."""

    def __init__(self, pace: Pace) -> None:
        self._stable = pace.stable
        self._usual = wait_random_exponential(multiplier=pace.first, max=pace.longest)
        self._refused = wait_random(pace.refused, pace.refused * 3)
        self._doubted = wait_random(pace.doubted, pace.doubted * 2)
        self._doubts = 0
        self._state = RetryCallState(Retrying(), None, (), {})
        self._state.attempt_number = 0
        self._opened_at: float | None = None

    def opened(self, now: float) -> None:
        """Notes a success at ``now`` (monotonic seconds)."""
        self._opened_at = now
        self._doubts = DOUBTS

    def delay(self, now: float, *, refused: bool = False) -> float:
        """The seconds to wait after a failure at ``now``."""
        if self._opened_at is not None and now - self._opened_at >= self._stable:
            self._state.attempt_number = 0
        self._opened_at = None
        self._state.attempt_number = min(self._state.attempt_number + 1, MAX_ATTEMPT)
        if refused and self._doubts:
            self._doubts -= 1
            return float(self._doubted(self._state))
        return float((self._refused if refused else self._usual)(self._state))
