"""How long a pilot's proxy lives, when a stored one is renewed and warned of, and which serves which group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.domain.proxy_rules import (
    FIRST_RETRY,
    LONGEST_RETRY,
    RENEW_SHARE,
    SLOW_POWER,
    TRANSFER_MARGIN,
    WARNINGS,
    IssueBounds,
    attribute_due,
    has_attribute,
    issue_seconds,
    next_try,
    renewal_due,
    warning_due,
    why_unfit,
)

lengths = st.floats(1.0, 30 * 86_400.0)
times = st.floats(0.0, 2e9)


@given(cpu=st.floats(0, 1e6), left=st.floats(-1e6, 1e6), floor=st.floats(1, 1e5), extra=st.floats(0, 1e5))
def test_a_pilots_proxy_outlives_neither_its_stored_one_nor_the_ceiling(
    cpu: float, left: float, floor: float, extra: float
) -> None:
    bounds = IssueBounds(floor, floor + extra)
    given_ = issue_seconds(cpu, left, bounds)
    assert 0 <= given_ <= max(0.0, left)
    assert given_ <= bounds.ceiling
    if left >= bounds.ceiling:
        assert given_ >= floor, "never uselessly short"
        assert given_ >= min(bounds.ceiling, cpu / SLOW_POWER + TRANSFER_MARGIN), "never shorter than the job needs"


@given(one=st.floats(0, 1e6), more=st.floats(0, 1e6), left=st.floats(0, 1e6))
def test_who_needs_more_gets_no_less(one: float, more: float, left: float) -> None:
    bounds = IssueBounds()
    assert issue_seconds(one, left, bounds) <= issue_seconds(one + more, left, bounds)


@given(stored=times, life=lengths, at=st.floats(0, 1.5))
def test_renewal_happens_in_the_last_quarter_and_never_after(stored: float, life: float, at: float) -> None:
    now = stored + at * life
    due = renewal_due(stored, stored + life, now)
    if at < 1 - RENEW_SHARE - 1e-3:
        assert not due
    if 1 - RENEW_SHARE + 1e-3 < at < 1 - 1e-3:
        assert due
    if at > 1 + 1e-3:
        assert not due


@given(stored=times, life=lengths, at=st.floats(0, 1.5), until=st.none() | st.floats(0, 2))
def test_an_attribute_is_wanted_where_there_is_none(stored: float, life: float, at: float, until: float | None) -> None:
    now, end = stored + at * life, stored + life
    attribute = None if until is None else stored + until * life
    due = attribute_due(stored, end, attribute, now)
    if at > 1 + 1e-3:
        assert not due, "nothing serves a proxy that has ended"
    elif at < 1 - 1e-3 and attribute is None:
        assert due
    elif attribute is not None and attribute >= end:
        assert not due, "it lasts as long as the proxy"


@given(stored=times, life=lengths, steps=st.lists(st.floats(0, 1.2), max_size=60))
def test_each_warning_comes_once_and_they_get_more_urgent(stored: float, life: float, steps: list[float]) -> None:
    warned: float | None = None
    said = []
    for at in sorted(steps):
        limit = warning_due(stored, stored + life, warned, stored + at * life)
        if limit is not None:
            assert stored + life - (stored + at * life) < limit
            said.append(limit)
            warned = limit
    assert said == sorted(set(said), reverse=True)
    assert set(said) <= {limit for limit in WARNINGS if limit <= life / 2}


def test_whoever_looks_often_warns_at_every_threshold() -> None:
    stored, life, warned, said = 0.0, 12 * 3600.0, None, []
    for now in range(0, int(life) + 60, 60):
        limit = warning_due(stored, stored + life, warned, float(now))
        if limit is not None:
            warned = limit
            said.append((limit, life - now))
    assert [limit for limit, _ in said] == [7200.0, 1800.0]
    assert all(limit - 60 <= left < limit for limit, left in said)


@given(failures=st.integers(0, 10_000), now=times)
def test_tries_get_rarer_but_never_cease(failures: int, now: float) -> None:
    pause = next_try(failures, now) - now
    assert FIRST_RETRY - 1 <= pause <= LONGEST_RETRY + 1
    assert pause <= next_try(failures + 1, now) - now + 1


PILOT, PROD, USER = "/vo/Role=pilot", "/vo/Role=production", "/vo/Role=user"


@pytest.mark.parametrize(
    ("claimed", "own", "fit"),
    [
        ((), USER, True),
        (("/vo/Role=user/Capability=NULL", "/vo/Role=NULL/Capability=NULL"), USER, True),
        (("/vo", "/vo/analysis"), USER, True),
        ((USER, PILOT), USER, False),
        (("/vo/Role=pilot/Capability=NULL",), USER, False),
        ((PILOT,), PILOT, False),
        ((USER, PROD), USER, False),
        ((PROD,), PROD, True),
        (("/vo/Role=unknown",), USER, True),
        (("no fqan at all",), USER, True),
        ((PROD,), "", False),
    ],
)
def test_which_attributes_serve_which_group(claimed: tuple[str, ...], own: str, fit: bool) -> None:
    others = [one for one in (PROD, USER, "/vo", PILOT, "") if one != own]
    assert (why_unfit(claimed, own, [PILOT], others) == "") is fit


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_may_stand_where_an_attribute_should(claimed: list[str]) -> None:
    why_unfit(claimed, USER, [PILOT], [PROD])
    has_attribute(claimed, USER)


def test_an_attribute_is_recognized_in_each_of_its_forms() -> None:
    assert has_attribute(["/vo/Role=user/Capability=NULL"], USER)
    assert has_attribute(["/vo/Role=NULL/Capability=NULL"], "/vo")
    assert not has_attribute(["/vo/sub/Role=user"], USER)
    assert not has_attribute([USER], "")
