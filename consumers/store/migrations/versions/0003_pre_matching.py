"""What the task queue and the matcher need."""

from __future__ import annotations

revision = "0003_pre"
down_revision = "0002_post"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Each topic adds its own tables and columns in a function of its own."""
