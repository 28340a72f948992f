"""pilot-authority: enters enrolments for operators, and certifies the pilots that used them.

Promises: a certificate is issued only for what the pilot itself signed with the one-time secret, checked here again
from the stored public key: neither a broker nor a gatekeeper can make a pilot. It names the pilot as the enrolment
does, lives a day at most, and never beyond the enrolment's end. Nothing is issued for a revoked enrolment. A pilot that
was killed while it waited costs nothing; one that comes again with the same key is answered again.
Lies elsewhere: who may use a secret, and once (:mod:`consumers.enrolling`); what a pilot may do (broker.authorization).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import structlog

from broker.authorization import Property
from broker.enrolment import check_enrolment, enrolment_id, load_public_key
from broker.identity import (
    Authority,
    IdentityError,
    PublicKey,
    parse_certificate,
    pem_chain,
    read_csr,
    split_chain,
    thumbprint,
)
from broker.refusal import RefusalError
from broker.signing import algorithm_of
from broker.subscriber import Admitted
from schemas.errors import InvalidInputError
from schemas.messages.enrolment import (
    MAX_ENROLMENTS,
    CreateEnrolments,
    EnrolmentInfo,
    EnrolmentListing,
    PilotEnrolled,
    PilotEnrolling,
    QueryEnrolments,
    RenewIdentity,
    RevokeEnrolments,
)
from schemas.messages.registrar import Blocked, IdentityBlocked, Policy

from .batch import Batch, Consumer
from .directory import Directory
from .outcome import ACK, DeadLetter, Outcome
from .store import audit, chains, enrolments, sessions
from .store.enrolments import Enrolment

LONGEST = 24 * 3600.0
"""Longest certificate of a pilot: what is stolen unnoticed ends within a day. Longer slots renew it (the pilot asks for
another one at two thirds of its life)."""

SHORTEST = 60.0
"""A shorter one would end before the first job starts."""

MAX_OPEN = 100_000
"""Secrets that may be unused at a time: several times the pilots that a large grid has waiting in batch queues."""

LONGEST_OPEN = 30 * 86_400.0
"""A secret waits in a batch queue for days, not for months."""

PENDING_SECONDS = 3600.0
"""A pilot that waits longer for its certificate has given up."""

CHORES_SECONDS = 1.0
"""How often pilots are looked for whose hint was lost: the gatekeeper's word may be, the store's is not."""

MISSED_SECONDS = 5.0
"""A hint that has not come by then is lost. Before its hint a pilot may have no queue yet: the gatekeeper declares that
after it entered the secret as used, and a certificate sent in between would be lost with the secret."""

PURGE_SECONDS = 3600.0

KEPT = 90 * 86_400.0
"""What ended is kept for a quarter: so long questions may come up about a pilot."""

RENEW_PAUSE = 60.0
"""Between two certificates of one pilot: each costs a row for its chain."""

log = structlog.get_logger(__name__)


class PilotAuthority(Consumer):
    """The consumer.

    Args:
        directory: registry.
        authority: certifies pilots; None where a deployment enrols none.
        deployment: its name, audience of what pilots sign.
    """

    name = "pilot-authority"
    handlers: ClassVar = {
        CreateEnrolments: "on_create",
        QueryEnrolments: "on_query",
        RevokeEnrolments: "on_revoke",
        RenewIdentity: "on_renew",
        PilotEnrolling: "",
    }

    def __init__(self, directory: Directory, authority: Authority | None, deployment: str) -> None:
        self._directory = directory
        self._authority = authority
        self._deployment = deployment
        self._next_chores = 0.0
        self._next_purge = 0.0

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle operators' messages one by one, and all hints with one look at the store."""
        hinted = {one.message.enrolment for one in messages if isinstance(one.message, PilotEnrolling)}
        if hinted:
            self._certify_all(batch, enrolments.pending(batch.tx, MAX_ENROLMENTS, ids=hinted))
        return [
            ACK if isinstance(message.message, PilotEnrolling) else self.dispatch(batch, message)
            for message in messages
        ]

    # -- operators ----------------------------------------------------------------------------------------------

    def on_create(self, batch: Batch, message: Admitted) -> Outcome:
        """Enter enrolments."""
        asked = message.message
        if not isinstance(asked, CreateEnrolments):
            return DeadLetter("not enrolment.create")
        try:
            rows = self._checked(batch, asked, message.principal.identity)
        except InvalidInputError as error:
            return batch.refuse(message, "invalid", str(error))
        known = enrolments.get(batch.tx, [row.id for row in rows])
        if known:
            return batch.refuse(message, "conflict", f"there is an enrolment {next(iter(known))} already")
        if enrolments.count_open(batch.tx, batch.now) + len(rows) > MAX_OPEN:
            return batch.refuse(message, "limit", f"more than {MAX_OPEN} enrolments would be open")
        enrolments.create(batch.tx, rows)
        detail = {
            "count": len(rows), "site": asked.site, "group": rows[0].grp, "expires": rows[0].expires,
            "life": rows[0].life, "enrolments": [row.id for row in rows],
        }  # fmt: skip
        self._note(batch, "enrolment.created", message.principal.identity, message.client, detail)
        stored = enrolments.get(batch.tx, [row.id for row in rows])
        batch.answer(message, _listing([stored[row.id] for row in rows], batch.now))
        return ACK

    def _checked(self, batch: Batch, asked: CreateEnrolments, creator: str) -> list[Enrolment]:
        if self._authority is None:
            raise InvalidInputError("this deployment has no authority for pilots ([pilots] authority in server.toml)")
        group = self._group(asked.group)
        sites = self._directory.registry().sites
        if asked.site not in sites:
            raise InvalidInputError(f"there is no site {asked.site!r}")
        begins = max(asked.not_before, batch.now) if asked.not_before else batch.now
        if asked.expires <= begins:
            raise InvalidInputError("the secrets would expire before they are good for anything")
        if asked.expires > batch.now + LONGEST_OPEN:
            raise InvalidInputError(f"a secret waits {LONGEST_OPEN / 86_400:.0f} days at most")
        ids: dict[str, bytes] = {}
        for der in asked.keys:
            load_public_key(der)
            ids[enrolment_id(der)] = der
        if len(ids) != len(asked.keys):
            raise InvalidInputError("one key is there twice: each pilot needs a secret of its own")
        return [
            Enrolment(
                number=0, id=one, public_key=der, identity=self._identity_of(one), site=asked.site, grp=group,
                creator=creator, created=batch.now, not_before=asked.not_before, expires=asked.expires,
                life=asked.life_seconds,
            )
            for one, der in ids.items()
        ]  # fmt: skip

    def _group(self, wanted: str) -> str:
        groups = self._directory.registry().groups
        fitting = [name for name, group in groups.items() if set(group.properties) == {Property.GENERIC_PILOT}]
        if wanted:
            if wanted not in fitting:
                raise InvalidInputError(f"{wanted!r} is no group of pilots: one has the property GenericPilot only")
            return wanted
        if len(fitting) != 1:
            found = ", ".join(sorted(fitting)) or "there is none"
            raise InvalidInputError(f"name the group of pilots ({found})")
        return fitting[0]

    def _identity_of(self, enrolment: str) -> str:
        return f"{self._authority.namespace}/CN={enrolment}" if self._authority is not None else ""

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """List enrolments."""
        asked = message.message
        if not isinstance(asked, QueryEnrolments):
            return DeadLetter("not enrolment.query")
        rows = enrolments.page(batch.tx, site=asked.site, before=asked.before, limit=asked.limit + 1)
        batch.say(message, _listing(rows[: asked.limit], batch.now, more=len(rows) > asked.limit))
        return ACK

    def on_revoke(self, batch: Batch, message: Admitted) -> Outcome:
        """Trust pilots no more."""
        asked = message.message
        if not isinstance(asked, RevokeEnrolments):
            return DeadLetter("not enrolment.revoke")
        operator = message.principal.identity
        found = enrolments.find(batch.tx, set(asked.whom))
        fresh = [row for row in found if row.revoked is None]
        enrolments.revoke(batch.tx, [row.id for row in fresh], asked.reason, batch.now)
        for row in fresh:
            detail = {"enrolment": row.id, "pilot": row.identity, "site": row.site, "reason": asked.reason[:1000]}
            self._note(batch, "enrolment.revoked", operator, message.client, detail)
            if row.used is not None:
                batch.publish(
                    IdentityBlocked(
                        identity=row.identity, how=Blocked.SUSPENDED, reason=asked.reason, by=operator,
                        time=batch.now, jobs=Policy.FINISH,
                    )
                )  # fmt: skip
        batch.commits.append(self._directory.forget)
        batch.answer(message, _listing(enrolments.find(batch.tx, [row.id for row in found]), batch.now))
        return ACK

    # -- pilots -------------------------------------------------------------------------------------------------

    def on_renew(self, batch: Batch, message: Admitted) -> Outcome:
        """Give a pilot its next certificate."""
        asked = message.message
        if not isinstance(asked, RenewIdentity):
            return DeadLetter("not pilot.renew")
        row = enrolments.of_identity(batch.tx, message.principal.identity)
        if row is None or row.ends is None or row.not_after is None or row.revoked is not None:
            return batch.refuse(message, "denied", "only a pilot that was enrolled here gets its certificate here")
        if row.issued is not None and row.issued > batch.now - RENEW_PAUSE:
            return batch.refuse(message, "limit", f"a certificate was issued within the last {RENEW_PAUSE:.0f} s")
        if row.ends < batch.now + SHORTEST:
            return batch.refuse(message, "denied", "the life of this pilot is over")
        try:
            key = read_csr(asked.csr)
            algorithm_of(key)
        except (IdentityError, RefusalError) as error:
            return batch.refuse(message, "invalid", f"the certificate request: {error}")
        enrolled = self._certify(batch, row, key, max(SHORTEST, asked.life_seconds or LONGEST))
        if enrolled is None:
            return batch.refuse(message, "conflict", "its certificate was changed by somebody else just now")
        session = sessions.get(batch.tx, message.client)
        if session is not None:  # who is connected is judged by the chain of its session
            newest = thumbprint(split_chain(enrolled.chain)[0])
            sessions.put(batch.tx, message.client, row.identity, session.grp, newest, session.kind, batch.now)
        self._note(batch, "pilot.renewed", row.identity, message.client, _issued(row, enrolled))
        batch.answer(message, enrolled)
        return ACK

    def _certify_all(self, batch: Batch, waiting: Sequence[Enrolment]) -> None:
        for row in waiting:
            try:
                enrolled = self._enrol(batch, row)
            except (RefusalError, InvalidInputError) as refusal:
                self._refuse(batch, row, str(refusal))
            else:
                if enrolled is not None:
                    batch.tell(row.client, enrolled)

    def _enrol(self, batch: Batch, row: Enrolment) -> PilotEnrolled | None:
        """Certify what the pilot signed, and nothing else.

        Raises:
            RefusalError: it did not sign that.
        """
        wish = check_enrolment(
            row.assertion,
            audience=self._deployment,
            now=batch.now,
            find=lambda one: row.public_key if one == row.id == enrolment_id(row.public_key) else None,
            seconds=PENDING_SECONDS,
        )
        if wish.claims.site != row.site or row.identity != self._identity_of(row.id):
            raise RefusalError("forged", "the enrolment is not what the pilot signed")
        if (wish.key_hash, wish.claims.sub) != (row.pilot_key, row.client):
            raise RefusalError("forged", "the key is not the one that the pilot signed")
        life = wish.claims.life if wish.claims.life > 0 else LONGEST
        enrolled = self._certify(batch, row, wish.key, max(life, SHORTEST))
        if enrolled is not None:
            self._note(batch, "pilot.enrolled", row.identity, row.client, _issued(row, enrolled))
        return enrolled

    def _certify(self, batch: Batch, row: Enrolment, key: PublicKey, life: float) -> PilotEnrolled | None:
        if self._authority is None or row.ends is None:
            raise RefusalError("denied", "this deployment has no authority for pilots")
        seconds = min(life, LONGEST, row.ends - batch.now)
        now = dt.datetime.fromtimestamp(int(batch.now), dt.UTC)
        der = self._authority.certify(key, row.identity, lifetime=dt.timedelta(seconds=int(seconds)), now=now)
        not_after = parse_certificate(der).x509.not_valid_after_utc.timestamp()
        if not enrolments.issue(batch.tx, row, not_after=not_after, now=batch.now):
            return None
        # Known before its first login: what is signed after a renewal needs no new one.
        chains.put(batch.tx, thumbprint(der), [der], row.identity, not_after, batch.now)
        chain = pem_chain([der]).decode("ascii")
        return PilotEnrolled(identity=row.identity, chain=chain, not_after=not_after, ends=row.ends)

    def _refuse(self, batch: Batch, row: Enrolment, reason: str) -> None:
        log.warning("enrolment.not_certified", enrolment=row.id, reason=reason)
        enrolments.issue(batch.tx, row, not_after=0.0, now=batch.now)  # not to be looked at again
        self._note(batch, "enrolment.refused", row.identity, row.client, {"enrolment": row.id, "reason": reason[:1000]})
        batch.tell(row.client, PilotEnrolled(identity=row.identity, reason=reason[:4096]))

    # -- chores -------------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """Every second: a pilot may wait whose hint was lost."""
        return self._next_chores - now

    def chores(self, batch: Batch) -> None:
        """Look for those who wait; forget what is long over."""
        self._next_chores = batch.now + CHORES_SECONDS
        self._certify_all(batch, enrolments.pending(batch.tx, MAX_ENROLMENTS, used_before=batch.now - MISSED_SECONDS))
        if batch.now >= self._next_purge:
            self._next_purge = batch.now + PURGE_SECONDS
            enrolments.purge(batch.tx, batch.now - KEPT)

    @staticmethod
    def _note(batch: Batch, event: str, identity: str, client: str, detail: Mapping[str, object]) -> None:
        audit.append(batch.tx, batch.now, event, identity=identity, client=client, detail=detail)


def _issued(row: Enrolment, enrolled: PilotEnrolled) -> dict[str, object]:
    return {"enrolment": row.id, "site": row.site, "not_after": enrolled.not_after, "ends": enrolled.ends}


def _listing(rows: Collection[Enrolment], now: float, *, more: bool = False) -> EnrolmentListing:
    return EnrolmentListing(
        enrolments=tuple(
            EnrolmentInfo(
                number=row.number, id=row.id, identity=row.identity, state=row.state(now), site=row.site,
                group=row.grp, creator=row.creator, created=row.created, expires=row.expires, life_seconds=row.life,
                used=row.used, client=row.client, ends=row.ends, reused=row.reused, revoked=row.revoked,
                reason=row.reason,
            )
            for row in rows
        ),
        more=more,
    )  # fmt: skip
