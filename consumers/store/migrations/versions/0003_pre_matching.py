"""What the task queue and the matcher need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_pre"
down_revision = "0002_post"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Each topic adds its own tables and columns in a function of its own."""
    _match_limits()
    _turns()


def _match_limits() -> None:
    op.create_table(
        "match_limits",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("running", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("delay_seconds", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_match_limits")),
        comment="Registry: how many jobs of a scope may run at once, and how long after each other they start.",
    )
    op.create_index(op.f("ix_attempts_matched"), "attempts", ["matched"], unique=False, postgresql_using="brin")


def _turns() -> None:
    op.create_table(
        "turns",
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("turn", sa.Double(), nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("last_background", sa.Double(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("grp", "owner", name=op.f("pk_turns")),
        comment="Usage of groups (owner empty) and of owners in groups as of a time, for the matcher's order of turns.",
    )
    op.add_column("memberships", sa.Column("share", sa.Double(), nullable=True))
