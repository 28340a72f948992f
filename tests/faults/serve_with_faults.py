"""``compose.serve`` with a hand on the switch: dies, or stands still, at one named point of a consumer's turn.

    python serve_with_faults.py CONTROL NAME… --config FILE --ready-file FILE

The file CONTROL arms it: ``point type`` lets the process die by SIGKILL the next time that a batch with a message of
that type comes to that point (``*`` for any batch); with ``SIGSTOP`` as a third word it stands still there until
somebody lets it go on. The file is removed before that, so that it happens once. A test double: the product knows
nothing of it. The points, in the order in which a batch meets them:

delivered      handed over by the broker, nothing done yet
uncommitted    everything is written, the commit is the next thing
committed      the commit is durable, nothing is acknowledged
acknowledged   the broker has the acknowledgement, nothing is said
published      what was to be said is at the broker; its confirms are not noted
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from compose import serve
from consumers import engine, matcher, relay
from consumers.paperwork import Paperwork

POINTS = ("delivered", "uncommitted", "committed", "acknowledged", "published")


class Trap:
    """Looks at the control file where a batch passes."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._how = signal.SIGKILL
        self._batch = threading.local()

    def begins(self, types: set[str]) -> None:
        self._batch.types = types

    def passes(self, point: str) -> bool:
        """Whether this is the armed point, and the batch the one that is meant."""
        try:
            wanted, kind, *how = self._control.read_text("ascii").split()
        except OSError:
            return False
        self._how = signal.Signals[how[0]] if how else signal.SIGKILL
        return wanted == point and (kind == "*" or kind in getattr(self._batch, "types", set()))

    def springs(self) -> None:
        self._control.unlink()
        os.kill(os.getpid(), self._how)


def set_trap(control: Path) -> None:
    """Hook the points into the engine of this process."""
    trap = Trap(control)
    work, acknowledge, after = engine.Engine._work, engine.Engine._acknowledge, engine.Engine._after
    in_transaction = engine.Engine._in_transaction

    def hooked_work(self, deliveries):
        trap.begins({delivery.type or "" for delivery in deliveries})
        if trap.passes("delivered"):
            trap.springs()
        work(self, deliveries)

    def hooked_in_transaction(self, action):
        trap.begins({"chores"})
        in_transaction(self, action)

    def hooked_acknowledge(self, deliveries: Sequence):
        if deliveries and trap.passes("committed"):
            trap.springs()
        acknowledge(self, deliveries)

    def hooked_after(self, batch):
        said = bool(batch.letters or batch.again or batch.unrecorded)
        if said and trap.passes("acknowledged"):
            self._connection.publish([])
            _reach_the_broker(self)
            trap.springs()
        after(self, batch)
        if said and trap.passes("published"):
            for sent in list(self._sent):
                sent.future.result(10)
            trap.springs()

    engine.Engine._work = hooked_work
    engine.Engine._acknowledge = hooked_acknowledge
    engine.Engine._after = hooked_after
    engine.Engine._in_transaction = hooked_in_transaction
    for name in ("post", "close"):
        setattr(Paperwork, name, _last_before_the_commit(trap, getattr(Paperwork, name)))


def _last_before_the_commit(trap: Trap, write: Callable[..., None]) -> Callable[..., None]:
    def hooked(*arguments: object) -> None:
        write(*arguments)
        if trap.passes("uncommitted"):
            trap.springs()

    return hooked


def _reach_the_broker(consumer: engine.Engine) -> None:
    """Wait until the acknowledgements, which the I/O thread was asked to send, are sent."""
    for subscription in consumer._subscriptions.values():
        done = threading.Event()
        subscription._loop.post(done.set)
        done.wait(5)
    time.sleep(0.02)  # the socket's turn: nothing tells when the broker has read an acknowledgement


def hurry() -> None:
    """Shorter patience, so that fifty deaths take minutes; the proportions stay."""
    relay.PATIENCE, relay.AGAIN = 2.0, 3.0
    matcher.LEAD_SECONDS, matcher.RENEW_SECONDS = 2.0, 0.4


if __name__ == "__main__":
    hurry()
    set_trap(Path(sys.argv[1]))
    sys.exit(serve.main(sys.argv[2:]))
