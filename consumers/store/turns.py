"""How groups and owners stand in the matcher's order, for the next leader. What it means: :mod:`..domain.standing`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from ..domain.standing import Kept
from . import sql
from .engine import Reading, Transaction
from .tables.turns import turns


def load(tx: Reading) -> list[Kept]:
    """All that is kept."""
    c = turns.c
    columns = (c.grp, c.owner, c.turn, c.used, c.last, c.last_background, c.time)
    return [Kept(*row) for row in sql.fetch(tx, sa.select(*columns))]


def save(tx: Transaction, kept: Sequence[Kept]) -> None:
    """Keep these in the place of what was kept under the same names."""
    sql.insert(tx, turns, kept, conflict="replace", keys=("grp", "owner"))


def forget(tx: Transaction, names: Collection[tuple[str, str]]) -> None:
    """Keep nothing of these (group, owner)."""
    for grp, owner in names:
        sql.run(tx, sa.delete(turns).where(turns.c.grp == grp, turns.c.owner == owner))
