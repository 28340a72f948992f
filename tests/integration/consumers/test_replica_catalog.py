"""The replica catalog's rules."""

from __future__ import annotations

import pytest

from broker.authorization import Property
from consumers.directory import Directory
from consumers.replica_catalog import ReplicaCatalog
from consumers.store import Store
from schemas.messages.common import InputFile, Replica
from schemas.messages.service import Refused, ReplicaListing
from schemas.messages.user import QueryReplicas, RegisterReplica
from schemas.registry import Message
from tests.support.messages import Sender, admitted, tell, user

pytestmark = pytest.mark.integration

ADA = user("ada")
MANAGER = user("ada", Property.DATA_MANAGER, group="vo_prod")


@pytest.fixture
def consumer(directory: Directory) -> ReplicaCatalog:
    return ReplicaCatalog(directory=directory)


def ask(store: Store, consumer: ReplicaCatalog, message: Message, sender: Sender = ADA) -> Message:
    (answer,) = tell(store, consumer, [admitted(message, sender)]).said
    return answer


def entry(lfn: str = "/vo/a", se: str = "SE1", size: int = 7, pfn: str = "", adler32: str = "") -> RegisterReplica:
    return RegisterReplica(lfn=lfn, se=se, pfn=pfn or f"root://{se.lower()}.org//data/a", size=size, adler32=adler32)


def test_copies_add_up(store: Store, consumer: ReplicaCatalog) -> None:
    ask(store, consumer, entry(adler32="0000000a"))
    answer = ask(store, consumer, entry("LFN:/vo/a", "SE2"))
    copies = tuple(Replica(se=se, pfn=f"root://{se.lower()}.org//data/a") for se in ("SE1", "SE2"))
    expected = InputFile(lfn="/vo/a", size=7, adler32="0000000a", replicas=copies)
    assert answer == ReplicaListing(files=(expected,))
    assert ask(store, consumer, QueryReplicas(lfns=("/vo/none", "/vo/a"))) == answer


def test_a_file_stays_what_it_was(store: Store, consumer: ReplicaCatalog) -> None:
    ask(store, consumer, entry())
    for other in (entry(size=8), entry(se="SE2", size=8)):
        answer = ask(store, consumer, other, MANAGER)
        assert isinstance(answer, Refused)
        assert answer.code == "conflict"


def test_only_a_data_manager_moves_a_copy(store: Store, consumer: ReplicaCatalog) -> None:
    ask(store, consumer, entry())
    moved = entry(pfn="https://evil.org/data/a")
    answer = ask(store, consumer, moved, user("bob"))
    assert isinstance(answer, Refused)
    assert answer.code == "conflict"
    assert isinstance(ask(store, consumer, entry()), ReplicaListing), "the same copy again is no move"
    answer = ask(store, consumer, moved, MANAGER)
    assert isinstance(answer, ReplicaListing)
    assert answer.files[0].replicas[0].pfn == moved.pfn


def test_an_unknown_storage_element_is_refused(store: Store, consumer: ReplicaCatalog) -> None:
    answer = ask(store, consumer, entry(se="SE9"))
    assert isinstance(answer, Refused)
    assert "SE9" in answer.reason


def test_an_answer_too_large_is_refused(store: Store, consumer: ReplicaCatalog) -> None:
    names = tuple(f"/vo/{'n' * 900}{number}" for number in range(450))
    for lfn in names:
        ask(store, consumer, entry(lfn, pfn=f"file:///data/{'p' * 1000}"))
    answer = ask(store, consumer, QueryReplicas(lfns=names))
    assert isinstance(answer, ReplicaListing | Refused)
    more = tuple(f"/vo/{'m' * 900}{number}" for number in range(50))
    for lfn in more:
        for se in ("SE1", "SE2", "SE-FAR"):
            ask(store, consumer, entry(lfn, se, pfn=f"file:///data/{'p' * 1000}"))
    answer = ask(store, consumer, QueryReplicas(lfns=(*more, *names)))
    assert isinstance(answer, Refused)
    assert answer.code == "limit"
