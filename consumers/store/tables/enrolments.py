"""How pilots come to an identity: one-time secrets, by their public halves, and what became of them."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table
from sqlalchemy import text as sql

from .base import metadata, number, real, serial, text

PENDING_ONLY = sql("pilot_key <> '' AND not_after IS NULL")
"""Pilots that wait for their certificate: nearly always none."""

enrolments = Table(
    "enrolments",
    metadata,
    serial("number"),
    text("id"),
    Column("public_key", LargeBinary, nullable=False),
    text("identity"),
    text("site"),
    text("grp"),
    text("creator"),
    real("created"),
    real("not_before"),
    real("expires"),
    real("life"),
    real("used", null=True),
    text("client"),
    text("pilot_key"),
    text("assertion"),
    real("ends", null=True),
    real("issued", null=True),
    real("not_after", null=True),
    number("reused"),
    real("revoked", null=True),
    text("reason"),
    Index(None, "id", unique=True),
    Index(None, "identity", unique=True),
    Index(None, "site", "number"),
    Index("ix_enrolments_pending", "number", postgresql_where=PENDING_ONLY, sqlite_where=PENDING_ONLY),
    comment="Enrolments of pilots: the public half of a one-time secret, who used it, and the identity it made.",
)
