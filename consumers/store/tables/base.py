"""What all tables share: the metadata with its naming rule, and the column types."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import BigInteger, Column, Dialect, Double, Integer, MetaData, Text
from sqlalchemy.types import TypeDecorator

from schemas.job import JobStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
"""Constraints have predictable names, so that later migrations can name them on both databases."""

Id: TypeAlias = BigInteger
BIG = BigInteger().with_variant(Integer(), "sqlite")
"""Numbers of rows: 64 bits on PostgreSQL; SQLite numbers rows by itself only where the type says INTEGER."""


class Encoded(TypeDecorator[bytes]):
    """JSON that was encoded before: bytes in Python, readable text in the database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: bytes | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - protocol
        """Bytes to text."""
        return value.decode() if isinstance(value, bytes) else value

    def process_result_value(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - protocol
        """Text to bytes."""
        return None if value is None else value.encode()


class Status(TypeDecorator[JobStatus]):
    """A job state by its name."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: JobStatus | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """State to name; a name that is no state is refused."""
        return None if value is None else JobStatus(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> JobStatus | None:  # noqa: ARG002
        """Name to state."""
        return None if value is None else JobStatus(value)


def text(name: str, *, null: bool = False, key: bool = False) -> Column[str]:
    """A text column."""
    return Column(name, Text, nullable=null, primary_key=key)


def number(name: str, *, null: bool = False, key: bool = False) -> Column[int]:
    """A whole number, given by us."""
    return Column(name, BigInteger, nullable=null, primary_key=key, autoincrement=False)


def serial(name: str = "id") -> Column[int]:
    """A number that the database gives in order of insertion."""
    return Column(name, BIG, primary_key=True, autoincrement=True)


def real(name: str, *, null: bool = False) -> Column[float]:
    """Seconds since the epoch, or a figure."""
    return Column(name, Double, nullable=null)
