"""What the consumers remember: the only room that issues SQL.

:class:`Store` opens the database; its transactions are passed to the functions of one module per topic
(``inbox``, ``outbox``, ``jobs``, …). The store knows no rules: it keeps values and JSON that others encoded.
"""

from __future__ import annotations

from .engine import OutboxRow, Reading, Store, Transaction
from .errors import NotLeader, StoreBusy, StoreConflict, StoreRejected, StoreUnavailable

__all__ = [
    "NotLeader",
    "OutboxRow",
    "Reading",
    "Store",
    "StoreBusy",
    "StoreConflict",
    "StoreRejected",
    "StoreUnavailable",
    "Transaction",
]
