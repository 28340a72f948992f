"""The demonstration as a user sees it."""

from __future__ import annotations

import re
import signal

import pytest

from tests.support.command_line import CommandLine
from tests.support.wait import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]


def nothing_is_left(user: CommandLine) -> bool:
    return not user.processes() and not list(user.temporary.glob("pilotage-*"))


def test_the_demonstration_estimates_pi_and_leaves_nothing(fresh_user: CommandLine) -> None:
    output = fresh_user.run("demo")
    found = re.search(r"pi = (3\.1[34]\d+) \+- (0\.000\d+) from [\d,]+ points in 8 parts", output)
    assert found, output
    assert "Hello, world!" in output
    rows = re.findall(r"^ *(\d+) +(pi-\d|hello) +Done +pilot-[12] ", output, re.MULTILINE)
    assert len(rows) == 9
    assert nothing_is_left(fresh_user)
    assert not fresh_user.data.exists()
    assert not (fresh_user.home / "proxy.pem").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demonstration_leaves_no_process(fresh_user: CommandLine, number: signal.Signals) -> None:
    process = fresh_user.start("demo")
    assert process.stdout is not None
    for line in process.stdout:
        if "Matched" in line:
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if number is signal.SIGKILL else 130)
    if number is signal.SIGKILL:
        # Without a broker a pilot cannot say goodbye: it tries for 20 s.
        wait_until(lambda: not fresh_user.processes(), 45, "the kernel and the pilots' keepers to clean up")
    else:
        assert nothing_is_left(fresh_user)
