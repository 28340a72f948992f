"""What the task queue and the matcher need no more."""

from __future__ import annotations

revision = "0003_post"
down_revision = "0003_pre"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
