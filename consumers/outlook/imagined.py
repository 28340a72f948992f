"""Jobs that nobody has submitted yet: checked like a submission, and weighed like waiting jobs. Nothing is written.

Promises: errors and limits are those of a submission, by the same code; jobs are grouped by their requirements, and
each group is weighed once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from broker.authorization import Principal
from schemas.jdl import MAX_PARAMETRIC_JOBS, JobDescription, Template, parse
from schemas.messages.service import RefusalDetail, Refused
from schemas.messages.why import MAX_WEIGHED, JobsWeighed, Weighed, WeighJobs
from schemas.registry import Message, encode, type_of

from ..allowance import foresee
from ..descriptions import MAX_ERRORS, detail, template_errors
from ..domain.optimizers import LFN_PREFIX, SB_PREFIX, Facts, NeedFacts, Ready, Refuse, lfn_of, optimize
from ..domain.requirements import Requirements
from ..optimizer import hash_of
from ..store import Reading, catalog, sandboxes
from ..store.registry import Registry
from .outlooks import Outlooks, Subject
from .snapshot import Snapshot

MAX_LOOKED_AT = 5_000
"""Jobs of one submission that are expanded: half a second. The classes of a production are few and show up soon."""

WEIGH_SECONDS = 5.0
"""For one submission; with tens of thousands of pilots a class takes a second, and others have questions, too."""

BEYOND = 1 << 53
"""An id after all others: it would be the last of its priority."""


@dataclass(slots=True)
class _Alike:
    """Jobs with one fate."""

    first: int
    name: str
    priority: int
    jobs: int = 0


def weigh(
    tx: Reading, snapshot: Snapshot, outlooks: Outlooks, principal: Principal, asked: WeighJobs, now: float
) -> Message:
    """What would become of these jobs if they were submitted now."""
    templates = [parse(text) for text in asked.descriptions]
    errors = template_errors(templates)
    count = sum(template.count for template in templates)
    if not errors and count > MAX_PARAMETRIC_JOBS:
        errors.append(RefusalDetail(message=f"{count} jobs; one submission holds at most {MAX_PARAMETRIC_JOBS}"))
    if errors:
        reason = errors[0].message if len(errors) == 1 else f"{len(errors)} errors"
        text = f"the submission would be refused: {reason}"
        return Refused(code="invalid", reason=text, type=type_of(asked).name, errors=tuple(errors[:MAX_ERRORS]))
    looked = list(_first(templates, MAX_LOOKED_AT))
    fates = _fates(tx, snapshot.registry, principal.identity, asked.files, looked)
    best = sorted(fates.items(), key=lambda item: (-item[1].jobs, item[1].first))
    classes, end = [], time.monotonic() + WEIGH_SECONDS
    for fate, alike in best[:MAX_WEIGHED]:
        classes.append(_weighed(outlooks, principal, fate, alike, now))
        if time.monotonic() > end:
            break
    limits, size = snapshot.registry.limits, len(encode(asked))
    return JobsWeighed(
        jobs=count,
        looked_at=len(looked),
        classes=tuple(classes),
        more=len(best) > len(classes),
        limit=foresee(tx, limits, principal.identity, principal.group, count=count, size=size, now=now),
        warnings=tuple(detail(warning) for template in templates for warning in template.warnings)[:MAX_ERRORS],
        as_of=snapshot.taken,
    )


def _first(templates: Sequence[Template], most: int) -> Iterator[JobDescription]:
    for template in templates:
        take = min(most, template.count)
        yield from template.expand(0, take)
        most -= take
        if not most:
            return


def _fates(
    tx: Reading, registry: Registry, owner: str, files: Sequence[str], looked: Sequence[JobDescription]
) -> dict[Ready | Refuse, _Alike]:
    """What the optimizers say of each job: those with the same fate together."""
    lfns = {lfn_of(entry) for job in looked for entry in (*job.input_data, *_entries(job, LFN_PREFIX))}
    references = {entry for job in looked for entry in _entries(job, SB_PREFIX)}
    facts = Facts(
        provided=frozenset(files),
        references=_references(tx, owner, references),
        replicas=_replicas(tx, lfns),
        near={name: frozenset(sites) for name, sites in registry.storage_elements.items()},
        sites=frozenset(registry.sites) if registry.sites else None,
    )
    fates: dict[Ready | Refuse, _Alike] = {}
    for number, job in enumerate(looked, 1):
        fate = optimize(job, facts)
        if isinstance(fate, NeedFacts):
            raise RuntimeError(f"facts are still wanted: {fate}")  # noqa: TRY004 - not for the caller to mend
        alike = fates.setdefault(fate, _Alike(number, job.job_name, job.priority))
        alike.jobs += 1
    return fates


def _entries(job: JobDescription, prefix: str) -> Iterator[str]:
    return (entry for entry in job.input_sandbox if entry.startswith(prefix))


def _references(tx: Reading, owner: str, references: set[str]) -> Mapping[str, bool]:
    allowed = sandboxes.may_refer_many(tx, {(owner, sha256) for ref in references if (sha256 := hash_of(ref))})
    there = sandboxes.describe(tx, {sha256 for _, sha256 in allowed})
    return {ref: hash_of(ref) in there for ref in references}


def _replicas(tx: Reading, lfns: set[str]) -> Mapping[str, tuple[str, ...]]:
    found = catalog.find(tx, lfns)
    return {lfn: tuple(one.se for one in found[lfn].replicas) if lfn in found else () for lfn in lfns}


def _weighed(outlooks: Outlooks, principal: Principal, fate: Ready | Refuse, alike: _Alike, now: float) -> Weighed:
    if isinstance(fate, Refuse):
        reason = f"{fate.minor}: {fate.reason}"
        return Weighed(jobs=alike.jobs, first=alike.first, name=alike.name, refused=reason)
    subject = _subject(fate.requirements, principal)
    outlook = outlooks.of(subject)
    place = outlooks.place(subject, alike.priority, now, BEYOND)
    return Weighed(
        jobs=alike.jobs,
        first=alike.first,
        name=alike.name,
        outlook=outlook,
        place=place,
        estimate=outlooks.estimate(subject, outlook, place),
    )


def _subject(want: Requirements, principal: Principal) -> Subject:
    """Its proxy is not asked for: the submission delegates one."""
    return Subject(want, principal.identity, principal.group, own_proxy=True)
