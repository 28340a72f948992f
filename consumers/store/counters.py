"""Numbers given in ranges, without gaps inside a range."""

from __future__ import annotations

from functools import cache

import sqlalchemy as sa

from . import sql
from .engine import DialectName, Transaction
from .tables.messages import counters


def reserve(tx: Transaction, name: str, count: int) -> int:
    """Reserve ``count`` numbers; the first of them (from 1). The counter is held until the transaction ends."""
    row = sql.fetch_one(tx, _reserve(tx.dialect), name=name, count=count)
    if row is None:
        raise LookupError(name)
    return int(row[0]) - count


@cache
def _reserve(dialect: DialectName) -> sa.Executable:
    insert = sql.dialect_insert(dialect, counters)
    count = sa.bindparam("count", type_=sa.BigInteger)
    statement = insert.values(name=sa.bindparam("name", type_=sa.Text), next=count + 1)
    return statement.on_conflict_do_update(index_elements=["name"], set_={"next": counters.c.next + count}).returning(
        counters.c.next
    )
