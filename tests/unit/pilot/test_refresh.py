"""A job that outlives its proxy gets another in time; whatever goes wrong, the payload goes on."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from broker.identity import load_credential, sign_csr, split_chain
from pilot.proxies import Held
from pilot.refresh import LONGEST_RETRY, SHORTEST_RETRY, retry_after, wants_new
from pilot.stagehand import PROXY_FILE
from schemas.job import JobStatus
from schemas.messages.proxies import RequestProxy
from schemas.messages.service import Lease, LeasesRenewed, Match, ProxyIssued, Refused
from tests.support.pilot_desk import ADA, Desk, FakePayload

LIFE = 7200.0


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, monkeypatch)
    yield made
    made.close()


def later(desk: Desk, seconds: float, *jobs: int) -> None:
    """Some time passes; the leases hold."""
    desk.session.shift += seconds
    until = desk.session.now() + 1e6
    desk.say(LeasesRenewed(leases=tuple(Lease(job=job, attempt=1, until=until) for job in jobs or (1,))))
    desk.turn()


def asked(desk: Desk) -> list[RequestProxy]:
    return [one for one in desk.take(RequestProxy) if isinstance(one, RequestProxy)]


def answer(desk: Desk, request: RequestProxy, owner: str = ADA, *, seconds: float = LIFE, reason: str = "") -> str:
    """The proxy manager's answer; returns the chain."""
    issuer = desk.deployment.authority.issue(owner)
    now = dt.datetime.now(dt.UTC)
    pem = sign_csr(request.csr, issuer.ders, issuer.key, lifetime=dt.timedelta(hours=2), limited=True, now=now)
    chain = "" if reason else pem.decode()
    desk.say(
        ProxyIssued(
            owner=owner,
            group="vo_user",
            csr_sha256=hashlib.sha256(request.csr).hexdigest(),
            chain=chain,
            not_after=desk.session.now() + seconds if chain else 0.0,
            reason=reason,
        )
    )
    desk.turn()
    return chain


def file_of(payload: FakePayload) -> Path:
    return payload.spec.directory / PROXY_FILE


# -- the rules ------------------------------------------------------------------------------------------------------


def held(desk: Desk, since: float, until: float) -> Held:
    return Held(desk.deployment.proxy, since, until)


def test_a_quarter_before_its_end(desk: Desk) -> None:
    one = held(desk, 1000.0, 5000.0)
    assert not wants_new(one, 3999.0)
    assert wants_new(one, 4001.0)
    assert wants_new(one, 6000.0)


def test_ever_sooner_but_within_bounds(desk: Desk) -> None:
    one = held(desk, 0.0, 40_000.0)
    pauses = [retry_after(one, now) for now in (30_000.0, 39_000.0, 39_900.0, 39_999.0)]
    assert pauses == [600.0, 250.0, 25.0, 5.0]
    assert retry_after(one, 40_001.0) == LONGEST_RETRY
    assert retry_after(None, 0.0) == SHORTEST_RETRY


# -- jobs that run --------------------------------------------------------------------------------------------------


def test_the_file_is_replaced_at_once_and_in_time(desk: Desk) -> None:
    payload = desk.run(1)
    before = file_of(payload)
    inode, content = before.stat().st_ino, before.read_bytes()
    later(desk, LIFE * 0.7)
    assert asked(desk) == []
    later(desk, LIFE * 0.1)
    (request,) = asked(desk)
    assert (request.job, request.attempt) == (1, 1)
    with before.open("rb") as opened:
        chain = answer(desk, request)
        assert opened.read() == content, "who had it open reads the old one whole"
    after = file_of(payload)
    assert after.stat().st_ino != inode
    assert after.stat().st_mode & 0o777 == 0o600
    credential = load_credential(after)
    assert credential.leaf == split_chain(chain)[0]
    assert list(payload.spec.directory.glob(PROXY_FILE + "?*")) == []
    assert payload.stopped == ""
    later(desk, LIFE * 0.7)
    assert asked(desk) == [], "the new one lives as long as the old one did"


def test_one_request_serves_all_jobs_of_an_owner(desk: Desk) -> None:
    wanted = desk.give(desk.match(1), desk.match(2, csr=-1))
    desk.issue(wanted)
    payloads = [desk.payload(1), desk.payload(2)]
    later(desk, LIFE * 0.8, 1, 2)
    (request,) = asked(desk)
    answer(desk, request)
    assert len({file_of(one).read_bytes() for one in payloads}) == 1
    assert load_credential(file_of(payloads[0])).leaf != desk.deployment.proxy.leaf


def test_without_an_answer_it_asks_again(desk: Desk) -> None:
    payload = desk.run(1)
    later(desk, LIFE * 0.8)
    assert len(asked(desk)) == 1
    later(desk, 1)
    assert asked(desk) == []
    later(desk, LIFE * 0.2 / 4)
    (second,) = asked(desk)
    answer(desk, second)
    later(desk, 600)
    assert asked(desk) == []
    assert payload.stopped == ""


def test_a_refusal_is_logged_and_asked_again_and_the_payload_goes_on(desk: Desk) -> None:
    payload = desk.run(1)
    content = file_of(payload).read_bytes()
    later(desk, LIFE * 0.8)
    (request,) = asked(desk)
    answer(desk, request, reason="the owner's delegated proxy is missing or has expired")
    assert payload.stopped == ""
    assert file_of(payload).read_bytes() == content
    later(desk, LIFE * 0.3)
    assert len(asked(desk)) == 1, "also after it has ended"
    later(desk, LONGEST_RETRY / 2)
    assert asked(desk) == []
    later(desk, LONGEST_RETRY)
    (request,) = asked(desk)
    answer(desk, request)
    assert file_of(payload).read_bytes() != content
    payload.end()
    desk.turn()
    assert desk.last_word(1).status is JobStatus.DONE


def test_a_request_that_is_refused_as_such(desk: Desk) -> None:
    payload = desk.run(1)
    desk.post.flush(1e9)
    later(desk, LIFE * 0.8)
    (request,) = asked(desk)
    (message_id,) = desk.attempts._refresh._asked
    desk.say(Refused(code="denied", reason="no lease", type="proxy.request.v1"), message_id)
    assert desk.proxies.slot_of(request.csr) is None, "its key is forgotten"
    assert payload.stopped == ""
    later(desk, LONGEST_RETRY)
    assert len(asked(desk)) == 1


def test_an_older_proxy_replaces_no_newer_one(desk: Desk) -> None:
    payload = desk.run(1)
    later(desk, LIFE * 0.8)
    (first,) = asked(desk)
    later(desk, LIFE * 0.1)
    (second,) = asked(desk)
    answer(desk, second, seconds=2 * LIFE)
    content = file_of(payload).read_bytes()
    answer(desk, first, seconds=LIFE)
    assert file_of(payload).read_bytes() == content


def test_a_directory_that_the_payload_removed_stops_nothing(desk: Desk) -> None:
    payload = desk.run(1)
    directory = payload.spec.directory
    moved = directory.with_name("moved")
    directory.rename(moved)
    later(desk, LIFE * 0.8)
    (request,) = asked(desk)
    answer(desk, request)
    assert payload.stopped == ""
    moved.rename(directory)
    before = file_of(payload).read_bytes()
    later(desk, 61)
    assert file_of(payload).read_bytes() != before, "and it is tried again"


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(desk: Desk, tmp_path: Path) -> None:
    payload = desk.run(1)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file_of(payload).unlink()
    file_of(payload).symlink_to(victim)
    later(desk, LIFE * 0.8)
    answer(desk, asked(desk)[0])
    assert victim.read_text() == "precious"
    assert not file_of(payload).is_symlink()


def test_a_link_in_place_of_the_directory_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    payload = desk.run(1)
    directory = payload.spec.directory
    directory.rename(directory.with_name("moved"))
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    later(desk, LIFE * 0.8)
    answer(desk, asked(desk)[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- jobs with a proxy of their own ---------------------------------------------------------------------------------


def own(desk: Desk, job: int) -> Match:
    return msgspec.structs.replace(desk.match(job, csr=-1), own_proxy=True)


def test_a_job_with_its_own_proxy_takes_no_other(desk: Desk) -> None:
    shared = desk.give(desk.match(1))
    desk.issue(shared)
    shared_file = file_of(desk.payload(1)).read_bytes()
    desk.turn()
    desk.give(own(desk, 2))
    assert [one.spec.job_id for one in desk.runner.started] == ["1"]
    (request,) = asked(desk)
    assert request.job == 2
    answer(desk, request)
    assert file_of(desk.payload(2)).read_bytes() != shared_file
    holds = desk.proxies.holds(desk.session.now())
    assert len(holds) == 1, "what one job has for itself is not offered for others"
    desk.payload(2).end()
    desk.turn()
    assert all(not slot.job for slot in desk.proxies._held), "and it is forgotten with the job"


def test_a_job_whose_own_proxy_is_refused_fails(desk: Desk) -> None:
    desk.give(own(desk, 1))
    (request,) = asked(desk)
    answer(desk, request, reason="it has expired")
    word = desk.last_word(1)
    assert word.status is JobStatus.FAILED
    assert "it has expired" in word.reason


def test_a_job_whose_own_proxy_does_not_come_is_given_back(desk: Desk) -> None:
    desk.give(own(desk, 1))
    for _ in range(8):
        later(desk, 5)
    assert len(asked(desk)) >= 4
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)
