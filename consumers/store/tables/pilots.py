"""Pilots, their parked requests, and orders to them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, PrimaryKeyConstraint, Table

from .base import Encoded, metadata, number, real, text

pilots = Table(
    "pilots",
    metadata,
    text("client", key=True),
    text("identity"),
    text("site"),
    text("ce"),
    text("status"),
    real("first_seen"),
    real("last_seen"),
    Column("offer", Encoded, nullable=False),
    real("load"),
    real("memory_mb"),
    real("disk_mb"),
    number("processors"),
    Column("draining", Boolean, nullable=False),
    Index(None, "status", "last_seen"),
    comment="Pilots by client id; status alive, gone (said goodbye) or lost.",
)

parked = Table(
    "parked",
    metadata,
    text("client"),
    text("slot"),
    text("identity"),
    Column("request", Encoded, nullable=False),
    text("reply_to"),
    text("cid"),
    real("since"),
    real("deadline"),
    PrimaryKeyConstraint("client", "slot"),
    Index(None, "deadline"),
    comment="Match requests that found nothing yet; a newer one of the same slot replaces the older.",
)

control_orders = Table(
    "control_orders",
    metadata,
    number("job"),
    number("attempt"),
    text("action"),
    text("client"),
    text("reason"),
    real("created"),
    real("sent"),
    real("done", null=True),
    text("outcome"),
    PrimaryKeyConstraint("job", "attempt", "action"),
    Index(
        "ix_control_orders_pending",
        "sent",
        postgresql_where=Column("done").is_(None),
        sqlite_where=Column("done").is_(None),
    ),
    comment="Orders to pilots, sent again until they are done.",
)
