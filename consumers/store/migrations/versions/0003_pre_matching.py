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
