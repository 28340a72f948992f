"""The Python client: everything that the commands do, typed.

    from producers import Client

    with Client(settings) as client:
        submission = client.submit([Path("hello.jdl")])
        statuses = client.wait(submission.ids, timeout=600)

Promises: a job description is checked here before anything is sent; a retried submission makes no second job; every
answer was signed by a service that may give it; every error is one of :mod:`producers.errors` and says what to do.
One client is one login; it is not for several threads at once.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from schemas.errors import TemporaryError
from schemas.job import FINAL, JobStatus
from schemas.messages.admin import DiscardDead, QueryDead, ReplayDead
from schemas.messages.common import MAX_JOBS_PER_MESSAGE, InputFile
from schemas.messages.event import JobChange
from schemas.messages.service import (
    CommandOutcome,
    DeadListing,
    JobDetail,
    JobListing,
    JobsCommanded,
    JobsSubmitted,
    JobSummary,
    RefusalDetail,
    ReplicaListing,
)
from schemas.messages.user import (
    DeleteJobs,
    InspectJob,
    KillJobs,
    QueryJobs,
    QueryReplicas,
    RegisterReplica,
    RescheduleJobs,
    SubmitJobs,
)
from schemas.registry import Message, encode, type_of

from .connect import load_proxy, open_session, trust_of
from .delegation import delegate, delegate_own, ensure_delegated
from .errors import NotConfiguredError, NotFoundError, ServiceRefusedError, TimedOutError, explained
from .following import Follower, cover
from .outputs import is_there, target_of, write
from .transfer import Progress, checked, download, upload

if TYPE_CHECKING:
    from broker.identity import Credential
    from broker.session import Incoming, Session

    from .administration import Administration
    from .auditing import Audit, SealReader
    from .repository import ProxyRepository
    from .settings import UserSettings
    from .submission import Prepared
    from .watching import Event, Since
    from .why import Why

TIMEOUT = 30.0
"""Seconds for one request: the broker may fail over in between."""

PAGE = 1000
"""Jobs per page of a listing (the message's bound)."""

APPEAR_SECONDS = 2.0
"""Jobs of an accepted submission are written in slices; the next one comes within a fraction of this."""

TRIES = 3
"""How often a submission whose answer is missing is sent again, always with the same key."""

M = TypeVar("M", bound=Message)
JobCommand = KillJobs | DeleteJobs | RescheduleJobs


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission became.

    Attributes:
        first: id of the first job.
        count: how many, with ids in order of the descriptions.
        key: the idempotency key that was used.
        warnings: what the service found odd.
    """

    first: int
    count: int
    key: str
    warnings: tuple[RefusalDetail, ...] = ()

    @property
    def ids(self) -> range:
        """All ids."""
        return range(self.first, self.first + self.count)


class Client:
    """A user at a deployment.

    Args:
        settings: which deployment, and where credentials lie.
        credential: the proxy; by default the user's proxy file.
        timeout: seconds for one request.
    """

    def __init__(
        self, settings: UserSettings, credential: Credential | None = None, *, timeout: float = TIMEOUT
    ) -> None:
        self._settings = settings
        self._given = credential
        self._timeout = timeout
        self._session: Session | None = None
        self._delegated = False
        self._aside: deque[Incoming] = deque()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def open(self) -> None:
        """Log in now rather than at the first request."""
        self._wire()

    def close(self) -> None:
        """Leave. The client may be used again and then logs in anew."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def identity(self) -> str:
        """Canonical DN of the user."""
        return self._wire().identity

    @property
    def group(self) -> str:
        """Group acted for."""
        return self._wire().group

    # -- jobs ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        descriptions: Sequence[Path | str],
        key: str | None = None,
        *,
        progress: Progress | None = None,
        proxy_hours: float | None = None,
    ) -> Submission:
        """Submit jobs: all or none.

        Args:
            descriptions: JDL files (``Path``) or JDL texts (``str``; local files are looked up in the current folder).
            key: idempotency key; the same key with the same content gives the same jobs for 30 days. A fresh one by
                default, kept for the tries of this call.
            progress: told of uploads.
            proxy_hours: delegate a proxy that lives so long (at most a week) for these jobs alone, rather than to let
                them use the account's; it is destroyed when the last of them is over.

        Raises:
            InvalidJobError: with all errors; nothing was sent.
            InvalidInputError: no proxy can be delegated for so long.
        """
        from .submission import prepare, read_description  # brings the language, which only submissions need

        prepared = prepare([read_description(item) for item in descriptions], fresh_key(key))
        return self.submit_prepared(prepared, progress, proxy_hours)

    def submit_prepared(
        self, prepared: Prepared, progress: Progress | None = None, proxy_hours: float | None = None
    ) -> Submission:
        """Submit what :func:`producers.submission.prepare` made; ``proxy_hours`` as in :meth:`submit`."""
        checked_message(prepared.message)
        session, credential = self._wire(), self._credential()
        with explained():
            if not self._delegated and proxy_hours is None:
                ensure_delegated(session, credential, self._timeout)
                self._delegated = True
            upload(session, prepared.uploads, self._timeout, progress)
            answer = self._submit(session, credential, prepared, proxy_hours)
        return Submission(answer.first, answer.count, prepared.message.key, answer.warnings)

    def _submit(
        self, session: Session, credential: Credential, prepared: Prepared, proxy_hours: float | None
    ) -> JobsSubmitted:
        from broker.session import RequestRefusedError

        message = prepared.message
        if proxy_hours is not None:
            message = _with_own_proxy(message, delegate_own(session, credential, proxy_hours, self._timeout))
        for left in reversed(range(TRIES)):
            try:
                return _expect(session.request(message, self._timeout), JobsSubmitted)
            except RequestRefusedError as error:
                if error.refused.code != "no-proxy" or proxy_hours is not None or not left:
                    raise
                delegate(session, credential, self._timeout)
            except TemporaryError:
                if not left:
                    raise
        raise AssertionError  # the loop above returns or raises

    def jobs(
        self,
        ids: Iterable[int] = (),
        *,
        status: Sequence[JobStatus] = (),
        site: str = "",
        job_group: str = "",
        owner: str = "",
        limit: int = 100,
    ) -> list[JobSummary]:
        """Jobs by descending id.

        Args:
            ids: only these (then ``limit`` does not count); unknown ones are absent.
            status: only these; empty means all but Deleted.
            site: only there.
            job_group: only with this JobGroup.
            owner: canonical DN; empty: one's own; ``*``: all that the group may see.
            limit: at most so many.
        """
        wanted = sorted(set(ids), reverse=True)
        found: list[JobSummary] = []
        for start in range(0, max(1, len(wanted)), MAX_JOBS_PER_MESSAGE):
            chosen = tuple(wanted[start : start + MAX_JOBS_PER_MESSAGE])
            query = QueryJobs(
                jobs=chosen, owner=owner, status=tuple(status), site=site, job_group=job_group, limit=PAGE
            )
            found.extend(self._pages(query, len(chosen) or limit))
        return found

    def _pages(self, query: QueryJobs, limit: int) -> Iterator[JobSummary]:
        import msgspec

        left, before = limit, 0
        while left > 0:
            page = msgspec.structs.replace(query, before=before, limit=min(PAGE, left))
            listing = self._ask(page, JobListing)
            yield from listing.jobs
            left -= len(listing.jobs)
            if not listing.more or not listing.jobs:
                return
            before = listing.jobs[-1].job

    def job(self, job: int) -> JobDetail:
        """Everything about one job.

        Raises:
            NotFoundError: there is none, or it is not yours to see.
        """
        return self._ask(InspectJob(job=job), JobDetail)

    def kill(self, ids: Iterable[int]) -> list[CommandOutcome]:
        """Stop jobs wherever they are; tells for each what happened."""
        return self._command(KillJobs, ids)

    def delete(self, ids: Iterable[int]) -> list[CommandOutcome]:
        """Forget jobs; those that still live are killed first."""
        return self._command(DeleteJobs, ids)

    def reschedule(self, ids: Iterable[int]) -> list[CommandOutcome]:
        """Run ended jobs again as new attempts."""
        return self._command(RescheduleJobs, ids)

    def _command(self, command: type[JobCommand], ids: Iterable[int]) -> list[CommandOutcome]:
        wanted = list(dict.fromkeys(ids))
        outcomes: list[CommandOutcome] = []
        for start in range(0, len(wanted), MAX_JOBS_PER_MESSAGE):
            message = command(jobs=tuple(wanted[start : start + MAX_JOBS_PER_MESSAGE]))
            outcomes.extend(self._ask(message, JobsCommanded).outcomes)
        return outcomes

    def follow(self, first: int, count: int = 1, *, timeout: float | None = None) -> Iterator[JobChange]:
        """Each change of these jobs, beginning with their present states; through restarts of the service.

        Ends after ``timeout`` seconds, else never: leave the loop when you have seen enough.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with explained():
            yield from Follower(self._wire(), self._aside).changes([(first, count)], deadline)

    def wait(
        self,
        ids: Iterable[int],
        timeout: float | None = None,
        on_change: Callable[[JobChange], None] | None = None,
        on_away: Callable[[bool], None] = lambda _away: None,
    ) -> dict[int, JobStatus]:
        """Wait until all these jobs have ended; return how. A broker that goes away is waited for as well.

        Args:
            ids: the jobs.
            timeout: seconds; by default for ever.
            on_change: told of each change, the present states first.
            on_away: told when the broker is away (True), within half a minute, and when it is back (False).

        Raises:
            NotFoundError: one of them does not exist.
            TimedOutError: some have not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wanted = list(dict.fromkeys(ids))
        statuses = self._present(wanted)
        living = {job for job, status in statuses.items() if status not in FINAL}
        with explained():
            follower = Follower(self._wire(), self._aside, on_away)
            for change in follower.changes(cover(living), deadline) if living else ():
                if change.job not in statuses:
                    continue
                statuses[change.job] = change.status
                if on_change is not None:
                    on_change(change)
                (living.discard if change.status in FINAL else living.add)(change.job)
                if not living:
                    break
        if living:
            raise TimedOutError(f"{len(living)} of {len(wanted)} jobs have not ended within {timeout:g} s")
        return {job: statuses[job] for job in wanted}

    def _present(self, wanted: Sequence[int]) -> dict[int, JobStatus]:
        """How these jobs stand; the last ones of a large submission come to be only after it was accepted."""
        statuses: dict[int, JobStatus] = {}
        missing, patience = list(wanted), 0.0
        while missing:
            found = {job.job: job.status for job in self.jobs(missing, owner="*")}
            statuses |= found
            missing = [job for job in missing if job not in found]
            if found:
                patience = time.monotonic() + APPEAR_SECONDS
            if missing and (min(missing) < max(statuses, default=0) or time.monotonic() >= patience):
                raise NotFoundError(f"there is no job {missing[0]} that you may see" + _and_more(missing))
            if missing:
                time.sleep(APPEAR_SECONDS / 10)
        return statuses

    def output(self, job: int | JobDetail, directory: Path, *, progress: Progress | None = None) -> list[Path]:
        """Fetch a job's output sandbox into ``directory/<job id>``; what is there already is not fetched again.

        Args:
            job: its id, or what :meth:`job` told about it.
            directory: made if missing.
            progress: told of large files.

        Raises:
            NotFoundError: no such job.
            OutputError: a file is there with another content, or a name leads out of the directory.
        """
        detail = self.job(job) if isinstance(job, int) else job
        number = detail.summary.job
        folder = directory / str(number)
        written: list[Path] = []
        for file in detail.outputs:
            target = target_of(folder, file.name)
            if not is_there(target, file):
                if file.content is not None:
                    content = checked(file, file.content)
                else:
                    with explained():
                        content = download(self._wire(), number, file, self._aside_with_ack, progress)
                write(target, content, file.mode)
            written.append(target)
        return written

    # -- replicas -----------------------------------------------------------------------------------------------

    def register_replica(self, lfn: str, se: str, pfn: str, size: int, adler32: str = "") -> InputFile | None:
        """Tell the catalog that a file has a copy; returns the file with all its copies."""
        message = RegisterReplica(lfn=lfn, se=se, pfn=pfn, size=size, adler32=adler32)
        return next(iter(self._ask(message, ReplicaListing).files), None)

    def replicas(self, lfns: Sequence[str]) -> Mapping[str, InputFile]:
        """Files that the catalog knows, by LFN; unknown ones are absent."""
        found: dict[str, InputFile] = {}
        for start in range(0, len(lfns), 500):
            listing = self._ask(QueryReplicas(lfns=tuple(lfns[start : start + 500])), ReplicaListing)
            found.update((file.lfn, file) for file in listing.files)
        return found

    # -- operators ----------------------------------------------------------------------------------------------

    def watch(self, since: Since | str = "next", *, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Every event, live or from the past on, over a connection of its own.

        Args:
            since: a time, ``first``, ``next``, or text as in :func:`producers.watching.parse_since`.
            stop: asked at quiet moments; true ends the iteration.
        """
        from .watching import parse_since, read_events

        start = parse_since(since, dt.datetime.now(dt.UTC)) if isinstance(since, str) else since
        session = open_session(self._settings, self._credential(), self._timeout)
        try:
            with explained():
                yield from read_events(session, start, stop)
        finally:
            session.close()

    @property
    def registry(self) -> Administration:
        """Users, groups, sites and the like: what is known, and how operators change it."""
        from .administration import Administration

        return Administration(self._ask, self._timeout)

    @property
    def audit(self) -> Audit:
        """What was decided about security, and the check that nobody changed it since."""
        from .auditing import Audit

        return Audit(self._ask, self._seal_reader, lambda since: self.watch(since, stop=lambda: True))

    @property
    def why(self) -> Why:
        """Why jobs wait, and what would become of others."""
        from .why import Why

        return Why(self._ask)

    @property
    def repository(self) -> ProxyRepository:
        """The proxy repository, as operators see it."""
        from .repository import ProxyRepository

        return ProxyRepository(self._ask)

    def dead_letters(
        self, ids: Iterable[int] = (), *, before: int = 0, limit: int = 100, body: bool = False, closed: bool = False
    ) -> DeadListing:
        """Messages that could not be handled, newest first; ``closed``: also those that were dealt with."""
        message = QueryDead(ids=tuple(ids), before=before, limit=limit, body=body, all=closed)
        return self._ask(message, DeadListing)

    def replay(self, ids: Iterable[int]) -> DeadListing:
        """Admit dead letters again, on the operator's word."""
        return self._ask(ReplayDead(ids=tuple(ids)), DeadListing)

    def discard(self, ids: Iterable[int], reason: str = "") -> DeadListing:
        """Close dead letters for good."""
        return self._ask(DiscardDead(ids=tuple(ids), reason=reason), DeadListing)

    def ask(self, message: Message, answer: type[M]) -> M:
        """Send a message that has no method of its own here, and wait for its answer."""
        return self._ask(message, answer)

    # -- below --------------------------------------------------------------------------------------------------

    def _credential(self) -> Credential:
        if self._given is None:
            self._given = load_proxy(self._settings, dt.datetime.now(dt.UTC))
        return self._given

    def _wire(self) -> Session:
        if self._session is None:
            if self._settings.broker is None:
                raise NotConfiguredError
            self._session = open_session(self._settings, self._credential(), self._timeout)
        return self._session

    def _seal_reader(self) -> SealReader:
        from broker.identity import TrustStore

        from .auditing import AUDITOR, SealReader

        welcome = self._wire().welcome
        named = [info.dn for info in welcome.services if info.name == AUDITOR] if welcome is not None else []
        if not named:
            raise NotFoundError("this deployment has no auditor")
        return SealReader(TrustStore.load(trust_of(self._settings)), named[0])

    def _ask(self, message: Message, answer: type[M], timeout: float | None = None) -> M:
        checked_message(message)
        with explained():
            return _expect(self._wire().request(message, self._timeout if timeout is None else timeout), answer)

    def _aside_with_ack(self, incoming: Incoming) -> None:
        self._wire().ack([incoming])
        self._aside.append(incoming)


def checked_message(message: Message) -> None:
    """Refuse here what the receiver would refuse: lengths, ranges, numbers of items.

    Raises:
        InvalidInputError: says which field.
    """
    type_of(message).decode(encode(message))


def fresh_key(key: str | None) -> str:
    """The given idempotency key, or a new one."""
    return key or uuid.uuid4().hex


def _expect(message: Message, answer: type[M]) -> M:
    if not isinstance(message, answer):
        raise ServiceRefusedError(
            f"{type_of(message).name} came instead of {type_of(answer).name}: other versions there?"
        )
    return message


def _and_more(items: Sequence[int]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


def _with_own_proxy(message: SubmitJobs, delegation: str) -> SubmitJobs:
    import msgspec

    return msgspec.structs.replace(message, proxy=delegation)
