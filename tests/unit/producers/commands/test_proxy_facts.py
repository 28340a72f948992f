"""What people read of stored proxies."""

from __future__ import annotations

from typing import Any

import pytest

from producers.commands.proxy_facts import in_words
from schemas.messages.event import WorkWaiting
from schemas.messages.proxies import ProxyAlarm, ProxyExpiring, ProxyRenewal
from schemas.registry import Message

NOW = 1_800_000_000.0
WHO: Any = {"time": NOW, "owner": "/CN=ada", "group": "users"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            ProxyExpiring(**WHO, not_after=NOW + 7000, seconds=7200, jobs=3, renewable=True),
            "proxy of /CN=ada (users) ends in 2h, 3 jobs need it: it will be renewed",
        ),
        (
            ProxyExpiring(**WHO, not_after=NOW + 1700, seconds=1800, jobs=1, submission=7, reason="never renewed"),
            "proxy of /CN=ada (users) for submission 7 ends in 28m, 1 job needs it: delegate a new one (never renewed)",
        ),
        (
            ProxyRenewal(**WHO, what="proxy", renewed=False, reason="refused", next_try=NOW + 120),
            "proxy of /CN=ada (users) NOT renewed: refused; next try in 2m",
        ),
        (
            ProxyAlarm(time=NOW, about="pilot", client="p.1", issues=200, seconds=3600),
            "ALARM: 200 proxies to pilot p.1 within 1h",
        ),
        (
            ProxyAlarm(time=NOW, about="owner", owner="/CN=ada", issues=5000, seconds=3600),
            "ALARM: 5000 proxies of /CN=ada within 1h",
        ),
        (WorkWaiting(queues=(1,)), ""),
    ],
)
def test_in_words(message: Message, words: str) -> None:
    assert in_words(message) == words


def test_a_renewed_one() -> None:
    told = in_words(ProxyRenewal(**WHO, what="attribute", renewed=True, not_after=NOW))
    assert told.startswith("VOMS attribute of /CN=ada (users) renewed, ends 2027-")
