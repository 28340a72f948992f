"""From a job description to a requirements class: a chain of pure optimizers.

:func:`optimize` runs :data:`CHAIN` over a draft: the description and the facts that the shell fetched. It ends with
:class:`Ready`, with :class:`Refuse` (the job can never run, and why), or with :class:`NeedFacts`: fetch these (all at
once) and ask again. :func:`needs_io` tells beforehand whether facts from elsewhere are wanted; if not, the submitting
transaction finishes the job's checking at once.

A site under a ban of its operators is no reason to refuse: the job waits for it. A site that nobody knows is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TypeAlias

from schemas.jdl.description import JobDescription
from schemas.jdl.together import impossible

from .requirements import ANY, Requirements, requirements_of

LFN_PREFIX = "LFN:"
SB_PREFIX = "SB:"

MAX_NAMED = 5
"""Names that a reason spells out; it must fit a message's text and a reader's eye."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the shell knows. A key that is absent was not asked for yet; an empty value means: there is none.

    Attributes:
        provided: names of the InputSandbox files that came with the submission (all, if it was stored).
        references: ``SB:`` reference → whether it exists and is the owner's to use.
        replicas: LFN (without prefix) → storage elements that hold it.
        near: storage element → sites that read it directly.
        sites: all registered sites; ``None`` if site names are not to be checked.
    """

    provided: frozenset[str] = frozenset()
    references: Mapping[str, bool] = field(default_factory=dict)
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    near: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sites: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A job on its way through the chain.

    Attributes:
        candidates: sites that the optimizers so far leave; ``None``: any site.
    """

    description: JobDescription
    facts: Facts
    candidates: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """It can run. ``candidate_sites`` is ``None`` when any site will do."""

    requirements: Requirements
    candidate_sites: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never run as it stands.

    Attributes:
        minor: short, the same for all jobs of this fate.
        reason: what exactly and what to do.
    """

    minor: str
    reason: str


@dataclass(frozen=True, slots=True)
class NeedFacts:
    """Fetch the replicas of these LFNs and look for these sandbox references, then ask again."""

    lfns: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


Step: TypeAlias = JobDraft | Refuse | NeedFacts
Outcome: TypeAlias = Ready | Refuse | NeedFacts


def needs_io(description: JobDescription) -> bool:
    """Whether facts from the replica catalog or the sandbox store are wanted."""
    return bool(description.input_data) or any(_is_reference(entry) for entry in description.input_sandbox)


def optimize(description: JobDescription, facts: Facts) -> Outcome:
    """Run the whole chain."""
    draft = JobDraft(description, facts)
    for optimizer in CHAIN:
        step = optimizer(draft)
        if not isinstance(step, JobDraft):
            return step
        draft = step
    candidates = None if draft.candidates is None else tuple(sorted(draft.candidates))
    return Ready(requirements_of(description, candidates), candidates)


def sanity(draft: JobDraft) -> Step:
    """Some node could fulfil it; sites are known and not all of them are banned by the job itself."""
    known, wanted, banned = draft.facts.sites, _wanted(draft.description), frozenset(draft.description.banned_sites)
    if known is not None:
        unknown = sorted(((wanted or frozenset()) | banned) - known)
        if unknown:
            return Refuse("Unknown site", f"no such site: {_named(_with_hints(unknown, known))}")
    if wanted is not None and wanted <= banned:
        return Refuse("No candidate sites", f"it can run nowhere: Site and BannedSites both name {_named(wanted)}")
    if wanted is None and known and known <= banned:
        return Refuse("No candidate sites", "it can run nowhere: BannedSites names every site there is")
    faults = impossible(draft.description)
    if faults:
        return Refuse("Impossible requirements", f"no node can ever fulfil it: {_named(list(faults))}")
    return draft


def fetch(draft: JobDraft) -> Step:
    """Everything that the later optimizers look up is there; otherwise ask for all that is missing at once."""
    description, facts = draft.description, draft.facts
    sandbox = [entry for entry in description.input_sandbox if _is_reference(entry)]
    lfns = {lfn_of(entry) for entry in sandbox if entry.startswith(LFN_PREFIX)} | set(
        map(lfn_of, description.input_data)
    )
    references = {entry for entry in sandbox if entry.startswith(SB_PREFIX)}
    lacking = NeedFacts(
        tuple(sorted(lfns - facts.replicas.keys())), tuple(sorted(references - facts.references.keys()))
    )
    return lacking if lacking.lfns or lacking.references else draft


def input_sandbox(draft: JobDraft) -> Step:
    """Every InputSandbox entry came with the submission, or is a reference that exists."""
    missing = [entry for entry in draft.description.input_sandbox if not _is_there(entry, draft.facts)]
    if missing:
        return Refuse("Input sandbox incomplete", f"InputSandbox names what is not there: {_named(missing)}")
    return draft


def input_data(draft: JobDraft) -> Step:
    """Candidate sites are those near a copy of every input file."""
    facts, lfns = draft.facts, [lfn_of(entry) for entry in draft.description.input_data]
    lost = [lfn for lfn in lfns if not facts.replicas[lfn]]
    if lost:
        return Refuse("Input data not available", f"no replica of {_named(lost)}")
    candidates = draft.candidates
    for lfn in lfns:
        sites = _near(facts.replicas[lfn], facts.near)
        if not sites:
            at = _named(sorted(facts.replicas[lfn]))
            return Refuse("Input data not accessible", f"no site is near a replica of {lfn} (it is at {at})")
        candidates = sites if candidates is None else candidates & sites
        if not candidates:
            return Refuse("No candidate sites", f"no site is near all input files; the first that is apart: {lfn}")
    return replace(draft, candidates=candidates)


def scheduling(draft: JobDraft) -> Step:
    """What the data leaves, within Site and without BannedSites."""
    wanted, banned = _wanted(draft.description), frozenset(draft.description.banned_sites)
    if draft.candidates is None:
        candidates = None if wanted is None else wanted - banned
    else:
        candidates = (draft.candidates if wanted is None else draft.candidates & wanted) - banned
    if candidates is not None and not candidates:
        data = _named(sorted(draft.candidates or ()))
        return Refuse("No candidate sites", f"its input data is at {data}, and Site and BannedSites leave none of them")
    return replace(draft, candidates=candidates)


CHAIN: tuple[Callable[[JobDraft], Step], ...] = (sanity, fetch, input_sandbox, input_data, scheduling)


def lfn_of(entry: str) -> str:
    """An LFN without its prefix, as the replica catalog has it."""
    return entry.removeprefix(LFN_PREFIX)


def _is_reference(entry: str) -> bool:
    return entry.startswith((LFN_PREFIX, SB_PREFIX))


def _is_there(entry: str, facts: Facts) -> bool:
    if entry.startswith(LFN_PREFIX):
        return bool(facts.replicas[lfn_of(entry)])
    if entry.startswith(SB_PREFIX):
        return facts.references[entry]
    return entry in facts.provided


def _wanted(description: JobDescription) -> frozenset[str] | None:
    if not description.sites or any(site.lower() == ANY for site in description.sites):
        return None
    return frozenset(description.sites)


def _near(elements: Iterable[str], near: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*(near.get(element, frozenset()) for element in elements))


def _with_hints(unknown: Iterable[str], known: frozenset[str]) -> list[str]:
    hinted = []
    for name in unknown:
        close = get_close_matches(name, sorted(known), n=1)
        hinted.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return hinted


def _named(names: Iterable[str]) -> str:
    listed = list(names) if isinstance(names, list) else sorted(names)
    more = len(listed) - MAX_NAMED
    return ", ".join(listed[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
