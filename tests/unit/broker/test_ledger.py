from __future__ import annotations

from broker.ledger import AckBook, ConfirmLedger


def ledger_of(*entries: str) -> ConfirmLedger[str]:
    ledger: ConfirmLedger[str] = ConfirmLedger()
    for entry in entries:
        ledger.add(entry, len(entry))
    return ledger


def test_tags_start_at_one_and_grow() -> None:
    ledger: ConfirmLedger[str] = ConfirmLedger()
    assert [ledger.add("a"), ledger.add("b")] == [1, 2]


def test_a_single_confirm_settles_its_own_tag_only() -> None:
    ledger = ledger_of("a", "bb", "ccc")
    assert ledger.settle(2) == ["bb"]
    assert list(ledger.entries()) == ["a", "ccc"]
    assert ledger.bytes == 4


def test_a_multiple_confirm_settles_all_up_to_it_in_order() -> None:
    ledger = ledger_of("a", "b", "c", "d")
    ledger.settle(2)
    assert ledger.settle(3, multiple=True) == ["a", "c"]
    assert len(ledger) == 1


def test_tag_zero_with_multiple_means_all() -> None:
    ledger = ledger_of("a", "b")
    assert ledger.settle(0, multiple=True) == ["a", "b"]
    assert (len(ledger), ledger.bytes) == (0, 0)


def test_an_unknown_or_repeated_confirm_settles_nothing() -> None:
    ledger = ledger_of("a")
    assert ledger.settle(7) == []
    assert ledger.settle(1) == ["a"]
    assert ledger.settle(1) == []


def test_clearing_returns_everything_oldest_first_and_tags_go_on() -> None:
    ledger = ledger_of("a", "b")
    assert ledger.clear() == ["a", "b"]
    assert ledger.add("c") == 3


def book_of(count: int) -> AckBook:
    book = AckBook()
    for tag in range(1, count + 1):
        book.add(tag)
    return book


def test_a_run_at_the_front_is_one_multiple_frame() -> None:
    assert book_of(5).ack([1, 2, 3]) == [(3, True)]


def test_one_delivery_is_one_plain_frame() -> None:
    assert book_of(5).ack([1]) == [(1, False)]


def test_a_gap_forbids_multiple_behind_it() -> None:
    assert book_of(5).ack([1, 2, 4, 5]) == [(2, True), (4, False), (5, False)]


def test_a_closed_gap_allows_multiple_again() -> None:
    book = book_of(5)
    assert book.ack([2, 3]) == [(2, False), (3, False)]
    assert book.ack([1, 4]) == [(4, True)]
    assert len(book) == 1


def test_tags_that_are_not_open_are_skipped() -> None:
    book = book_of(2)
    book.ack([1])
    assert book.ack([1, 9, 2, 2]) == [(2, False)]
    assert book.ack([]) == []


def test_rejecting_is_one_by_one() -> None:
    book = book_of(4)
    assert book.remove([3, 1, 1, 9]) == [1, 3]
    assert book.ack([2, 4]) == [(4, True)]
