from __future__ import annotations

import re
from pathlib import Path

import pytest

from producers import errors
from producers.commands.exit_codes import ExitCode, code_of
from schemas.errors import ConfigurationError, InvalidInputError, PilotageError

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "exit-codes.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidJobError([]), ExitCode.USAGE),
        (InvalidInputError(), ExitCode.USAGE),
        (ConfigurationError(), ExitCode.USAGE),
        (errors.NotConfiguredError(), ExitCode.USAGE),
        (errors.NoProxyError(), ExitCode.REFUSED),
        (errors.ProxyExpiredError(), ExitCode.REFUSED),
        (errors.BadProxyError(), ExitCode.REFUSED),
        (errors.NotAllowedError(), ExitCode.REFUSED),
        (errors.ServiceRefusedError(code="conflict"), ExitCode.REFUSED),
        (errors.AwayError(), ExitCode.UNAVAILABLE),
        (errors.TimedOutError(), ExitCode.UNAVAILABLE),
        (errors.NotFoundError(), ExitCode.NOT_FOUND),
        (errors.OutputError(), ExitCode.NO),
    ],
)
def test_codes(error: PilotageError, code: ExitCode) -> None:
    assert code_of(error) is code


def test_the_page_tells_the_same() -> None:
    told = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert told == {str(int(code)): code.name for code in ExitCode}
