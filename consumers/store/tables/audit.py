"""The audit's chain: which entry stands at which place, and the seals. The entries themselves: :mod:`.messages`.

Nothing here is ever changed or removed but in :data:`unsealed`: for the rest a database account does that may only
INSERT and SELECT.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table

from .base import Encoded, metadata, number, real, text

unsealed = Table(
    "audit_unsealed",
    metadata,
    number("entry", key=True),
    real("time"),
    comment="Entries that have no place in the chain yet; written with them, so that none is passed over.",
)

links = Table(
    "audit_links",
    metadata,
    number("place", key=True),
    number("entry"),
    text("hash"),
    Index(None, "entry"),
    comment="The audit's chain: place, entry, and the hash that binds it to all before it.",
)

seals = Table(
    "audit_seals",
    metadata,
    number("last", key=True),
    text("thumbprint"),
    Column("payload", Encoded, nullable=False),
    text("jws"),
    comment="The auditor's signatures: each binds the chain up to its last place.",
)

signers = Table(
    "audit_signers",
    metadata,
    text("thumbprint", key=True),
    Column("ders", LargeBinary, nullable=False),
    real("seen"),
    comment="Certificate chains of the auditor; kept as long as their seals.",
)
