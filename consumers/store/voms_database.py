"""Reads a VO's VOMS database: its members with groups and roles. Never writes.

Both layouts that voms-server itself reads: version 2 (``usr.dn``) and version 3, voms-admin's (``certificate``, where a
person has several and each may be suspended). The tables are the VO's: what is not there is an error, and more rows
than a VO can have are refused before they are kept.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from schemas.errors import ConfigurationError, TemporaryError

from ..domain.synchronization import SourceUser
from .sql import Found

MAX_USERS = 200_000
"""Certificates of one VO; the largest have some ten thousand."""

MAX_MEMBERSHIPS = 2_000_000

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""The whole answer of one question; it takes a second for the largest VO."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_TEXT = 255
"""VOMS keeps names in 255 characters."""


class SourceAwayError(TemporaryError):
    """The VO's source does not answer."""


def read(url: str, password: str | None = None, ca_file: Path | None = None) -> list[SourceUser]:
    """All members of a VO.

    Args:
        url: SQLAlchemy's form without a secret (``mysql+pymysql://reader@host/voms_vo``).
        password: of the account.
        ca_file: whose certificates the server may have; the system's by default. Beyond this machine it must have one.

    Raises:
        SourceAwayError: it does not answer, or not like a VOMS database.
        ConfigurationError: the URL is no good, or its driver is not installed.
    """
    with _connected(_parse(url, password), ca_file) as connection:
        inspector = sa.inspect(connection)
        columns = {column["name"] for column in inspector.get_columns("usr")}
        if inspector.has_table("certificate"):
            return list(_version_3(connection, columns))
        return list(_version_2(connection))


def _parse(url: str, password: str | None) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("the VOMS database's URL is not of the form mysql+pymysql://user@host/name") from None
    if parsed.get_backend_name() not in {"mysql", "mariadb", "sqlite"}:
        raise ConfigurationError(f"a VOMS database speaks MySQL, not {parsed.get_backend_name()}")
    return parsed.set(password=password) if password is not None else parsed


@contextmanager
def _connected(url: URL, ca_file: Path | None) -> Iterator[Connection]:
    is_sqlite = url.get_backend_name() == "sqlite"  # a copy of a database, say
    arguments: dict[str, object] = {}
    if not is_sqlite:
        arguments |= {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "write_timeout": READ_SECONDS}
        if "unix_socket" not in url.query and url.host not in LOOPBACK:
            arguments["ssl"] = _tls(ca_file)
    try:
        engine = sa.create_engine(url, connect_args=arguments, poolclass=sa.pool.NullPool, hide_parameters=True)
    except (NoSuchModuleError, ImportError) as error:
        raise ConfigurationError(
            f"the driver of the VOMS database is missing: pip install pilotage[voms] ({error})"
        ) from None
    try:
        with engine.connect() as connection:
            only = "PRAGMA query_only = ON" if is_sqlite else "SET SESSION TRANSACTION READ ONLY"
            connection.exec_driver_sql(only)
            connection.rollback()  # it holds for the transactions after this one
            yield connection
    except SQLAlchemyError as error:
        raise SourceAwayError(f"the VOMS database: {_cause(error)}") from None
    finally:
        engine.dispose()


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Members' names and the account's password cross no network in the clear."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except OSError as error:
        raise ConfigurationError(f"{ca_file}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _cause(error: SQLAlchemyError) -> str:
    """What went wrong, without statements or parameters."""
    return str(getattr(error, "orig", None) or type(error).__name__)[:300]


_groups = sa.table(sa.sql.quoted_name("groups", True), sa.column("gid"), sa.column("dn"))
_roles = sa.table("roles", sa.column("rid"), sa.column("role"))
_m = sa.table("m", sa.column("userid"), sa.column("gid"), sa.column("rid"))
_usr = sa.table(
    "usr",
    *(sa.column(name) for name in ("userid", "dn", "cn", "mail", "name", "surname", "email_address", "suspended",
                                   "suspension_reason")),
)  # fmt: skip
_certificate = sa.table(
    "certificate", *(sa.column(name) for name in ("usr_id", "subject_string", "suspended", "suspended_reason"))
)
_attributes = sa.table("attributes", sa.column("a_id"), sa.column("a_name"))
_usr_attrs = sa.table("usr_attrs", sa.column("a_id"), sa.column("u_id"), sa.column("a_value"))


def _version_2(connection: Connection) -> Iterator[SourceUser]:
    fqans, nicknames = _fqans(connection), _nicknames(connection)
    c = _usr.c
    for userid, dn, cn, mail in _bounded(connection, sa.select(c.userid, c.dn, c.cn, c.mail), MAX_USERS):
        yield SourceUser(
            dn=dn or "",
            nickname=_text(nicknames.get(userid) or cn),
            mail=_text(mail),
            fqans=tuple(fqans.get(userid, ())),
        )


def _version_3(connection: Connection, columns: set[str]) -> Iterator[SourceUser]:
    fqans, nicknames = _fqans(connection), _nicknames(connection)
    wanted = [name for name in ("userid", "name", "surname", "email_address", "suspended", "suspension_reason")
              if name in columns]  # fmt: skip
    people = {
        row[0]: dict(zip(wanted, row, strict=True))
        for row in _bounded(connection, sa.select(*(_usr.c[name] for name in wanted)), MAX_USERS)
    }
    c = _certificate.c
    statement = sa.select(c.usr_id, c.subject_string, c.suspended, c.suspended_reason)
    for userid, subject, suspended, reason in _bounded(connection, statement, MAX_USERS):
        person = people.get(userid, {})
        full = " ".join(str(person[name]) for name in ("name", "surname") if person.get(name))
        yield SourceUser(
            dn=subject or "",
            nickname=_text(nicknames.get(userid) or full),
            mail=_text(person.get("email_address")),
            suspended=_flag(suspended) or _flag(person.get("suspended")),
            reason=_text(reason or person.get("suspension_reason")),
            fqans=tuple(fqans.get(userid, ())),
        )


def _fqans(connection: Connection) -> Mapping[int, list[str]]:
    """User → FQANs."""
    statement = (
        sa.select(_m.c.userid, _groups.c.dn, _roles.c.role)
        .select_from(_m)
        .join(_groups, _groups.c.gid == _m.c.gid)
        .outerjoin(_roles, _roles.c.rid == _m.c.rid)
    )
    found: dict[int, list[str]] = {}
    for userid, group, role in _bounded(connection, statement, MAX_MEMBERSHIPS):
        found.setdefault(userid, []).append(f"{group}/Role={role}" if role else str(group))
    return found


def _nicknames(connection: Connection) -> Mapping[int, str]:
    """User → his attribute ``nickname``."""
    statement = sa.select(_usr_attrs.c.u_id, _usr_attrs.c.a_value).where(
        _usr_attrs.c.a_id == _attributes.c.a_id, _attributes.c.a_name == "nickname"
    )
    return {userid: value for userid, value in _bounded(connection, statement, MAX_USERS) if value}


def _bounded(connection: Connection, statement: sa.Select[Any], most: int) -> Sequence[Found]:
    rows: Sequence[Found] = connection.execute(statement.limit(most + 1)).all()
    if len(rows) > most:
        raise SourceAwayError(f"the VOMS database holds more than {most} rows where a VO has fewer")
    return rows


def _text(value: object) -> str:
    """A short text for people, without what cannot be shown."""
    text = str(value or "")[:MAX_TEXT]
    return "".join(letter for letter in text if letter.isprintable())


def _flag(value: object) -> bool:
    """MySQL's BIT comes as bytes."""
    return any(value) if isinstance(value, bytes) else bool(value)
