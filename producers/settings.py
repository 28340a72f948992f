"""Settings of a user's tools: a frozen value made once by the composition root and passed in as ``ctx.obj``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class UserSettings:
    """Where a user's credentials and trust lie; ``None`` means the grid's usual place."""

    ca_dir: Path | None = None
    """Trust directory in grid layout."""
    vomsdir: Path | None = None
    """LSC files of the VOMS servers."""
    user_cert: Path | None = None
    """The user's certificate, for making proxies."""
    user_key: Path | None = None
    """The private key to it."""
    proxy_path: Path | None = None
    """The proxy file that commands use and ``proxy init`` writes."""
