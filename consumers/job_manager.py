"""job-manager: submissions and users' commands on jobs.

Promises: a submission is one committed row with a reserved range of ids, or nothing and all its errors; the same
idempotency key gives the same ids. Its jobs are written in slices (:mod:`consumers.expansion`), the first one in the
submitting transaction. Commands act on each job for which the sender has the right, and say per job what happened.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from broker.authorization import Principal, may_see_job, may_touch_job
from broker.subscriber import Admitted
from schemas.jdl import MAX_PARAMETRIC_JOBS, parse
from schemas.job import FINAL, LEASED
from schemas.messages.common import MAX_INLINE_BYTES, SandboxFile
from schemas.messages.service import CommandOutcome, JobsCommanded, JobsSubmitted, RefusalDetail
from schemas.messages.user import DeleteJobs, KillJobs, RescheduleJobs, SubmitJobs

from .allowance import Allowance
from .batch import Batch, Consumer
from .changes import SANDBOX_SECONDS, Changes
from .command_notes import NOT_YOURS, CommandNotes
from .descriptions import MAX_ERRORS, detail, template_errors
from .directory import Directory
from .domain.decision import Ignored, Illegal
from .domain.facts import DeleteAsked, Fact, KillAsked, RescheduleAsked
from .expansion import SLICE, Expansion
from .outcome import ACK, DeadLetter, Outcome
from .store import proxies, sandboxes, submission_proxies, submissions, usage
from .store.submissions import NewSubmission, SubmissionRow

MIN_PROXY_SECONDS = 60.0
"""A delegated proxy that ends sooner is of no use to the job."""

KEY_SECONDS = 30 * 86_400.0
"""How long an idempotency key is remembered."""

EXPAND_SECONDS = 30.0
"""How often unfinished submissions of a crashed process are looked for."""


class JobManager(Consumer):
    """The consumer.

    Args:
        directory: registry.
    """

    name = "job-manager"
    handlers: ClassVar = {
        SubmitJobs: "on_submit",
        KillJobs: "on_kill",
        DeleteJobs: "on_delete",
        RescheduleJobs: "on_reschedule",
    }

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._next_look = 0.0
        self._more = False
        self._expansion: Expansion | None = None
        self._allowance: Allowance | None = None
        self._notes = CommandNotes()

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle a batch; the jobs of all its submissions are written together."""
        self._expansion = self._allowance = None
        outcomes = super().handle(batch, messages)
        self._flush()
        return outcomes

    def _flush(self) -> None:
        if self._expansion is not None:
            self._expansion.flush()
        self._expansion = None

    # -- submission ---------------------------------------------------------------------------------------------

    def on_submit(self, batch: Batch, message: Admitted) -> Outcome:
        """Accept a submission whole, or refuse it with all errors."""
        asked = message.verified.message
        if not isinstance(asked, SubmitJobs):
            return DeadLetter("not job.submit")
        digest = _digest(asked)
        owner, group = message.principal.identity, message.principal.group
        earlier = submissions.find_by_keys(batch.tx, [(owner, group, asked.key)]) if asked.key else {}
        for known in earlier.values():
            return self._known(batch, message, known, digest)
        if asked.proxy:
            until = submission_proxies.end_of_unbound(batch.tx, asked.proxy, owner, group)
            what = "the proxy that you delegated for this submission is not there (any more)"
        else:
            until = proxies.until(batch.tx, owner, group)
            what = "no delegated proxy of yours is stored"
        if until is None or until < batch.now + MIN_PROXY_SECONDS:
            return batch.refuse(message, "no-proxy", f"{what}: delegate one and try again")
        templates = [parse(text) for text in asked.descriptions]
        errors = [*template_errors(templates), *self._file_errors(batch, owner, asked.files)]
        count = sum(template.count for template in templates)
        if not errors and count > MAX_PARAMETRIC_JOBS:
            reason = f"{count} jobs; one submission holds at most {MAX_PARAMETRIC_JOBS}"
            errors.append(RefusalDetail(message=reason))
        if errors:
            reason = errors[0].message if len(errors) == 1 else f"{len(errors)} errors"
            return batch.refuse(message, "invalid", f"the submission is refused: {reason}", errors[:MAX_ERRORS])
        if self._allowance is None:
            self._allowance = Allowance(batch, self._directory.registry().limits, self._flush)
        too_much = self._allowance.take(owner, group, count, len(message.verified.payload))
        if too_much:
            return batch.refuse(message, "limit", too_much)
        row = self._store(batch, message, asked, digest, count)
        if asked.proxy:
            submission_proxies.bind(batch.tx, asked.proxy, row.id)
        if self._expansion is None:
            self._expansion = Expansion(batch, self._directory.registry(), self.name)
        self._expansion.write(row, templates, 0, row.expanded)
        if row.expanded < row.count:
            batch.commits.append(self._look_soon)
        warnings = tuple(detail(warning) for template in templates for warning in template.warnings)[:MAX_ERRORS]
        batch.answer(message, JobsSubmitted(first=row.first, count=row.count, warnings=warnings))
        return ACK

    def _known(self, batch: Batch, message: Admitted, known: SubmissionRow, digest: str) -> Outcome:
        if known.digest != digest:
            return batch.refuse(message, "conflict", f"the key {known.key!r} was used for another submission")
        batch.answer(message, JobsSubmitted(first=known.first, count=known.count))
        return ACK

    def _file_errors(self, batch: Batch, owner: str, files: Sequence[SandboxFile]) -> list[RefusalDetail]:
        errors = []
        names: set[str] = set()
        total = 0
        for file in files:
            if file.name in names:
                errors.append(RefusalDetail(message=f"{file.name} is there twice", attribute="InputSandbox"))
            names.add(file.name)
            if file.content is None:
                continue
            total += len(file.content)
            if len(file.content) != file.size or hashlib.sha256(file.content).hexdigest() != file.sha256:
                message = f"{file.name}: the content is not what its size and hash say"
                errors.append(RefusalDetail(message=message, attribute="InputSandbox"))
        if total > MAX_INLINE_BYTES:
            message = f"{total} bytes of sandbox inside the message; at most {MAX_INLINE_BYTES} are allowed"
            errors.append(RefusalDetail(message=message, attribute="InputSandbox"))
        referred = [file for file in files if file.content is None]
        there = sandboxes.may_refer(batch.tx, owner, {file.sha256 for file in referred})
        blobs = sandboxes.describe(batch.tx, there)
        for file in referred:
            blob = blobs.get(file.sha256)
            if blob is None:
                message = f"{file.name} was not uploaded (sha256 {file.sha256[:12]}…)"
                errors.append(RefusalDetail(message=message, attribute="InputSandbox"))
            elif blob.size != file.size:
                message = f"{file.name} has {blob.size} bytes, not {file.size}"
                errors.append(RefusalDetail(message=message, attribute="InputSandbox"))
        return errors

    def _store(self, batch: Batch, message: Admitted, asked: SubmitJobs, digest: str, count: int) -> SubmissionRow:
        owner = message.principal.identity
        inline = {file.sha256: file.content for file in asked.files if file.content is not None}
        sandboxes.put_small(batch.tx, owner, inline, batch.now, batch.now + SANDBOX_SECONDS)
        bare = [msgspec.structs.replace(file, content=None) for file in asked.files]
        new = NewSubmission(
            owner=owner,
            grp=message.principal.group,
            key=asked.key,
            digest=digest,
            count=count,
            descriptions=msgspec.json.encode(asked.descriptions),
            files=msgspec.json.encode(bare),
            client=message.client,
            created=batch.now,
            expanded=min(count, SLICE),
        )
        row = submissions.create(batch.tx, [new])[0]
        sandboxes.bind_inputs(batch.tx, {(row.id, file.sha256) for file in asked.files})
        return row

    # -- commands -----------------------------------------------------------------------------------------------

    def on_kill(self, batch: Batch, message: Admitted) -> Outcome:
        """Stop jobs."""
        return self._command(batch, message, KillAsked)

    def on_delete(self, batch: Batch, message: Admitted) -> Outcome:
        """Forget jobs."""
        return self._command(batch, message, DeleteAsked)

    def on_reschedule(self, batch: Batch, message: Admitted) -> Outcome:
        """Run jobs again."""
        return self._command(batch, message, RescheduleAsked)

    def _command(self, batch: Batch, message: Admitted, fact: Callable[[str], Fact]) -> Outcome:
        asked = message.verified.message
        if not isinstance(asked, KillJobs | DeleteJobs | RescheduleJobs):
            return DeadLetter("not a command on jobs")
        changes = Changes(batch, self.name, tells_ends=bool(self._directory.registry().match_limits))
        ids = sorted(set(asked.jobs))
        changes.load(ids)
        who = self._name_of(message.principal)
        final = {job: (row.owner, row.grp) for job in ids if (row := changes.get(job)) and row.status in FINAL}
        outcomes = [self._command_one(changes, message.principal, job, fact(who)) for job in ids]
        changes.flush()
        if isinstance(asked, RescheduleJobs):
            again = Counter(final[one.job] for one in outcomes if one.ok and one.job in final)
            for (owner, group), count in sorted(again.items()):
                usage.add_active(batch.tx, owner, group, count)
        owners = {job: row.owner for job in ids if (row := changes.get(job))}
        self._notes.note(batch, message, ids, outcomes, owners.get)
        batch.answer(message, JobsCommanded(outcomes=tuple(outcomes)))
        return ACK

    @staticmethod
    def _command_one(changes: Changes, principal: Principal, job: int, fact: Fact) -> CommandOutcome:
        row = changes.get(job)
        if row is None or not may_see_job(principal, row.owner, row.grp):
            return CommandOutcome(job=job, ok=False, reason="no such job")
        if not may_touch_job(principal, row.owner, row.grp):
            return CommandOutcome(job=job, ok=False, status=row.status, reason=NOT_YOURS)
        outcome = changes.decide(job, fact)
        after = changes.get(job) or row
        if isinstance(outcome, Ignored | Illegal):
            return CommandOutcome(job=job, ok=False, status=after.status, reason=outcome.reason)
        ordered = after.status in LEASED and (after.kill_requested or after.delete_requested)
        waits = "ordered; its pilot is stopping it" if ordered else ""
        return CommandOutcome(job=job, ok=True, status=after.status, reason=waits)

    def _name_of(self, principal: Principal) -> str:
        user = self._directory.registry().users.get(principal.identity)
        return user.nickname if user is not None and user.nickname else principal.identity

    # -- slices -------------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """Unfinished submissions: at once while there are some, else from time to time."""
        return 0.0 if self._more else self._next_look - now

    def chores(self, batch: Batch) -> None:
        """Write the next slice of the oldest unfinished submission; forget old keys."""
        self._next_look = batch.now + EXPAND_SECONDS
        unfinished = submissions.unexpanded(batch.tx, 1)
        self._more = bool(unfinished)
        for row in unfinished:
            expansion = Expansion(batch, self._directory.registry(), self.name)
            templates = [parse(text) for text in msgspec.json.decode(row.descriptions, type=list[str])]
            done = expansion.write(row, templates, row.expanded, SLICE)
            expansion.flush()
            submissions.mark_expanded(batch.tx, {row.id: done})
        if not unfinished:
            submissions.forget_keys(batch.tx, batch.now - KEY_SECONDS)

    def _look_soon(self) -> None:
        self._more = True


def _digest(asked: SubmitJobs) -> str:
    files = sorted((file.name, file.sha256, file.mode) for file in asked.files)
    return hashlib.sha256(msgspec.json.encode((asked.descriptions, files))).hexdigest()
