"""The books of tags against the slowest possible reading of the AMQP text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import AckBook, ConfirmLedger

CONFIRMS = st.lists(
    st.one_of(st.just("publish"), st.tuples(st.integers(0, 40), st.booleans())), min_size=1, max_size=80
)


@given(CONFIRMS)
def test_a_ledger_settles_what_a_broker_means(steps: list[str | tuple[int, bool]]) -> None:
    ledger: ConfirmLedger[int] = ConfirmLedger()
    open_tags: list[int] = []
    sent = 0
    for step in steps:
        if isinstance(step, str):
            sent += 1
            assert ledger.add(sent, sent) == sent
            open_tags.append(sent)
        else:
            tag, multiple = step
            covered = [t for t in open_tags if (t <= tag or tag == 0 if multiple else t == tag)]
            assert ledger.settle(tag, multiple=multiple) == covered
            open_tags = [t for t in open_tags if t not in covered]
        assert list(ledger.entries()) == open_tags
        assert ledger.bytes == sum(open_tags)


class BrokerSide:
    """What the broker holds as unsettled on one channel."""

    def __init__(self) -> None:
        self.unsettled: set[int] = set()
        self.acked: set[int] = set()

    def ack(self, tag: int, multiple: bool) -> None:
        covered = {t for t in self.unsettled if t <= tag} if multiple else self.unsettled & {tag}
        assert covered, "an acknowledgement that covers nothing closes the channel"
        self.unsettled -= covered
        self.acked |= covered


SETTLEMENTS = st.lists(
    st.one_of(
        st.integers(1, 10),  # so many new deliveries
        st.tuples(st.sampled_from(["ack", "reject"]), st.lists(st.integers(1, 60), max_size=20)),
    ),
    max_size=40,
)


@given(SETTLEMENTS)
def test_frames_settle_exactly_what_was_asked(steps: list[int | tuple[str, list[int]]]) -> None:
    book, broker = AckBook(), BrokerSide()
    delivered = 0
    for step in steps:
        if isinstance(step, int):
            for _ in range(step):
                delivered += 1
                book.add(delivered)
                broker.unsettled.add(delivered)
            continue
        action, tags = step
        wanted = broker.unsettled & set(tags)
        kept = broker.unsettled - wanted
        if action == "ack":
            frames = book.ack(tags)
            for tag, multiple in frames:
                broker.ack(tag, multiple)
            assert sum(multiple for _, multiple in frames) <= 1
        else:
            removed = book.remove(tags)
            assert removed == sorted(wanted)
            broker.unsettled -= set(removed)
        assert broker.unsettled == kept
        assert len(book) == len(kept)
