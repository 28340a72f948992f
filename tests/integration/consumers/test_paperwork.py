"""Once among all processes, or once in each."""

from __future__ import annotations

import pytest

from consumers.batch import Batch
from consumers.outcome import ACK
from consumers.paperwork import Paperwork, letter_of, row_of
from consumers.store import Store, outbox
from schemas.messages.event import WorkWaiting
from schemas.messages.service import JobsCommanded
from schemas.messages.user import KillJobs
from tests.support.messages import admitted, service, user

pytestmark = pytest.mark.integration


def test_a_message_is_handled_once_and_its_answer_said_again(store: Store) -> None:
    paperwork = Paperwork("job-manager")
    message = admitted(KillJobs(jobs=(1,)), user())
    with store.transaction() as tx:
        batch = Batch(tx, 1.0)
        assert paperwork.admit(batch, [message, message]) == ([message], [])
        batch.answer(message, JobsCommanded(outcomes=()))
        paperwork.close(batch, [message], [ACK], [])
    with store.transaction() as tx:
        assert paperwork.admit(Batch(tx, 2.0), [message]) == ([], batch.letters)


def test_without_an_inbox_each_process_sees_each_message(store: Store) -> None:
    message = admitted(WorkWaiting(queues=(1,)), service("job-manager"))
    for paperwork in (Paperwork("job-monitor", inbox=False), Paperwork("job-monitor", inbox=False)):
        with store.transaction() as tx:
            batch = Batch(tx, 1.0)
            assert paperwork.admit(batch, [message]) == ([message], [])
            batch.answer(message, JobsCommanded(outcomes=()))
            paperwork.close(batch, [message], [ACK], [])
    with store.transaction() as tx:
        assert Paperwork("job-manager").admit(Batch(tx, 1.0), [message]) == ([message], []), "it left no trace"


def test_a_letter_comes_out_of_the_outbox_as_it_went_in(store: Store) -> None:
    with store.transaction() as tx:
        batch = Batch(tx, 1.0)
        letter = batch.tell("c.1", JobsCommanded(outcomes=()), "cid")
        outbox.add(tx, [row_of(letter, 1.0, 1.0)])
        (row,) = outbox.due(tx, 10.0, 5.0, 10)
    assert letter_of(row) == letter
