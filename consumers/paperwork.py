"""The engine's bookkeeping inside the transaction: inbox, outbox, retries, dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from broker.publisher import Letter, to_queue
from broker.subscriber import Admitted
from schemas.messages.admin import Readmit
from schemas.registry import Message, by_name

from .batch import Batch
from .outcome import DeadLetter, Outcome, Retry
from .store import OutboxRow, dead, inbox, outbox

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes, str, str, str, str, str]])


class Paperwork:
    """What every transaction of a consumer writes besides its own state.

    Args:
        service: the consumer's name.
        inbox: whether messages are handled once among all its processes.
    """

    def __init__(self, service: str, *, inbox: bool = True, hints: frozenset[type[Message]] = frozenset()) -> None:
        self._service = service
        self._inbox = inbox
        self._hints = hints

    def admit(self, batch: Batch, messages: Sequence[Admitted]) -> tuple[list[Admitted], list[Letter]]:
        """Tell new messages from repeated ones.

        Returns:
            The messages to handle, and the recorded answers to say again for the others.
        """
        if not self._inbox:
            return list(messages), []
        hints = [message for message in messages if type(message.message) in self._hints]
        news, again = self._admit_once(batch, [message for message in messages if message not in hints])
        return hints + news, again

    @staticmethod
    def _admit_once(batch: Batch, messages: Sequence[Admitted]) -> tuple[list[Admitted], list[Letter]]:
        if not messages:
            return [], []
        # A readmission may carry a message that never reached the inbox: its own key is entered as well.
        keys = [(key, message.verified.header.typ) for message in messages for key in (message.inbox_key, message.key)]
        entries = list(dict.fromkeys((*key, typ) for key, typ in keys))
        fresh, recorded = inbox.admit(batch.tx, entries, batch.now)
        news: list[Admitted] = []
        again: list[Letter] = []
        for message in messages:
            key = message.inbox_key
            if key in fresh:
                fresh.discard(key)  # the same message twice in one batch is handled once
                news.append(message)
                continue
            answers = recorded.get(key)
            if answers is not None:
                again.extend(Letter(*values) for values in _decoder.decode(answers))
        return news, again

    def close(
        self, batch: Batch, messages: Sequence[Admitted], outcomes: Sequence[Outcome], confirmed: Sequence[str]
    ) -> None:
        """Write down what became of each message and what is to be said; forget letters that the broker has."""
        answers: dict[tuple[str, str], bytes] = {}
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, Retry):
                self._retry(batch, message, outcome)
            elif isinstance(outcome, DeadLetter):
                self._bury(batch, message, outcome)
            letters = batch.answers.get(message.key)
            if letters:
                answers[message.key] = _encoder.encode([_values(letter) for letter in letters])
        rows = [row_of(letter, batch.now, batch.now) for letter in batch.letters]
        outbox.close(batch.tx, answers if self._inbox else {}, rows, confirmed)

    def post(self, batch: Batch) -> None:
        """Put the letters into the outbox."""
        if batch.letters:
            outbox.add(batch.tx, [row_of(letter, batch.now, batch.now) for letter in batch.letters])

    def confirm(self, batch: Batch, message_ids: Sequence[str]) -> None:
        """Forget letters that the broker has."""
        if message_ids:
            outbox.confirm(batch.tx, message_ids)

    def bury_unsayable(self, batch: Batch, letters: Sequence[Letter]) -> None:
        """Keep what the broker would not take from us: a fault of ours or of its rights, for an operator to see."""
        graves = [
            dead.NewLetter(
                time=batch.now,
                queue=letter.routing_key,
                typ=letter.name,
                issuer=self._service,
                client=letter.audience,
                reason=f"the broker refused it on exchange {letter.exchange!r}",
                body=letter.payload,
                jws="",
                user_id=self._service,
            )
            for letter in letters
        ]
        if graves:
            dead.add(batch.tx, graves)

    def _retry(self, batch: Batch, message: Admitted, retry: Retry) -> None:
        letter = to_queue(readmission(message), message.delivery.queue)
        outbox.add(batch.tx, [row_of(letter, batch.now, batch.now + retry.after)])

    def _bury(self, batch: Batch, message: Admitted, verdict: DeadLetter) -> None:
        header = message.verified.header
        dead.add(
            batch.tx,
            [
                dead.NewLetter(
                    time=batch.now,
                    queue=message.delivery.queue,
                    typ=header.typ,
                    issuer=header.iss,
                    client=header.cli,
                    reason=verdict.reason[:4096],
                    body=message.verified.payload,
                    jws=message.jws,
                    user_id=message.user_id,
                )
            ],
        )


def readmission(message: Admitted, letter: int = 0, operator: str = "") -> Readmit:
    """A message wrapped for its way back into its queue."""
    return Readmit(
        letter=letter,
        queue=message.delivery.queue,
        user=message.user_id,
        jws=message.jws,
        body=message.verified.payload,
        operator=operator,
    )


def row_of(letter: Letter, now: float, not_before: float) -> OutboxRow:
    """A letter as the outbox keeps it; one that waits on purpose (``not_before > now``) is the relay's alone."""
    return OutboxRow(
        jti=letter.message_id,
        exchange=letter.exchange,
        routing_key=letter.routing_key,
        typ=letter.name,
        aud=letter.audience,
        cid=letter.correlation,
        payload=letter.payload,
        created=now,
        not_before=not_before,
        expires=not_before + by_name(letter.name).lifetime,
    )


def letter_of(row: OutboxRow) -> Letter:
    """The letter that an outbox row keeps."""
    return Letter(row.typ, row.payload, row.exchange, row.routing_key, row.aud, row.jti, row.cid)


def _values(letter: Letter) -> tuple[str, bytes, str, str, str, str, str]:
    return (
        letter.name,
        letter.payload,
        letter.exchange,
        letter.routing_key,
        letter.audience,
        letter.message_id,
        letter.correlation,
    )
