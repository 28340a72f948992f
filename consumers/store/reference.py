"""The reference page of the tables, made from the metadata: ``python -m consumers.store.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import sqlalchemy as sa

from .tables import metadata

HEAD = """# The store's tables

Made from the code by `python -m consumers.store.reference`; do not edit.

Times are seconds since 1970-01-01 UTC. JSON columns hold text that was encoded before. Only `consumers/store` issues
SQL; other programs may read, but nothing here is an interface that stays.
"""


def render() -> str:
    """The page in Markdown."""
    sections = ("\n".join(_section(table)) for table in sorted(metadata.tables.values(), key=lambda table: table.name))
    return HEAD + "\n" + "\n".join(sections)


def _section(table: sa.Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    yield f"{table.comment}\n"
    yield "| Column | Type | |\n| --- | --- | --- |"
    for column in table.c:
        remarks = [word for word, holds in (("key", column.primary_key), ("may be absent", column.nullable)) if holds]
        yield f"| `{column.name}` | {_type(column)} | {', '.join(remarks)} |"
    indexes = sorted(_index(index) for index in table.indexes)
    if indexes:
        yield "\n" + "\n".join(indexes)
    yield ""


def _type(column: sa.Column[object]) -> str:
    name = type(column.type).__name__
    if name == "Encoded":
        return "JSON"
    if name == "Status":
        return "job state"
    return column.type.compile().lower()


def _index(index: sa.Index) -> str:
    columns = ", ".join(str(getattr(one, "name", one)) for one in index.expressions)
    where = index.dialect_options["postgresql"]["where"]
    kind = "Unique" if index.unique else "Index"
    return f"* {kind} `{index.name}` ({columns})" + (f" where `{where}`" if where is not None else "")


if __name__ == "__main__":
    sys.stdout.write(render())
