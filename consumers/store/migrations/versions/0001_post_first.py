"""The first release has nothing to take away."""

from __future__ import annotations

revision = "0001_post"
down_revision = "0001_pre"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
