"""Followers hear what is theirs, at a price that fits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.authorization import Principal, Property
from consumers import following
from consumers.following import Follow, Followers
from schemas.envelope import reply_queue
from schemas.job import JobStatus as S
from schemas.messages.event import JobChange
from schemas.messages.service import JobProgress
from tests.support.messages import opened

ADA = Principal("/CN=ada", "g", frozenset({Property.NORMAL_USER}))
BOB = Principal("/CN=bob", "g", frozenset({Property.NORMAL_USER}))
SEER = Principal("/CN=seer", "g", frozenset({Property.JOB_MONITOR}))


def follow(principal: Principal = ADA, asked: float = 0.0, until: float = 100.0) -> Follow:
    return Follow(principal, "cid", asked, until)


def change(job: int, owner: Principal = ADA, minor: str = "") -> JobChange:
    return JobChange(job=job, status=S.RUNNING, minor=minor, time=1.0, owner=owner.identity, group=owner.group)


def hear(followers: Followers, *changes: JobChange, now: float = 1.0) -> dict[str, list[tuple[int, str]]]:
    heard: dict[str, list[tuple[int, str]]] = {}
    for letter in followers.letters(changes, now, lambda _principal, _client: True):
        message = opened(letter)
        assert isinstance(message, JobProgress)
        assert letter.routing_key == reply_queue(letter.audience)
        heard.setdefault(letter.audience, []).extend((one.job, one.minor) for one in message.changes)
    return heard


def test_each_hears_of_what_he_follows_and_may_see() -> None:
    followers = Followers()
    followers.add("ada.1", (1, 11), follow())
    followers.add("ada.2", (5, 6), follow())
    followers.add("bob.1", (1, 11), follow(BOB))
    followers.add("seer.1", (1, 100), follow(SEER))
    heard = hear(followers, change(3, minor="b"), change(3, minor="a"), change(7, BOB), change(50, BOB))
    assert heard == {
        "ada.1": [(3, "b"), (3, "a")],
        "bob.1": [(7, "")],
        "seer.1": [(3, "b"), (3, "a"), (7, ""), (50, "")],
    }


def test_letters_of_one_encoding_have_ids_of_their_own() -> None:
    followers = Followers()
    for number in range(3):
        followers.add(f"ada.{number}", (1, 2), follow())
    letters = list(followers.letters([change(1)], 1.0, lambda _principal, _client: True))
    assert len({letter.message_id for letter in letters}) == 3
    assert len({id(letter.payload) for letter in letters}) == 1


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), max_size=8),
    st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=30),
)
def test_as_if_each_change_was_looked_at(ranges: list[tuple[int, int]], said: list[tuple[int, bool]]) -> None:
    followers = Followers()
    for first, count in ranges:
        followers.add("ada.1", (first, first + count), follow())
    changes = [change(job, ADA if mine else BOB, str(place)) for place, (job, mine) in enumerate(said)]
    wanted = [
        (one.job, one.minor)
        for one in sorted(changes, key=lambda one: one.job)
        if one.owner == ADA.identity and any(first <= one.job < first + count for first, count in ranges)
    ]
    assert hear(followers, *changes).get("ada.1", []) == wanted


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_PER_CLIENT", 2)
    monkeypatch.setattr(following, "MAX_FOLLOWS", 3)
    followers = Followers()
    followers.add("a.1", (1, 2), follow())
    followers.add("a.1", (2, 3), follow())
    with pytest.raises(OverflowError, match="at most 2"):
        followers.add("a.1", (3, 4), follow())
    before = followers.add("a.1", (2, 3), follow(until=50.0))
    assert before == follow(), "asking again takes no more room"
    followers.add("b.1", (1, 2), follow())
    with pytest.raises(OverflowError, match="too many followers"):
        followers.add("c.1", (1, 2), follow())
    followers.expire(75.0)
    assert len(followers) == 2
    followers.expire(101.0)
    assert len(followers) == 0


def test_all_tools_of_one_user_share_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_PER_IDENTITY", 3)
    followers = Followers()
    for number in range(3):
        followers.add(f"ada.{number}", (1, 2), follow(until=50.0 + number))
    with pytest.raises(OverflowError, match="all your tools together follow 3 ranges"):
        followers.add("ada.9", (1, 2), follow())
    followers.add("ada.1", (1, 2), follow(until=90.0))  # asking again takes no more room
    followers.add("bob.1", (1, 2), follow(BOB))
    followers.expire(60.0)
    assert len(followers) == 2
    for number in range(7, 9):
        followers.add(f"ada.{number}", (1, 2), follow())
    with pytest.raises(OverflowError):
        followers.add("ada.9", (1, 2), follow())


def test_who_may_not_listen_any_more_hears_nothing() -> None:
    followers = Followers()
    followers.add("ada.1", (1, 2), follow())
    assert not list(followers.letters([change(1)], 1.0, lambda _principal, _client: False))


def test_a_thousand_followers_of_one_batch() -> None:
    followers = Followers()
    for number in range(1000):
        followers.add(f"ada.{number}", (1 + number, 501 + number), follow())
        followers.add(f"seer.{number}", (1, 100_000), follow(SEER))
    changes = [change(job) for job in range(100_000, 100_500)]
    begin = time.process_time()
    told = sum(1 for _ in followers.letters(changes, 1.0, lambda _principal, _client: True))
    assert told == 0
    assert time.process_time() - begin < 0.5, "who follows other jobs costs two bisections"
    changes = [change(job) for job in range(1, 501)]
    begin = time.process_time()
    told = sum(1 for _ in followers.letters(changes, 1.0, lambda _principal, _client: True))
    assert told == 500 + 1000
    assert time.process_time() - begin < 5.0, "who follows the same jobs shares an encoding"
