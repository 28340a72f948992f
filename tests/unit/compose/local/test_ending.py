from __future__ import annotations

import os
import signal

import pytest

from compose.local.ending import ends_in_order, undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ending_is_an_exception_within_and_as_before_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ends_in_order():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_disturbs_a_stop(number: signal.Signals) -> None:
    with undisturbed():
        os.kill(os.getpid(), number)
