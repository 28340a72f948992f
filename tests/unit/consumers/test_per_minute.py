"""A quota for each, that forgets with the minute and stays small."""

from __future__ import annotations

import pytest

from consumers import per_minute
from consumers.per_minute import PerMinute


def test_each_has_a_quota_of_his_own_and_anew_with_each_minute() -> None:
    quota = PerMinute(2)
    assert [quota.take("ada", 60.0 + second) for second in range(4)] == [True, True, False, False]
    assert quota.take("bob", 64.0)
    assert quota.take("ada", 120.0)
    assert (quota.owed("ada"), quota.owed("ada"), quota.owed("bob")) == (2, 0, 0)


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_minute, "MAX_OWED", 3)
    quota = PerMinute(0)
    for number in range(10):
        assert not quota.take(str(number), 1.0)
    assert [quota.owed(str(number)) for number in range(10)] == [0] * 7 + [1] * 3
