"""Messages: what came in, what goes out, what could not be handled; leaders, counters and the audit."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint, Table

from .base import Encoded, metadata, number, real, serial, text

inbox = Table(
    "inbox",
    metadata,
    # Time-ordered ids first: new rows land at the index's right edge.
    text("jti"),
    text("iss"),
    text("typ"),
    real("received"),
    Column("outcome", LargeBinary, nullable=True),
    PrimaryKeyConstraint("jti", "iss"),
    Index(None, "received"),
    # The outcome is written after the row: leave room for it on the page.
    postgresql_with={"fillfactor": 60},
    comment="Admitted messages; unique, so that a redelivery has no second effect. Outlives every outbox row.",
)

outbox = Table(
    "outbox",
    metadata,
    text("jti", key=True),
    text("exchange"),
    text("routing_key"),
    text("typ"),
    text("aud"),
    text("cid"),
    Column("payload", LargeBinary, nullable=False),
    real("created"),
    real("not_before"),
    real("expires"),
    Index(None, "not_before", "created"),
    comment="Messages to publish, written with the state that they tell of; removed once confirmed.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    serial(),
    real("time"),
    text("queue"),
    text("typ"),
    text("issuer"),
    text("client"),
    text("reason"),
    Column("body", LargeBinary, nullable=False),
    text("jws"),
    text("user_id"),
    Column("headers", Encoded, nullable=False),
    text("state"),
    text("closed_by"),
    text("closed_reason"),
    real("closed", null=True),
    comment="Messages that could not be handled, raw; state dead, replayed or discarded.",
)

leaders = Table(
    "leaders",
    metadata,
    text("role", key=True),
    text("holder"),
    number("epoch"),
    real("until"),
    comment="Who leads a role, until when; the epoch grows with each change of holder and fences old leaders off.",
)

counters = Table(
    "counters",
    metadata,
    text("name", key=True),
    number("next"),
    comment="Next free number of a kind: jobs, submissions, the registry's version.",
)

service_state = Table(
    "service_state",
    metadata,
    text("name", key=True),
    Column("value", Encoded, nullable=False),
    real("time"),
    comment="Small facts that services keep across restarts, such as when heartbeats were last drained.",
)

audit = Table(
    "audit",
    metadata,
    serial(),
    real("time"),
    text("event"),
    text("identity"),
    text("client"),
    Column("detail", Encoded, nullable=False),
    Index(None, "time"),
    comment="Logins, denials, proxy issues, admin acts; append only.",
)
