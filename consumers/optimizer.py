"""optimizer: finds out where jobs can run that need more than a look at their description.

Facts (replicas, sandbox references, sites) are fetched in bulk; :mod:`consumers.domain.optimizers` decides. A batch
looks at :data:`SLICE` jobs at most and publishes the rest anew, so that single jobs get their turn between the slices
of a large submission. Looking at a job twice does no harm: one that waits already is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from broker.subscriber import Admitted
from schemas.jdl import JobDescription
from schemas.job import JobStatus
from schemas.messages.common import InputFile, SandboxFile
from schemas.messages.event import JobsReceived

from .batch import Batch, Consumer
from .changes import Changes
from .directory import Directory
from .domain.decision import Decision
from .domain.facts import FoundReady, FoundRefused
from .domain.optimizers import LFN_PREFIX, SB_PREFIX, Facts, NeedFacts, Ready, Refuse, lfn_of, optimize
from .outcome import ACK, DeadLetter, Outcome
from .store import catalog, jobs, queues, sandboxes
from .store.registry import Registry
from .store.rows import JobDetails, JobRow

SLICE = 1000
"""Jobs of one transaction: about half a second."""

MAX_COPIES = 1000
"""Copies of all its input files together that a match tells of: each has up to 2 kB, and the match must stay far below
the bound of its message (8 MiB)."""

OPEN = frozenset({JobStatus.RECEIVED, JobStatus.CHECKING, JobStatus.STAGING})
"""States in which the optimizers have a say."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_files_decoder = msgspec.json.Decoder(tuple[SandboxFile, ...])


@dataclass(slots=True)
class _Work:
    """One job at work."""

    row: JobRow
    details: JobDetails
    description: JobDescription
    files: tuple[SandboxFile, ...]

    @property
    def lfns(self) -> list[str]:
        """Input data, then what the sandbox wants from storage; each once."""
        entries = [entry for entry in self.description.input_sandbox if entry.startswith(LFN_PREFIX)]
        return list(dict.fromkeys(map(lfn_of, [*self.description.input_data, *entries])))

    @property
    def references(self) -> list[str]:
        """``SB:`` entries of the sandbox."""
        return [entry for entry in self.description.input_sandbox if entry.startswith(SB_PREFIX)]


class Optimizer(Consumer):
    """The consumer.

    Args:
        directory: registry (sites and storage elements).
    """

    name = "optimizer"
    handlers: ClassVar = {JobsReceived: ""}

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Look at the first jobs of all that are named; publish what is left."""
        named = [message.verified.message for message in messages]
        ranges = [one for one in named if isinstance(one, JobsReceived)]
        now, later = split(ranges, SLICE)
        if now:
            Slice(batch, self._directory.registry(), self.name).optimize(now)
        for left in later:
            batch.publish(left)
        return [ACK if isinstance(one, JobsReceived) else DeadLetter("not jobs.received") for one in named]


def split(ranges: Iterable[JobsReceived], most: int) -> tuple[list[int], list[JobsReceived]]:
    """The first job ids of these ranges, and the ranges that are left: neighbours as one."""
    ids: dict[int, None] = {}
    later: list[JobsReceived] = []
    for one in ranges:
        taken = max(0, min(one.count, most - len(ids)))
        ids.update(dict.fromkeys(range(one.first, one.first + taken)))
        first, count = one.first + taken, one.count - taken
        if count <= 0:
            continue
        last = later[-1] if later else None
        if last is not None and last.submission == one.submission and last.first + last.count == first:
            later[-1] = JobsReceived(submission=one.submission, first=last.first, count=last.count + count)
        else:
            later.append(JobsReceived(submission=one.submission, first=first, count=count))
    return list(ids), later


class Slice:
    """Some jobs in one transaction.

    Args:
        batch: the batch.
        registry: sites and storage elements.
        source: name of the deciding service, for the history.
    """

    def __init__(self, batch: Batch, registry: Registry, source: str) -> None:
        self._batch = batch
        self._changes = Changes(batch, source)
        self._sites = frozenset(registry.sites) if registry.sites else None
        self._near = {name: frozenset(sites) for name, sites in registry.storage_elements.items()}
        self._files: Mapping[str, InputFile] = {}
        self._allowed: set[tuple[str, str]] = set()
        self._sizes: Mapping[str, int] = {}

    def optimize(self, ids: Sequence[int]) -> None:
        """Decide about these jobs, as far as they are open."""
        work = self._load(ids)
        self._fetch(work)
        ready: list[tuple[_Work, Ready]] = []
        for one in work:
            match optimize(one.description, self._facts(one)):
                case Ready() as found:
                    ready.append((one, found))
                case Refuse(minor=minor, reason=reason):
                    self._changes.decide(one.row.id, FoundRefused(minor, reason))
                case NeedFacts() as needed:
                    raise RuntimeError(f"job {one.row.id}: facts are still wanted: {needed}")
        self._release(ready)
        self._changes.flush()

    def _load(self, ids: Sequence[int]) -> list[_Work]:
        self._changes.load(ids)
        rows = [row for job in ids if (row := self._changes.get(job)) is not None and row.status in OPEN]
        details = jobs.details(self._batch.tx, [row.id for row in rows])
        work: list[_Work] = []
        for row in rows:
            what = details[row.id]
            try:
                description = msgspec.json.decode(what.description, type=JobDescription)
            except msgspec.DecodeError as error:
                self._changes.decide(row.id, FoundRefused("Description unreadable", f"submit it again: {error}"))
                continue
            work.append(_Work(row, what, description, _files_decoder.decode(what.files)))
        return work

    def _fetch(self, work: Sequence[_Work]) -> None:
        tx = self._batch.tx
        self._files = catalog.find(tx, {lfn for one in work for lfn in one.lfns})
        wanted = {(one.row.owner, sha256) for one in work for ref in one.references if (sha256 := hash_of(ref))}
        self._allowed = sandboxes.may_refer_many(tx, wanted)
        blobs = sandboxes.describe(tx, {sha256 for _, sha256 in self._allowed})
        self._sizes = {sha256: blob.size for sha256, blob in blobs.items()}

    def _facts(self, one: _Work) -> Facts:
        replicas = {
            lfn: tuple(replica.se for replica in self._files[lfn].replicas) if lfn in self._files else ()
            for lfn in one.lfns
        }
        references = {ref: self._may_use(one.row.owner, ref) for ref in one.references}
        provided = frozenset(file.name for file in one.files)
        return Facts(provided, references, replicas, self._near, self._sites)

    def _may_use(self, owner: str, reference: str) -> bool:
        sha256 = hash_of(reference)
        return (owner, sha256) in self._allowed and sha256 in self._sizes

    def _release(self, ready: Sequence[tuple[_Work, Ready]]) -> None:
        """Find or make the task queues, and let the jobs wait in them."""
        tx = self._batch.tx
        digests = {found.requirements: found.requirements.digest() for _, found in ready}
        classes = queues.class_ids(tx, {digest: wanted.to_json() for wanted, digest in digests.items()})
        keys = {one.row.id: (classes[digests[found.requirements]], one.row.owner, one.row.grp) for one, found in ready}
        ids = queues.queue_ids(tx, set(keys.values()))
        bound: set[tuple[int, str]] = set()
        details: dict[int, Mapping[str, object]] = {}
        for one, found in ready:
            job = one.row.id
            key = keys[job]
            self._changes.set(job, class_id=key[0], queue_id=ids[key])
            if not isinstance(self._changes.decide(job, FoundReady()), Decision):
                continue
            details[job] = self._details(one, found)
            bound.update((one.row.submission, hash_of(ref)) for ref in one.references)
        jobs.set_details(tx, details)
        sandboxes.bind_inputs(tx, bound)

    def _details(self, one: _Work, found: Ready) -> dict[str, object]:
        sites = found.candidate_sites
        most = max(1, MAX_COPIES // max(1, len(one.lfns)))
        data = [self._nearest_first(self._files[lfn], sites, most) for lfn in one.lfns]
        names = {file.name for file in one.files}
        referred = [
            SandboxFile(name=sha256, sha256=sha256, size=self._sizes[sha256])
            for sha256 in map(hash_of, one.references)
            if sha256 not in names
        ]
        return {
            "data": msgspec.json.encode(data),
            "files": msgspec.json.encode([*one.files, *referred]),
            "candidate_sites": None if sites is None else msgspec.json.encode(sites),
        }

    def _nearest_first(self, file: InputFile, sites: Sequence[str] | None, most: int) -> InputFile:
        """At most so many copies. Those near the sites where the job may run come first: near more of them, earlier."""
        candidates = frozenset(sites or ())

        def distance(se: str) -> int:
            return -len(self._near.get(se, frozenset()) & candidates)

        ordered = sorted(file.replicas, key=lambda replica: (distance(replica.se), replica.se))
        return msgspec.structs.replace(file, replicas=tuple(ordered[:most]))


def hash_of(reference: str) -> str:
    """The SHA-256 of an ``SB:`` reference; empty if it names none."""
    sha256 = reference.removeprefix(SB_PREFIX)
    return sha256 if _SHA256.fullmatch(sha256) else ""
