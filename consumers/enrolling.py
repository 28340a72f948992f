"""The gatekeeper's part of an enrolment: may this secret still be used, and by whom.

Promises: a secret serves the first key that uses it, and no other, ever: the claim is one conditional update. The same
key may come again until its identity ends, for connections break and RabbitMQ asks twice. A used secret that comes
with another key is written down as what it may be, a theft. Nothing is issued here: that is the pilot authority's
(:mod:`consumers.pilot_authority`), which believes the pilot's signature and not the gatekeeper.
"""

from __future__ import annotations

import structlog

from broker.enrolment import Enrolling, check_enrolment
from broker.refusal import RefusalError

from .store import Store, StoreConflict, Transaction, audit, enrolments, sessions
from .store.enrolments import Enrolment

KIND = "enrolling"
"""Of a session that may read its own queue and nothing else."""

WRITTEN_REUSES = 5
"""Tries with a used secret that are written down, for each secret; after that they are counted."""

CLAIM_TRIES = 3
"""A claim that lost against another one is looked at again, to say why."""

log = structlog.get_logger(__name__)


class SecretReusedError(RefusalError):
    """A used secret came with another key: one of the two pilots may be a thief.

    Attributes:
        row: the enrolment, with the pilot that used it first.
        alarm: worth telling everybody who watches; later tries with the same secret are not.
    """

    def __init__(self, row: Enrolment, *, alarm: bool) -> None:
        reason = "the enrolment secret was used before: if this is a job that was started again, it needs a new one"
        super().__init__("denied", reason)
        self.row = row
        self.alarm = alarm


class EnrolmentDesk:
    """Claims secrets.

    Args:
        store: the state.
        broker: name of the deployment.
    """

    def __init__(self, store: Store, broker: str) -> None:
        self._store = store
        self._broker = broker

    def check(self, assertion: str, *, client: str, now: float) -> Enrolling:
        """Check what a pilot signed with its secret; whether that may still be used is another matter.

        Raises:
            RefusalError: why not.
        """

        def find(enrolment: str) -> bytes | None:
            with self._store.reading() as tx:
                row = enrolments.get(tx, [enrolment]).get(enrolment)
            return None if row is None else row.public_key

        return check_enrolment(assertion, audience=self._broker, now=now, find=find, client=client)

    def claim(self, wish: Enrolling, assertion: str, *, now: float) -> Enrolment:
        """Use the secret, and remember the client's session.

        Raises:
            RefusalError: why it may not be used.
        """
        for left in reversed(range(CLAIM_TRIES)):
            try:
                with self._store.transaction() as tx:
                    outcome = self._claim(tx, wish, assertion, now)
            except StoreConflict:
                if not left:
                    raise
            else:
                if isinstance(outcome, Enrolment):
                    return outcome
                raise outcome
        raise StoreConflict

    def _claim(self, tx: Transaction, wish: Enrolling, assertion: str, now: float) -> Enrolment | RefusalError:
        client = wish.claims.sub
        row = enrolments.get(tx, [wish.enrolment]).get(wish.enrolment)
        if row is None:
            return RefusalError("denied", "there is no such enrolment")
        if wish.claims.site != row.site:
            # Before the claim: who is elsewhere does not use up a secret.
            return RefusalError("denied", f"the enrolment is for {row.site}, not for {wish.claims.site[:100]}")
        if row.assertion == assertion and row.revoked is None:
            return row  # RabbitMQ asks twice for one login
        claimed = enrolments.claim(
            tx, row.id, client=client, pilot_key=wish.key_hash, assertion=assertion, now=now
        )  # fmt: skip
        if not claimed:
            return self._refusal(tx, row, wish, now)
        # No group: the session reads its own reply queue, and sends nothing.
        sessions.put(tx, client, row.identity, "", wish.key_hash, KIND, now)
        if row.used is None:
            self._note(tx, row, client, now, "enrolment.used", key=wish.key_hash)
        return row

    def _refusal(self, tx: Transaction, seen: Enrolment, wish: Enrolling, now: float) -> RefusalError:
        row = enrolments.get(tx, [seen.id]).get(seen.id, seen)  # another may have claimed it since
        client = wish.claims.sub
        if row.revoked is not None:
            return RefusalError("denied", "the enrolment is revoked")
        if row.used is None:
            when = "is not valid yet" if now < row.not_before else "has expired"
            return RefusalError("denied", f"the enrolment {when}")
        if row.pilot_key == wish.key_hash:
            return RefusalError("denied", "the life of this pilot is over")
        times = enrolments.tried_again(tx, row.id)
        if times <= WRITTEN_REUSES:
            log.error("enrolment.reused", enrolment=row.id, site=row.site, first=row.client, now=client, times=times)
            self._note(
                tx, row, client, now, "enrolment.reused", first_client=row.client, first_used=row.used, times=times,
                key=wish.key_hash, first_key=row.pilot_key, alarm="one of the two may be a thief",
            )  # fmt: skip
        return SecretReusedError(row, alarm=times <= WRITTEN_REUSES)

    @staticmethod
    def _note(tx: Transaction, row: Enrolment, client: str, now: float, event: str, **detail: object) -> None:
        facts = {"enrolment": row.id, "site": row.site, **detail}
        audit.append(tx, now, event, identity=row.identity, client=client, detail=facts)
