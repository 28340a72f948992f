"""What identity, delegation and authorization need no more."""

from __future__ import annotations

revision = "0002_post"
down_revision = "0002_pre"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
