"""The replica catalog: which files there are, and where their copies lie."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import sqlalchemy as sa

from schemas.messages.common import InputFile, Replica

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.files import files, replicas


def register(tx: Transaction, entries: Sequence[InputFile]) -> set[str]:
    """Enter files and copies; a copy on the same SE takes the older one's place.

    Returns:
        The LFNs that are known with another size or checksum; nothing of these was entered.
    """
    wanted = {entry.lfn: entry for entry in entries}
    rows = [{"lfn": e.lfn, "size": e.size, "adler32": e.adler32} for _, e in sorted(wanted.items())]
    sql.insert(tx, files, rows, conflict="ignore")
    known = {lfn: (size, adler) for lfn, size, adler in sql.fetch(tx, _files(tx.dialect), ids=sql.listed(tx, wanted))}
    refused = {e.lfn for e in entries if not _same(known[e.lfn], e)}
    better = [
        {"lfn": e.lfn, "adler32": e.adler32}
        for e in wanted.values()
        if e.lfn not in refused and e.adler32 and not known[e.lfn][1]
    ]
    sql.update(tx, files, better, ("lfn",))
    copies = {(e.lfn, r.se): r.pfn for e in entries if e.lfn not in refused for r in e.replicas}
    sql.insert(
        tx,
        replicas,
        [{"lfn": lfn, "se": se, "pfn": pfn} for (lfn, se), pfn in sorted(copies.items())],
        conflict="replace",
    )
    return refused


def find(tx: Reading, lfns: Collection[str]) -> dict[str, InputFile]:
    """Files with all their copies (by SE name); unknown ones are absent."""
    if not lfns:
        return {}
    copies: dict[str, list[Replica]] = {}
    facts: dict[str, tuple[int, str]] = {}
    for lfn, size, adler32, se, pfn in sql.fetch(tx, _find(tx.dialect), ids=sql.listed(tx, lfns)):
        facts[lfn] = (size, adler32)
        of_file = copies.setdefault(lfn, [])
        if se is not None:
            of_file.append(Replica(se=se, pfn=pfn))
    return {
        lfn: InputFile(lfn=lfn, size=size, adler32=adler32, replicas=tuple(copies[lfn]))
        for lfn, (size, adler32) in facts.items()
    }


def forget(tx: Transaction, lfns: Collection[str]) -> None:
    """Drop files with all their copies."""
    for table in (replicas, files):
        sql.run(tx, _forget(tx.dialect, table), ids=sql.listed(tx, lfns))


def _same(known: tuple[int, str], entry: InputFile) -> bool:
    size, adler32 = known
    return size == entry.size and (not adler32 or not entry.adler32 or adler32 == entry.adler32)


@cache
def _files(dialect: DialectName) -> sa.Executable:
    return sa.select(files.c.lfn, files.c.size, files.c.adler32).where(sql.among(dialect, files.c.lfn))


@cache
def _find(dialect: DialectName) -> sa.Executable:
    return (
        sa.select(files.c.lfn, files.c.size, files.c.adler32, replicas.c.se, replicas.c.pfn)
        .join_from(files, replicas, files.c.lfn == replicas.c.lfn, isouter=True)
        .where(sql.among(dialect, files.c.lfn))
        .order_by(files.c.lfn, replicas.c.se)
    )


@cache
def _forget(dialect: DialectName, table: sa.Table) -> sa.Executable:
    return sa.delete(table).where(sql.among(dialect, table.c.lfn))
