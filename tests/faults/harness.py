"""A deployment of real processes that a test can kill, stop and freeze, and what they did, read from their store.

    with stand(folder, postgres) as place:
        place.serve_each()
        place.start_pilot(1)
        ids = place.submit(jobs=10)
        place.kill("matcher"); place.serve("matcher")
        place.wait_for(ids)
        check(place, ids)                 # tests.faults.invariants

Every process dies with the test process. Payloads tell of themselves in one file (:meth:`Stand.told`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import sqlalchemy as sa

from compose.local.configs import Addresses
from compose.local.postgres import PostgresCluster
from compose.services import NAMES
from compose.settings import make_user_settings, read_values
from consumers.store import Store, attempts, history, jobs
from consumers.store.rows import AttemptRow, HistoryRow, JobRow
from producers import Client
from schemas.job import FINAL, JobStatus
from tests.support.certified_pilots import write_pilot_config
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("serve_with_faults.py")

START_SECONDS = 40.0
"""A process of ours is up in one or two; on a loaded small machine with many tests in some times that."""

ACCEPT, SWEEP, SILENT = 8.0, 0.5, 3.0
"""Short times for leases. The acceptance lease is longer than the relay's patience of five seconds, so that an answer
which a killed matcher owes still comes in time."""

SCRIPT = """#!/bin/sh
# Tells of itself: job, attempt, what, when (seconds since the boot), in one file for all payloads of the machine.
tell() { read -r up rest < /proc/uptime; echo "$PILOTAGE_JOB_ID $PILOTAGE_ATTEMPT $1 $up" >> "$2"; }
tell start "$1"
n=$2; i=0
if [ "$PILOTAGE_ATTEMPT" -gt 1 ] && [ "$n" -gt 10 ]; then n=10; fi  # the first one was long to be interrupted
while [ $i -lt "$n" ]; do sleep 0.1; tell alive "$1"; i=$((i+1)); done
head -c 200000 /dev/urandom > large.bin
tell end "$1"
echo "job $PILOTAGE_JOB_ID"
"""


HURRIED_PILOT = """
import sys
from pilot import transfer
from pilot.__main__ import main
transfer.RETRY_SECONDS = 2.0
sys.exit(main())
"""


@dataclass(frozen=True)
class Execution:
    """What one payload told: times in seconds since the boot, and whether it came to its end."""

    job: int
    attempt: int
    start: float
    last: float
    ended: bool


@dataclass
class Stand:
    """The deployment under test.

    Attributes:
        place: broker, identities, settings.
        store: the services' store, to look into.
        folder: of the test.
    """

    place: Deployment
    store: Store
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _clients: list[Client] = field(default_factory=list)

    # -- services -----------------------------------------------------------------------------------------------

    def serve(self, *names: str, known_as: str = "", faults: bool = False) -> str:
        """Start services in one process, and wait until they serve.

        Args:
            names: which; ``all`` for all.
            known_as: the process's name in this test.
            faults: started so that it can be armed.
        """
        name, ready = self._start_services(names, known_as, faults)
        self._await(name, ready)
        return name

    def serve_each(self, names: Sequence[str] = NAMES, *, faults: bool = False) -> None:
        """Start each service in a process of its own."""
        if "gatekeeper" in names:
            self.serve("gatekeeper", faults=faults)
        started = [self._start_services([name], "", faults) for name in names if name != "gatekeeper"]
        for name, ready in started:
            self._await(name, ready)

    def _start_services(self, names: Sequence[str], known_as: str, faults: bool) -> tuple[str, Path]:
        name = known_as or "+".join(names)
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        program = [str(LAUNCHER), str(self.control(name))] if faults else ["-m", "compose.serve"]
        config = str(self.place.layout.server_config)
        self._spawn(name, [*program, *names, "--config", config, "--ready-file", str(ready)])
        return name, ready

    def control(self, name: str) -> Path:
        """The file that arms a service's fault."""
        return self.folder / f"{name}.fault"

    def arm(self, name: str, point: str, kind: str, how: str = "SIGKILL") -> None:
        """Let a service die (or stop) at a point, with a message of that type in its hands."""
        draft = self.control(name).with_suffix(".draft")
        draft.write_text(f"{point} {kind} {how}", "ascii")
        draft.rename(self.control(name))

    def disarm(self) -> None:
        """Take back what was armed and did not happen."""
        for control in self.folder.glob("*.fault"):
            control.unlink(missing_ok=True)

    # -- pilots -------------------------------------------------------------------------------------------------

    def start_pilot(
        self, number: int, slots: int = 2, port: int = 0, hurry: bool = False, wait: bool = True, **settings: object
    ) -> str:
        """Start a pilot and wait until it has logged in.

        Args:
            number: which one.
            slots: processors that it offers.
            port: where it finds the broker, if a wire lies between.
            hurry: asks again soon for an answer that it misses.
            wait: until it has logged in.
            settings: of its section ``[pilot]``.
        """
        layout = self.place.layout
        addresses = Addresses(port or self.place.node.port, self.place.settings.gatekeeper_port, "", 0)
        write_pilot_config(layout, addresses, number, slots)
        config = layout.pilot_config(number)
        lines = config.read_text("utf-8").splitlines()
        if "enrolment" in settings:  # in place of its certificate
            lines = [line for line in lines if not line.startswith("credential =")]
        for key, value in {"heartbeat_seconds": 0.5, **settings}.items():
            lines = [line for line in lines if not line.startswith(f"{key} =")]
            lines.insert(lines.index("[pilot]") + 1, f"{key} = {value}")
        config.write_text("\n".join(lines) + "\n", "utf-8")
        name, ready = f"pilot-{number}", self.ready_file(number)
        ready.unlink(missing_ok=True)
        program = ["-c", HURRIED_PILOT] if hurry else ["-m", "compose.pilot"]
        self._spawn(name, [*program, "--config", str(config), "--ready-file", str(ready)])
        if wait:
            self._await(name, ready)
        return name

    def ready_file(self, number: int) -> Path:
        """There once a pilot has logged in."""
        return self.folder / f"pilot-{number}.ready"

    def agent_pid(self, name: str) -> int:
        """The pid of a pilot itself: the child of its keeper."""
        keeper = self.processes[name].pid
        children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text("ascii").split()
        return int(children[0])

    # -- any process --------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    def stop(self, name: str) -> int:
        """SIGTERM, and wait for an end in good order."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(40)

    def freeze(self, name: str) -> None:
        """SIGSTOP to the process and all below it, as a suspended node would."""
        for pid in self._family(name):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT to the same."""
        for pid in self._family(name):
            os.kill(pid, signal.SIGCONT)

    def _family(self, name: str) -> list[int]:
        process = psutil.Process(self.processes[name].pid)
        return [process.pid, *(child.pid for child in process.children(recursive=True))]

    def await_death(self, name: str, timeout: float = 30.0) -> None:
        """Wait for a process that was armed to die."""
        process = self.processes[name]
        wait_until(lambda: process.poll() is not None, timeout, f"the death of {name}\n{self.log(name)}")
        assert process.returncode == -signal.SIGKILL, f"{name} ended otherwise\n{self.log(name)}"
        del self.processes[name]

    def await_stop(self, name: str, timeout: float = 30.0) -> None:
        """Wait for a process that was armed to stand still."""
        process = psutil.Process(self.processes[name].pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, timeout, f"{name} to stop\n{self.log(name)}")

    def log(self, name: str, most: int = 6000) -> str:
        """The end of what a process wrote."""
        file = self.folder / f"{name}.log"
        return file.read_text("utf-8", "replace")[-most:] if file.exists() else ""

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        assert name not in self.processes, f"{name} runs already"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )

    def _await(self, name: str, ready: Path) -> None:
        process = self.processes[name]
        wait_until(
            lambda: ready.exists() or process.poll() is not None, START_SECONDS, f"{name} to be ready\n{self.log(name)}"
        )
        assert process.poll() is None, f"{name} did not start\n{self.log(name)}"

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            client.close()
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)
        self.processes.clear()

    # -- the user -----------------------------------------------------------------------------------------------

    def client(self, timeout: float = 30.0) -> Client:
        """A user's client with a fresh proxy; closed at the end."""
        path = self.place.layout.client_config
        settings = make_user_settings(read_values(path), path, {})
        client = Client(settings, self.place.user(), timeout=timeout)
        self._clients.append(client)
        return client

    def describe(self, jobs: int = 1, tenths: int = 0, lease: int = 3600, more: str = "") -> str:
        """A description of payloads that tell of themselves and last so many tenths of a second."""
        script = self.folder / "tell.sh"
        if not script.exists():
            script.write_text(SCRIPT, "ascii")
            script.chmod(0o755)
        return f"""[
            JobName = "fault";
            Executable = "tell.sh";
            Arguments = "{self.tale} {tenths}";
            InputSandbox = {{"{script}"}};
            {"" if "OutputSandbox" in more else 'OutputSandbox = {"std.out"};'}
            CPUTime = 600;
            LeaseDuration = {lease};
            Parameters = {jobs};
            {more}
        ]"""

    def submit(self, jobs: int = 1, client: Client | None = None, **how: object) -> list[int]:
        """Submit such payloads; returns the ids."""
        submission = (client or self.client()).submit([self.describe(jobs, **how)])  # type: ignore[arg-type]
        return list(submission.ids)

    @property
    def tale(self) -> Path:
        """What the payloads told."""
        return self.folder / "tale.txt"

    def told(self) -> dict[tuple[int, int], Execution]:
        """Each payload that started, by (job, attempt).

        A payload that started twice fails the test: the promise is one start per attempt.
        """
        lines = self.tale.read_text("ascii").splitlines() if self.tale.exists() else []
        found: dict[tuple[int, int], Execution] = {}
        for line in lines:
            job, attempt, what, when = line.split()
            key = int(job), int(attempt)
            if what == "start":
                assert key not in found, f"payload of job {job} attempt {attempt} started twice"
                found[key] = Execution(*key, float(when), float(when), ended=False)
            else:
                found[key] = Execution(*key, found[key].start, float(when), what == "end")
        return found

    # -- the state ----------------------------------------------------------------------------------------------

    def jobs(self, ids: Collection[int]) -> dict[int, JobRow]:
        """The jobs' rows."""
        with self.store.reading() as tx:
            return jobs.load(tx, ids, for_update=False)

    def history(self, job: int) -> list[HistoryRow]:
        """A job's history."""
        with self.store.reading() as tx:
            return history.of(tx, job)

    def attempts(self, job: int) -> list[AttemptRow]:
        """A job's attempts."""
        with self.store.reading() as tx:
            return attempts.of(tx, job)

    def count(self, table: str, where: str = "") -> int:
        """Rows of a table."""
        with self.store.reading() as tx:
            statement = f"SELECT count(*) FROM {table}" + (f" WHERE {where}" if where else "")
            return int(tx.connection.execute(sa.text(statement)).scalar_one())

    def statuses(self, ids: Collection[int]) -> dict[int, JobStatus]:
        """Where the jobs stand."""
        return {job: row.status for job, row in self.jobs(ids).items()}

    def wait_for(self, ids: Collection[int], timeout: float = 60.0) -> None:
        """Wait until all jobs have ended."""

        def over() -> bool:
            found = self.statuses(ids)
            return len(found) == len(set(ids)) and all(status in FINAL for status in found.values())

        try:
            wait_until(over, timeout, f"{len(ids)} jobs to end")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain(ids)}") from None

    def wait_status(self, ids: Collection[int], status: JobStatus, timeout: float = 30.0) -> None:
        """Wait until all jobs stand there."""

        def there() -> bool:
            found = self.statuses(ids)
            return len(found) == len(set(ids)) and all(one is status for one in found.values())

        try:
            wait_until(there, timeout, f"{len(ids)} jobs to be {status}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain(ids)}") from None

    def wait_started(self, job: int, attempt: int, timeout: float = 30.0) -> None:
        """Wait until that payload runs."""
        wait_until(lambda: (job, attempt) in self.told(), timeout, f"payload {job}.{attempt} to start")

    def explain(self, ids: Collection[int]) -> str:
        """Histories of the jobs that have not ended, and the logs: for people who read a failed test."""
        lines = []
        rows = self.jobs(ids)
        open_jobs = [job for job in ids if job not in rows or rows[job].status not in FINAL]
        for job in open_jobs[:3]:
            lines.append(f"job {job}: {rows.get(job)}")
            lines.extend(f"    {line}" for line in self.history(job))
        names = sorted(file.stem for file in self.folder.glob("*.log"))
        lines.extend(f"--- {name}\n{self.log(name, 2500)}" for name in names)
        return "\n".join(lines)


@contextlib.contextmanager
def stand(folder: Path, postgres: PostgresCluster | None = None) -> Iterator[Stand]:
    """A deployment without services: on PostgreSQL for many processes, else on SQLite for one."""
    name = f"faults_{uuid.uuid4().hex[:12]}"
    url = postgres.create_database(name) if postgres is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if postgres is not None:
            stack.callback(postgres.drop_database, name)
        place = stack.enter_context(deployment(folder / "place", services=[], store_url=url))
        with place.layout.server_config.open("a", encoding="utf-8") as config:
            config.write(f"\n[leases]\naccept = {ACCEPT}\nsweep = {SWEEP}\nsilent = {SILENT}\n")
        # The store of SQLite belongs to the serving process alone; it is read by a connection of the test's own.
        store = Store.open(url) if url is not None else open_beside(place.layout.sqlite)
        stack.callback(store.close)
        one = Stand(place, store, folder)
        stack.callback(one.close)
        yield one


def open_beside(file: Path) -> Store:
    """A store of SQLite, read beside the process that serves it."""
    engine = sa.create_engine("sqlite://", creator=lambda: _connect(file), poolclass=sa.pool.NullPool)
    return Store(engine, engine, "sqlite", None)


def _connect(file: Path) -> object:
    import sqlite3

    return sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)


class Meanwhile:
    """Does something in another thread, and tells its result or raises its error in this one."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error

    def result(self, timeout: float = 60.0) -> object:
        """What it gave."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"not done within {timeout} s"
        if self._error is not None:
            raise self._error
        return self._result


def monotonic_of_boot() -> float:
    """Seconds since the boot, on the clock that payloads use."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
