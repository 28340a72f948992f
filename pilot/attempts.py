"""The attempts that this pilot holds, each on its way: waiting, staging, proxy, running, output, report.

Called by the agent's thread only, except :meth:`Attempts.look_again`, which any thread may call to wake it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import structlog

from broker.connection import Wakeup
from schemas.errors import PilotageError
from schemas.jdl import JobDescription
from schemas.job import JobStatus, lease_margin
from schemas.messages.common import Usage
from schemas.messages.service import Lease, SandboxChunk, SandboxStored

from .data import StagedFile, StagingCancelledError
from .kernel import steady_now
from .payload import Outcome, PayloadStartError
from .post import Post
from .proxies import Proxies, Slot
from .refresh import Refresh
from .sandbox import SandboxError
from .shares import Free, Ledger
from .stagehand import Stagehand
from .task import Key, Stage, Task
from .transfer import Download, TransferFailedError, Upload

KILL_GRACE = 1.0
"""Seconds between TERM and KILL for an ordered kill: it is obeyed within two."""

PROXY_SECONDS = 30.0
"""How long an attempt waits for its owner's proxy before it is given back."""

TELL_RUNNING_SECONDS = 1.0
"""A payload that lives longer is reported as running; a shorter one is told of in one report at its end."""

COPIES = 2
"""Input data copied at once."""

_S = JobStatus

log = structlog.get_logger(__name__)


class Attempts:
    """All attempts of one pilot.

    Args:
        stagehand: files, runner and watchdog.
        post: what is to be said.
        proxies: the owners' proxies.
        ledger: what there is to share, and who has it.
        wakeup: of the agent's thread.
        clock: server time.
    """

    def __init__(
        self,
        stagehand: Stagehand,
        post: Post,
        proxies: Proxies,
        ledger: Ledger,
        wakeup: Wakeup,
        clock: Callable[[], float],
    ) -> None:
        self._stagehand = stagehand
        self._post = post
        self._proxies = proxies
        self._ledger = ledger
        self._wakeup = wakeup
        self._clock = clock
        self._tasks: dict[Key, Task] = {}
        self._ended: queue.SimpleQueue[tuple[Key, Outcome]] = queue.SimpleQueue()
        self._copies: dict[Key, Future[list[StagedFile]]] = {}
        self._downloads: dict[tuple[Key, str], Download] = {}
        self._uploads: dict[str, Upload] = {}
        self._pool = ThreadPoolExecutor(COPIES, thread_name_prefix="input-data")
        self._durations: list[float] = []
        self._queue_moves = True
        self._refresh = Refresh(post, proxies, stagehand.replace_proxy)

    def __len__(self) -> int:
        return len(self._tasks)

    def close(self) -> None:
        """No more copies."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- what the agent asks ------------------------------------------------------------------------------------

    def busy_processors(self) -> int:
        """Processors in use (an attempt takes its own from staging on)."""
        return self._ledger.processors - self._ledger.free_processors

    def waiting(self) -> int:
        """Processors that attempts wait for which have not started."""
        return sum(self._ledger.processors_of(job) for job in self._waiting_jobs())

    def free(self) -> Free:
        """What of the slot neither runs nor waits here: what may be offered."""
        ledger, waiting = self._ledger, list(self._waiting_jobs())
        promised = sum(job.memory_mb(ledger.processors_of(job)) for job in waiting)
        gpus = sum(job.gpus for job in waiting)
        return Free(
            processors=max(0, ledger.free_processors - sum(ledger.processors_of(job) for job in waiting)),
            memory_mb=max(0.0, ledger.free_memory_mb - promised),
            gpus=ledger.free_gpus[: max(0, len(ledger.free_gpus) - gpus)],
            disk_promised_mb=float(sum(task.description.disk_space or 0 for task in self._tasks.values())),
        )

    def _waiting_jobs(self) -> Iterator[JobDescription]:
        return (task.description for task in self._tasks.values() if task.stage is Stage.WAITING)

    def figures(self) -> Iterator[tuple[Task, Usage]]:
        """What each live attempt uses, for a heartbeat."""
        for task in self._tasks.values():
            if not task.abandoned:
                yield task, self._stagehand.usage(task)

    def shortest_lease(self) -> float:
        """Length of the shortest run lease held, seconds."""
        return min((task.match.run_lease for task in self._tasks.values()), default=3600.0)

    def due_in(self) -> float:
        """Seconds until something wants attention without any message."""
        now = self._clock()
        soonest = 10.0
        for task in self._tasks.values():
            if task.started is not None and not task.told_running and task.stage is Stage.RUNNING:
                soonest = min(soonest, task.started + TELL_RUNNING_SECONDS - now)
        return max(0.0, soonest)

    def look_again(self) -> None:
        """Something changed: have the agent's thread look."""
        self._wakeup.set()

    # -- what happens to attempts -------------------------------------------------------------------------------

    def add(self, task: Task) -> None:
        """A match came. The same attempt again changes nothing."""
        if task.key not in self._tasks:
            self._tasks[task.key] = task

    def renew(self, leases: Sequence[Lease]) -> None:
        """The server renewed leases."""
        for lease in leases:
            task = self._tasks.get((lease.job, lease.attempt))
            if task is not None:
                task.lease_end = max(task.lease_end, lease.until)
                task.lease_seconds = task.match.run_lease
                if task.payload is not None:
                    self._stagehand.set_limits(task, self._steady(task.lease_end))

    def kill(self, key: Key, reason: str) -> bool:
        """Stop an attempt and report it Killed; False if it is not here."""
        task = self._tasks.get(key)
        if task is None:
            return False
        task.killed = task.killed or reason or "killed"
        if task.payload is not None:
            task.payload.stop(task.killed, KILL_GRACE)
        return True

    def abandon(self, key: Key, reason: str) -> None:
        """Stop an attempt and say nothing of it any more: it is not ours."""
        task = self._tasks.get(key)
        if task is None:
            return
        log.warning("pilot.abandon", job=key[0], attempt=key[1], reason=reason)
        task.abandoned = True
        if task.payload is not None:
            task.payload.stop(reason, KILL_GRACE)

    def refuse_proxy(self, slot: Slot, reason: str) -> None:
        """A proxy will not come: who waits for it cannot start; who runs goes on, and asks again."""
        for task in self._tasks.values():
            if task.slot == slot and task.payload is None:
                task.proxy_refused = reason
            elif task.slot == slot:
                self._refresh.refused(slot, reason)

    def refuse_request(self, message_id: str, reason: str) -> bool:
        """A request of a running job was refused; False if it was none."""
        slot = self._refresh.on_refused(message_id, reason)
        if slot is not None:
            self.refuse_proxy(slot, reason)
        return slot is not None

    def give_back_all(self, reason: str) -> None:
        """The pilot ends: everything that has not ended goes back."""
        for task in self._tasks.values():
            if task.final is None and not task.killed:
                task.final = (_S.RESCHEDULED, reason, True)
            if task.payload is not None:
                task.payload.stop(reason, KILL_GRACE)

    def on_chunk(self, chunk: SandboxChunk) -> None:
        """Bytes of an input sandbox file came."""
        for (_, sha256), download in self._downloads.items():
            if sha256 == chunk.sha256:
                download.take(chunk)

    def on_stored(self, stored: SandboxStored) -> None:
        """Bytes of an output sandbox file arrived."""
        upload = self._uploads.get(stored.sha256)
        if upload is not None:
            upload.take(stored)

    # -- progress -----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[float]:
        """Take every attempt as far as it goes now; seconds that payloads took which ended."""
        self._durations = []
        while True:
            try:
                key, outcome = self._ended.get_nowait()
            except queue.Empty:
                break
            self._guarded(key, now, partial(self._on_ended, outcome=outcome, now=now))
        self._queue_moves = True
        for key in list(self._tasks):
            self._guarded(key, now, partial(self._step, now=now))
        self._refresh.turn(self._tasks.values(), now)
        return self._durations

    def _guarded(self, key: Key, now: float, action: Callable[[Task], None]) -> None:
        """One attempt's trouble ends that attempt and nothing else."""
        task = self._tasks.get(key)
        if task is None:
            return
        try:
            action(task)
        except (SandboxError, PayloadStartError) as error:
            self._finish(task, _S.FAILED, str(error), now)
        except (TransferFailedError, PilotageError, OSError) as error:
            self._finish(task, _S.FAILED, str(error), now, infrastructure=True)

    def _step(self, task: Task, now: float) -> None:
        if task.stage in {Stage.WAITING, Stage.STAGING, Stage.PROXY} and self._is_over_before_start(task, now):
            return
        if task.stage is Stage.WAITING:
            # In order of arrival: small jobs that overtake a large one would let it wait for ever.
            if self._queue_moves:
                task.share = self._ledger.take(task.key, task.description)
                self._queue_moves = task.share is not None
            if task.share is not None:
                self._stage(task, now)
        if task.stage is Stage.STAGING:
            self._fetch(task, now)
        if task.stage is Stage.PROXY:
            self._start(task, now)
        if task.stage is Stage.RUNNING and self._should_tell(task, now):
            task.told_running = True
            self._post.report(task.report(_S.RUNNING))
        if task.stage is Stage.UPLOADING:
            self._upload(task, now)

    @staticmethod
    def _should_tell(task: Task, now: float) -> bool:
        """Whether the payload lives long enough to be told of before its end."""
        if task.told_running or task.abandoned or task.started is None:
            return False
        return now - task.started >= TELL_RUNNING_SECONDS

    def _is_over_before_start(self, task: Task, now: float) -> bool:
        if task.abandoned:
            self._drop(task)
        elif task.killed:
            self._finish(task, _S.KILLED, task.killed, now)
        elif task.final is not None:
            self._finish(task, *task.final[:2], now, infrastructure=task.final[2])
        elif task.lease_end - lease_margin(task.lease_seconds) <= now:
            self._finish(task, _S.RESCHEDULED, "its lease ended before it could start", now, infrastructure=True)
        elif task.stage is Stage.WAITING and (why := self._ledger.why_never(task.description)):
            self._finish(task, _S.RESCHEDULED, why, now, infrastructure=True)
        else:
            return False
        return True

    def _stage(self, task: Task, now: float) -> None:
        task.stage = Stage.STAGING
        task.staged = now
        task.step(_S.RUNNING, "Input sandbox", now)
        self._stagehand.prepare(task)
        for file in task.match.files:
            if file.content is None:
                self._downloads[task.key, file.sha256] = Download(task.match.job, file)
                task.missing.add(file.sha256)
        if task.match.data:
            task.staging_data = True
            self._copies[task.key] = self._pool.submit(self._copy, task)

    def _copy(self, task: Task) -> list[StagedFile]:
        try:
            return self._stagehand.copy_data(
                task, lambda: task.abandoned or bool(task.killed) or task.stage is Stage.OVER
            )
        finally:
            self._wakeup.set()

    def _fetch(self, task: Task, now: float) -> None:
        for sha256 in sorted(task.missing):
            download = self._downloads[task.key, sha256]
            content = download.content()
            if content is not None:
                self._stagehand.write_input(task, download.file, content)
                task.missing.discard(sha256)
                del self._downloads[task.key, sha256]
                continue
            ask = download.ask(now)
            if ask is not None:
                self._post.say(ask)
        copy = self._copies.get(task.key)
        if copy is not None and copy.done():
            del self._copies[task.key]
            try:
                staged = copy.result()
            except StagingCancelledError:
                return
            task.staging_data = False
            task.step(_S.RUNNING, f"Input data: {len(staged)} files", now)
        if not task.missing and not task.staging_data:
            task.stage = Stage.PROXY

    def _start(self, task: Task, now: float) -> None:
        if task.proxy_refused:
            self._finish(task, _S.FAILED, f"no proxy of the owner: {task.proxy_refused}", now)
            return
        credential = self._proxies.get(*task.slot[:2], now, task.slot.job)
        if credential is None:
            since = task.received if task.staged is None or not task.match.own_proxy else task.staged
            if now - since > PROXY_SECONDS:
                why = f"the owner's proxy did not come within {PROXY_SECONDS:.0f} s"
                self._finish(task, _S.RESCHEDULED, why, now, infrastructure=True)
            return
        task.step(_S.RUNNING, "Executing payload", self._clock())
        task.proxy = credential
        key = task.key
        task.payload = self._stagehand.start(
            task, credential, self._steady(task.lease_end), lambda _payload, outcome: self._note_end(key, outcome)
        )
        task.started = now
        task.stage = Stage.RUNNING

    def _note_end(self, key: Key, outcome: Outcome) -> None:
        self._ended.put((key, outcome))
        self._wakeup.set()

    def _on_ended(self, task: Task, outcome: Outcome, now: float) -> None:
        task.outcome = outcome
        self._durations.append(outcome.usage.wall_seconds)
        if task.abandoned:
            self._drop(task)
            return
        status, reason, infrastructure = self._verdict(task, outcome)
        task.step(_S.COMPLETING, outcome.describe(), now)
        task.final = (status, reason, infrastructure)
        outputs, notes = self._stagehand.pick_outputs(task)
        for note in notes:
            task.step(_S.COMPLETING, note, now)
        task.outputs = outputs
        for file, content in self._stagehand.too_large_to_inline(task):
            self._uploads.setdefault(file.sha256, Upload(file.sha256, content))
            task.uploading.add(file.sha256)
        task.stage = Stage.UPLOADING
        if task.uploading:
            self._post.report(task.report(_S.COMPLETING))

    @staticmethod
    def _verdict(task: Task, outcome: Outcome) -> tuple[JobStatus, str, bool]:
        if task.final is not None and outcome.reason is not None:
            return task.final  # given back; a payload that had ended by itself before is told as it ended
        if task.killed:
            return _S.KILLED, task.killed, False
        if task.stops_by_lease:
            return _S.RESCHEDULED, outcome.describe(), True
        if outcome.succeeded:
            return _S.DONE, "", False
        return _S.FAILED, outcome.describe(), False

    def _upload(self, task: Task, now: float) -> None:
        if task.abandoned:
            self._drop(task)
            return
        for sha256 in sorted(task.uploading):
            upload = self._uploads[sha256]
            if upload.complete:
                task.uploading.discard(sha256)
                continue
            for chunk in upload.next_chunks(now):
                self._post.say(chunk)
        if not task.uploading and task.final is not None:
            status, reason, infrastructure = task.final
            self._finish(task, status, reason, now, infrastructure=infrastructure)

    def _finish(self, task: Task, status: JobStatus, reason: str, now: float, *, infrastructure: bool = False) -> None:
        """The last word about an attempt."""
        task.step(status, reason, now)
        if not task.abandoned:
            self._post.report(task.report(status, reason=reason, infrastructure=infrastructure))
        self._drop(task)

    def _drop(self, task: Task) -> None:
        self._ledger.give_back(task.key)
        task.stage = Stage.OVER
        if task.payload is not None and task.payload.outcome is None:
            task.payload.stop("the attempt is over", 0.0)
        self._stagehand.wipe(task)
        del self._tasks[task.key]
        if task.slot.job:
            self._proxies.release(task.slot)
        self._copies.pop(task.key, None)
        for key in [key for key in self._downloads if key[0] == task.key]:
            del self._downloads[key]
        if self._uploads:
            still_wanted = {sha256 for other in self._tasks.values() for sha256 in other.uploading}
            for sha256 in [sha256 for sha256 in self._uploads if sha256 not in still_wanted]:
                del self._uploads[sha256]

    def _steady(self, server_time: float) -> float:
        """A server time on the runner's clock."""
        return steady_now() + (server_time - self._clock())
