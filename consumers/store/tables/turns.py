"""How groups and owners stand in the matcher's order."""

from __future__ import annotations

from sqlalchemy import PrimaryKeyConstraint, Table

from .base import metadata, real, text

turns = Table(
    "turns",
    metadata,
    text("grp"),
    text("owner"),
    real("turn"),
    real("used"),
    real("last"),
    real("last_background"),
    real("time"),
    PrimaryKeyConstraint("grp", "owner"),
    comment="Usage of groups (owner empty) and of owners in groups as of a time, for the matcher's order of turns.",
)
