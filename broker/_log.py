"""State changes go to structlog where a composition root has set it up, else to the standard library's logging.

structlog pulls in rich and costs a third of a second: a command that talks to the broker once must not pay for
that, so this module never imports it, but uses it when it is there.
"""

from __future__ import annotations

import logging
import sys


def note(level: int, event: str, **fields: object) -> None:
    """Writes one event. Callers pass no secrets and no payloads."""
    structlog = sys.modules.get("structlog")
    if structlog is not None and hasattr(structlog, "get_logger"):
        structlog.get_logger("pilotage.broker").log(level, event, **fields)
        return
    logger = logging.getLogger("pilotage.broker")
    if logger.isEnabledFor(level):
        logger.log(level, "%s %s", event, " ".join(f"{key}={value}" for key, value in fields.items()))
