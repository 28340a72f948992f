"""What identity, delegation and authorization need."""

from __future__ import annotations

revision = "0002_pre"
down_revision = "0001_post"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Each topic adds its own tables and columns in a function of its own."""
