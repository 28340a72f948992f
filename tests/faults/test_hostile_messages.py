"""Forged, replayed, expired, misaddressed and repeated messages from real logins: refused, told, and without effect.

The senders here are honest clients gone bad: they pass the broker's own checks and write where they may.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.identity import new_key
from broker.publisher import Letter
from broker.session import Incoming, Session
from broker.signing import Signer
from broker.transport import Confirm, Outgoing
from consumers.admission import SAMPLES_PER_MINUTE
from schemas.envelope import JWS_HEADER
from schemas.job import JobStatus
from schemas.messages.common import JobRef, Usage
from schemas.messages.pilot import AcceptJobs, Goodbye, Heartbeat, PayloadBeat, Report, ReportJobs
from schemas.messages.service import ChainUnknown, ControlJobs, JobsCommanded, JobsSubmitted, LeasesRenewed, Refused
from schemas.messages.user import KillJobs, RescheduleJobs, SubmitJobs
from schemas.registry import Message, by_name
from tests.support.wait import wait_until

from .harness import Stand, stand
from .invariants import check

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90)]

DAY = 86_400.0


@dataclass
class Peer:
    """A client that may say anything."""

    session: Session
    kept: list[Incoming] = field(default_factory=list)

    @property
    def own(self) -> Signer:
        """What the session signs with."""
        return self.session._passport.signer(self.session.group)

    def letter(self, message: Message) -> Letter:
        return self.session.letter(message)

    def send(self, outgoing: Outgoing) -> None:
        """Publish as it is; the broker must take it, for it is the services that are tried."""
        [future] = self.session.connection.publish([outgoing])
        assert future.result(10) is Confirm.ACKED

    def signed(self, letter: Letter, signer: Signer | None = None, **how: object) -> Outgoing:
        """Sign a letter in any way."""
        honest = self.session.seal(letter)
        signer = signer or self.own
        values = {"audience": letter.audience, "now": time.time(), "message_id": letter.message_id, **how}
        jws = signer.sign(by_name(letter.name), letter.payload, **values)  # type: ignore[arg-type]
        return msgspec.structs.replace(honest, headers={JWS_HEADER: jws})

    def answer(self, message_id: str, timeout: float = 15.0) -> Message:
        """What a service says to a message: each answer once."""
        found = self._next(lambda incoming: incoming.verified.header.cid == message_id, timeout)
        return found.message

    def order(self, job: int, timeout: float = 15.0) -> str:
        """What job-state orders this client to do with a job."""
        found = self._next(lambda incoming: isinstance(incoming.message, ControlJobs), timeout).message
        assert isinstance(found, ControlJobs)
        return next(order.action for order in found.orders if order.job == job)

    def _next(self, wanted: Callable[[Incoming], bool], timeout: float) -> Incoming:
        deadline = time.monotonic() + timeout
        while True:
            for incoming in self.kept:
                if wanted(incoming):
                    self.kept.remove(incoming)
                    return incoming
            assert time.monotonic() < deadline, "no answer"
            news = self.session.receive(64, 0.5)
            self.session.ack(news)
            self.kept.extend(news)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("hostile")) as one:
        one.serve("all")
        yield one


@pytest.fixture(scope="module")
def peer(place) -> Iterator[Peer]:
    with place.place.session(place.place.user()) as session:
        yield Peer(session)


@pytest.fixture(scope="module")
def job(place) -> int:
    """A job that waits: no pilot is there."""
    [job] = place.submit(1)
    return job


def accusations(place: Stand) -> int:
    """Refusals in the audit: each names somebody."""
    return place.count("audit", "event = 'message.refused'")


def untouched(place: Stand, job: int) -> None:
    assert place.statuses([job]) == {job: JobStatus.WAITING}


# -- forged ---------------------------------------------------------------------------------------------------------


def other_body(peer: Peer, letter: Letter) -> Outgoing:
    return msgspec.structs.replace(peer.session.seal(letter), body=letter.payload + b" ")


def other_header(peer: Peer, letter: Letter) -> Outgoing:
    honest = peer.session.seal(letter)
    protected, _, signature = honest.headers[JWS_HEADER].partition("..")
    header = json.loads(base64.urlsafe_b64decode(protected + "=="))
    header["exp"] += 1
    changed = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return msgspec.structs.replace(honest, headers={JWS_HEADER: f"{changed}..{signature}"})


def other_key(peer: Peer, letter: Letter) -> Outgoing:
    own = peer.own
    thief = Signer(ec.generate_private_key(ec.SECP256R1()), own.thumbprint, own.issuer, own.client, own.group)
    return peer.signed(letter, thief)


def other_client(peer: Peer, letter: Letter) -> Outgoing:
    own = peer.own
    return peer.signed(letter, Signer(own.key, own.thumbprint, own.issuer, own.client + "x", own.group))


def other_issuer(peer: Peer, letter: Letter) -> Outgoing:
    own = peer.own
    return peer.signed(letter, Signer(own.key, own.thumbprint, "/O=Other/CN=somebody", own.client, own.group))


def other_algorithm(name: str) -> Callable[[Peer, Letter], Outgoing]:
    def make(peer: Peer, letter: Letter) -> Outgoing:
        honest = peer.session.seal(letter)
        protected, _, signature = honest.headers[JWS_HEADER].partition("..")
        header = json.loads(base64.urlsafe_b64decode(protected + "=="))
        header["alg"] = name
        changed = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        jws = f"{changed}.." if name == "none" else f"{changed}..{signature}"
        return msgspec.structs.replace(honest, headers={JWS_HEADER: jws})

    return make


def no_signature(peer: Peer, letter: Letter) -> Outgoing:
    return msgspec.structs.replace(peer.session.seal(letter), headers={})


def garbage(peer: Peer, letter: Letter) -> Outgoing:
    return msgspec.structs.replace(peer.session.seal(letter), headers={JWS_HEADER: "\x00..\xff"}, body=b"\xff" * 99)


FORGERIES: dict[str, Callable[[Peer, Letter], Outgoing]] = {
    "body": other_body,
    "header": other_header,
    "key": other_key,
    "client": other_client,
    "issuer": other_issuer,
    "none": other_algorithm("none"),
    "HS256": other_algorithm("HS256"),
    "unsigned": no_signature,
    "garbage": garbage,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_is_forged_has_no_effect_and_is_kept_as_a_sample(place, peer, job, forgery):
    audited, samples = accusations(place), place.count("dead_letters")
    peer.send(FORGERIES[forgery](peer, peer.letter(KillJobs(jobs=(job,)))))
    wait_until(lambda: place.count("dead_letters") == samples + 1, 10, "a sample")
    untouched(place, job)
    assert accusations(place) == audited, "nobody is accused of what he may not have done"


# -- signed, but not to be done -------------------------------------------------------------------------------------

WRONGS: dict[str, tuple[str, Callable[[], dict[str, object]]]] = {
    "expired": ("expired", lambda: {"now": time.time() - 2 * DAY}),
    "from the future": ("expired", lambda: {"now": time.time() + 3600.0}),
    "living too long": ("expired", lambda: {"expires": time.time() + 30 * DAY}),
    "misaddressed": ("denied", lambda: {"audience": "job-monitor"}),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_signed_but_wrong_is_refused_audited_and_told(place, peer, job, wrong):
    code, how = WRONGS[wrong]
    audited = accusations(place)
    letter = peer.letter(KillJobs(jobs=(job,)))
    peer.send(peer.signed(letter, **how()))
    answer = peer.answer(letter.message_id)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.type) == (code, "job.kill.v1")
    assert accusations(place) == audited + 1
    untouched(place, job)


def test_a_signature_of_an_unknown_chain_asks_for_a_new_login(place, peer, job):
    own = peer.own
    stranger = Signer(new_key(), "A" * 43, own.issuer, own.client, own.group)
    letter = peer.letter(KillJobs(jobs=(job,)))
    peer.send(peer.signed(letter, stranger))
    assert isinstance(peer.answer(letter.message_id), ChainUnknown)
    untouched(place, job)


# -- again ----------------------------------------------------------------------------------------------------------


def test_the_same_submission_many_times_makes_the_jobs_once(place, peer):
    before, jobs = place.count("submissions"), place.count("jobs")
    letter = peer.letter(SubmitJobs(descriptions=('[Executable = "/bin/true"; Parameters = 3;]',)))
    for future in peer.session.post([letter] * 3):
        assert future.result(10) is Confirm.ACKED
    first = peer.answer(letter.message_id)
    assert isinstance(first, JobsSubmitted)
    peer.session.post([letter])[0].result(10)  # signed anew, with its old id
    peer.send(msgspec.structs.replace(peer.session.seal(letter)))
    for _ in range(2):
        assert peer.answer(letter.message_id) == first, "the recorded answer"
    assert place.count("submissions") == before + 1
    assert place.count("jobs") == jobs + 3


def test_an_old_command_comes_back(place, peer):
    [job] = place.submit(1)
    kill = peer.letter(KillJobs(jobs=(job,)))
    captured = peer.session.seal(kill)
    peer.send(captured)
    assert isinstance(peer.answer(kill.message_id), JobsCommanded)
    assert place.statuses([job]) == {job: JobStatus.KILLED}
    again = peer.letter(RescheduleJobs(jobs=(job,)))
    peer.send(peer.session.seal(again))
    assert isinstance(peer.answer(again.message_id), JobsCommanded)
    place.wait_status([job], JobStatus.WAITING)
    life = place.history(job)

    peer.send(captured)  # by its own sender: answered as before, not done again
    assert isinstance(peer.answer(kill.message_id), JobsCommanded)
    untouched(place, job)

    samples = place.count("dead_letters")
    with place.place.session(place.place.user()) as session:  # by another login, which got hold of it
        Peer(session).send(msgspec.structs.replace(captured, user_id=session.client))
        wait_until(lambda: place.count("dead_letters") == samples + 1, 10, "a sample")
    untouched(place, job)
    assert place.history(job) == life


# -- pilots ---------------------------------------------------------------------------------------------------------


def test_a_pilot_speaks_for_a_job_that_another_holds(place):
    for name in [name for name in place.processes if name.startswith("pilot-")]:
        place.stop(name)
    name = place.start_pilot(1, slots=64)
    [job] = place.submit(1, tenths=40, more="Priority = 9;")
    place.wait_started(job, 1)
    wait_until(lambda: place.jobs([job])[job].status is JobStatus.RUNNING, 10, "its report")
    holder = place.jobs([job])[job]
    with place.place.session(place.place.pilot(2)) as session:
        liar = Peer(session)
        for attempt in (1, 2):
            done = Report(job=job, attempt=attempt, sequence=10**6, status=JobStatus.DONE, exit_code=0, usage=Usage())
            liar.send(session.seal(liar.letter(ReportJobs(reports=(done,)))))
            assert liar.order(job) == "abandon"
        for message in (
            AcceptJobs(jobs=(JobRef(job=job, attempt=1),)),
            Heartbeat(
                site="Site.Local.here", payloads=(PayloadBeat(job=job, attempt=1, usage=Usage(cpu_seconds=9e9)),)
            ),
        ):
            letter = liar.letter(message)
            liar.send(session.seal(letter))
            answer = liar.answer(letter.message_id)
            assert isinstance(answer, LeasesRenewed)
            assert (answer.leases, answer.lost) == ((), (JobRef(job=job, attempt=1),))
        goodbye = liar.letter(Goodbye(reason="and all with me", site="Site.Local.here"))
        liar.send(session.seal(goodbye))
        now = place.jobs([job])[job]
        assert (now.status, now.attempt, now.pilot) == (JobStatus.RUNNING, 1, holder.pilot)
        assert now.cpu_seconds < 1e6
    place.wait_for([job])
    check(place, [job])
    assert len(place.attempts(job)) == 1
    place.stop(name)


# -- much of it -----------------------------------------------------------------------------------------------------


def test_a_flood_of_garbage_fills_nothing_and_stops_nobody(place, peer):
    audited, samples = accusations(place), place.count("dead_letters")
    junk = garbage(peer, peer.letter(KillJobs(jobs=(1,))))
    futures = peer.session.connection.publish([junk] * 1000)
    assert {future.result(30) for future in futures} == {Confirm.ACKED}
    [job] = place.submit(1)  # goes on meanwhile
    letter = peer.letter(KillJobs(jobs=(job,)))
    peer.send(peer.session.seal(letter))  # behind all of it in the same queue
    assert isinstance(peer.answer(letter.message_id), JobsCommanded)
    assert place.count("dead_letters") - samples <= 2 * SAMPLES_PER_MINUTE, (
        "a quota per minute, and two minutes at most"
    )
    assert accusations(place) == audited
    assert place.statuses([job]) == {job: JobStatus.KILLED}
