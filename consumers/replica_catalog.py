"""replica-catalog: which files there are and where their copies lie.

Promises: what jobs read by an LFN stays what it was: a file's size and checksum never change, and only a data manager
may point an existing copy elsewhere. Refuses names that climb or hide something, and credentials inside a URL.
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import urlsplit

from broker.authorization import Property
from broker.subscriber import Admitted
from schemas.messages.common import InputFile, Replica
from schemas.messages.service import Refused, ReplicaListing
from schemas.messages.user import QueryReplicas, RegisterReplica
from schemas.registry import encode, type_of

from .batch import Batch, Consumer
from .directory import Directory
from .domain.optimizers import lfn_of
from .outcome import ACK, DeadLetter, Outcome
from .store import catalog

SCHEMES = frozenset({"file", "http", "https", "dav", "davs", "root", "roots", "xroot", "srm", "gsiftp", "s3", "s3s"})
"""Access protocols that grid storage speaks; a pilot reads those that it knows and says so of the others."""

_LFN = re.compile(r"/[A-Za-z0-9][A-Za-z0-9._-]*(/[^/\x00-\x1f\x7f]+)+")


class ReplicaCatalog(Consumer):
    """The consumer.

    Args:
        directory: registry (storage elements).
    """

    name = "replica-catalog"
    handlers: ClassVar = {RegisterReplica: "on_register", QueryReplicas: "on_query"}

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def on_register(self, batch: Batch, message: Admitted) -> Outcome:
        """A file has a copy."""
        asked = message.verified.message
        if not isinstance(asked, RegisterReplica):
            return DeadLetter("not replica.register")
        lfn = lfn_of(asked.lfn)
        elements = self._directory.registry().storage_elements
        wrong = what_is_wrong_with_lfn(lfn) or what_is_wrong_with_pfn(asked.pfn)
        if not wrong and elements and asked.se not in elements:
            wrong = f"there is no storage element {asked.se!r}"
        if wrong:
            return batch.refuse(message, "invalid", wrong)
        if Property.DATA_MANAGER not in message.principal.properties:
            there = catalog.find(batch.tx, [lfn]).get(lfn)
            if there is not None and any(one.se == asked.se and one.pfn != asked.pfn for one in there.replicas):
                reason = f"{lfn} has another copy on {asked.se} already: only a data manager may replace it"
                return batch.refuse(message, "conflict", reason)
        replica = Replica(se=asked.se, pfn=asked.pfn)
        entry = InputFile(lfn=lfn, size=asked.size, adler32=asked.adler32, replicas=(replica,))
        if catalog.register(batch.tx, [entry]):
            return batch.refuse(message, "conflict", f"{lfn} is known with another size or checksum")
        batch.answer(message, ReplicaListing(files=tuple(catalog.find(batch.tx, [lfn]).values())))
        return ACK

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """Where are these files?"""
        asked = message.verified.message
        if not isinstance(asked, QueryReplicas):
            return DeadLetter("not replica.query")
        names = {lfn: lfn_of(lfn) for lfn in asked.lfns}
        found = catalog.find(batch.tx, set(names.values()))
        listing = ReplicaListing(files=tuple(found[lfn] for lfn in dict.fromkeys(names.values()) if lfn in found))
        if len(encode(listing)) > type_of(listing).max_bytes:
            reason = "the answer is too large for one message: ask for fewer files at once"
            batch.say(message, Refused(code="limit", reason=reason, type=message.verified.header.typ))
            return ACK
        batch.say(message, listing)
        return ACK


def what_is_wrong_with_lfn(lfn: str) -> str:
    """Why this is no logical file name; empty if it is one."""
    if _LFN.fullmatch(lfn) is None:
        return f"{lfn[:100]!r} is no logical file name: it must look like /vo/folder/file"
    if any(part in {".", ".."} for part in lfn.split("/")):
        return f"{lfn[:100]!r}: a logical file name has no . or .. parts"
    return ""


def what_is_wrong_with_pfn(pfn: str) -> str:
    """Why a copy cannot be at such a place; empty if it can."""
    try:
        parts = urlsplit(pfn)
    except ValueError:
        return "the physical file name is no URL"
    if parts.scheme not in SCHEMES:
        return f"the physical file name must be a URL of one of: {', '.join(sorted(SCHEMES))}"
    if "@" in parts.netloc:
        return "the physical file name holds a user name or a password: credentials do not belong into a URL"
    if not parts.path.startswith("/") or parts.path == "/" or re.search(r"[\x00-\x20\x7f]", pfn):
        return "the physical file name must be a URL with an absolute path and without blanks"
    if any(part in {".", ".."} for part in parts.path.split("/")):
        return "the path of a physical file name has no . or .. parts"
    if parts.scheme != "file" and not parts.netloc:
        return "the physical file name names no host"
    return ""
