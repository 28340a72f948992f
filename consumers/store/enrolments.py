"""Enrolments of pilots. A secret serves one pilot: the first key that uses it, and no other, ever.

Each revocation raises a version, so that readers keep what they know and look only at that number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import msgspec
import sqlalchemy as sa

from . import counters, sql
from .engine import Reading, Transaction
from .tables.enrolments import enrolments
from .tables.messages import counters as counters_table

VERSION = "enrolments"


class Enrolment(msgspec.Struct, frozen=True):
    """One enrolment.

    Attributes:
        number: in order of creation.
        id: fingerprint of the public key.
        public_key: SubjectPublicKeyInfo, DER.
        identity: DN of the pilot that it makes.
        life: longest life of the identity, seconds.
        used: when its secret was used, by ``client``; that pilot's key is ``pilot_key`` (hash).
        assertion: what that pilot signed at its latest login.
        ends: when the identity ends for good.
        issued: when its latest certificate was issued.
        not_after: end of the latest certificate; None while the pilot waits for it, 0 if it was refused.
        reused: how often the secret was tried by another key.
    """

    number: int
    id: str
    public_key: bytes
    identity: str
    site: str
    grp: str
    creator: str
    created: float
    not_before: float
    expires: float
    life: float
    used: float | None = None
    client: str = ""
    pilot_key: str = ""
    assertion: str = ""
    ends: float | None = None
    issued: float | None = None
    not_after: float | None = None
    reused: int = 0
    revoked: float | None = None
    reason: str = ""

    def state(self, now: float) -> str:
        """Where it stands; see :class:`schemas.messages.enrolment.EnrolmentInfo`."""
        if self.revoked is not None:
            return "revoked"
        if self.used is None:
            return "open" if now <= self.expires else "expired"
        if self.ends is not None and now > self.ends:
            return "ended"
        return "enrolled" if self.not_after else "used"


def version(tx: Reading) -> int:
    """Changes with each revocation; 0 before the first."""
    row = sql.fetch_one(tx, sa.select(counters_table.c.next).where(counters_table.c.name == VERSION))
    return 0 if row is None else int(row[0])


def create(tx: Transaction, rows: Sequence[Enrolment]) -> None:
    """Enter new enrolments; their numbers are given here, and what ``rows`` say of them does not count."""
    values = [
        {name: getattr(row, name) for name in Enrolment.__struct_fields__ if name != "number"} for row in rows
    ]  # fmt: skip
    sql.insert(tx, enrolments, values)


def get(tx: Reading, ids: Collection[str]) -> dict[str, Enrolment]:
    """Enrolments by id."""
    return {row.id: row for row in _where(tx, enrolments.c.id.in_(list(ids)))} if ids else {}


def find(tx: Reading, whom: Collection[str]) -> list[Enrolment]:
    """Enrolments by id or identity, in order of creation."""
    wanted = list(whom)
    return _where(tx, sa.or_(enrolments.c.id.in_(wanted), enrolments.c.identity.in_(wanted))) if wanted else []


def of_identity(tx: Reading, identity: str) -> Enrolment | None:
    """The enrolment that made an identity."""
    row = sql.fetch_one(tx, _of_identity(), identity=identity)
    return None if row is None else Enrolment(*row)


def page(tx: Reading, *, site: str = "", before: int = 0, limit: int = 100) -> list[Enrolment]:
    """One page, newest first; ``before`` is a number, 0 for the first page."""
    c = enrolments.c
    conditions = [one for wanted, one in ((site, c.site == site), (before, c.number < before)) if wanted]
    statement = sa.select(*sql.picked(enrolments, Enrolment)).where(*conditions).order_by(c.number.desc()).limit(limit)
    return [Enrolment(*row) for row in sql.fetch(tx, statement)]


def count_open(tx: Reading, now: float) -> int:
    """Secrets that may still be used."""
    c = enrolments.c
    found = sql.fetch_one(
        tx,
        sa.select(sa.func.count()).where(c.used.is_(None), c.revoked.is_(None), c.expires >= now),
    )
    return 0 if found is None else int(found[0])


def claim(tx: Transaction, enrolment: str, *, client: str, pilot_key: str, assertion: str, now: float) -> bool:
    """Use a secret for a key, or let the same key come again; False if that may not be.

    Of several that try an unused one at the same time exactly one succeeds.
    """
    c = enrolments.c
    first = sa.and_(c.used.is_(None), c.not_before <= now, c.expires >= now)
    again = sa.and_(c.pilot_key == pilot_key, c.ends > now)
    statement = (
        sa.update(enrolments)
        .where(c.id == enrolment, c.revoked.is_(None), sa.or_(first, again))
        .values(
            used=sa.func.coalesce(c.used, now),
            ends=sa.func.coalesce(c.ends, c.life + now),
            client=client,
            pilot_key=pilot_key,
            assertion=assertion,
            not_after=None,
        )
    )
    return sql.run(tx, statement) == 1


def tried_again(tx: Transaction, enrolment: str) -> int:
    """Somebody else tried a used secret: how often that has happened."""
    c = enrolments.c
    statement = sa.update(enrolments).where(c.id == enrolment).values(reused=c.reused + 1).returning(c.reused)
    row = sql.fetch_one(tx, statement)
    return 0 if row is None else int(row[0])


def pending(
    tx: Reading, limit: int, *, ids: Collection[str] | None = None, used_before: float | None = None
) -> list[Enrolment]:
    """Pilots that wait for their certificate, oldest first: those named, or those that have waited since then."""
    c = enrolments.c
    statement = (
        sa.select(*sql.picked(enrolments, Enrolment))
        .where(c.pilot_key != "", c.not_after.is_(None), c.revoked.is_(None))
        .where(c.id.in_(list(ids)) if ids is not None else sa.true())
        .where(c.used <= used_before if used_before is not None else sa.true())
        .order_by(c.number)
        .limit(limit)
    )
    return [Enrolment(*row) for row in sql.fetch(tx, statement)]


def issue(tx: Transaction, row: Enrolment, *, not_after: float, now: float) -> bool:
    """A certificate was issued for what ``row`` says; False if it was revoked or served meanwhile."""
    c = enrolments.c
    statement = (
        sa.update(enrolments)
        .where(c.id == row.id, c.revoked.is_(None), c.assertion == row.assertion)
        .where(c.not_after.is_(None) if row.not_after is None else c.not_after == row.not_after)
        .values(issued=now, not_after=not_after)
    )
    return sql.run(tx, statement) == 1


def revoke(tx: Transaction, ids: Collection[str], reason: str, now: float) -> int:
    """Trust these no more; how many were trusted until now."""
    c = enrolments.c
    wanted = sorted(ids)
    statement = sa.update(enrolments).where(c.id.in_(wanted), c.revoked.is_(None)).values(revoked=now, reason=reason)
    changed = sql.run(tx, statement) if wanted else 0
    if changed:
        counters.reserve(tx, VERSION, 1)
    return changed


def purge(tx: Transaction, before: float) -> int:
    """Drop what ended, or expired unused, before a time; how many."""
    c = enrolments.c
    over = sa.or_(sa.and_(c.used.is_(None), c.expires < before), c.ends < before)
    return sql.run(tx, sa.delete(enrolments).where(over))


def _where(tx: Reading, condition: sa.ColumnElement[bool]) -> list[Enrolment]:
    statement = sa.select(*sql.picked(enrolments, Enrolment)).where(condition).order_by(enrolments.c.number)
    return [Enrolment(*row) for row in sql.fetch(tx, statement)]


@cache
def _of_identity() -> sa.Executable:
    identity = sa.bindparam("identity", type_=sa.Text)
    return sa.select(*sql.picked(enrolments, Enrolment)).where(enrolments.c.identity == identity)
