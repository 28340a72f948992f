"""Long-lived child processes that are found again by name, also by a later run of the command.

Promises: a process is known by pid, start time and boot, so a recycled pid is never signalled; output goes to a log
file of its own; a spawned process has its own session (a Ctrl-C at the terminal does not reach it) and, when asked, is
killed by the kernel if its parent dies. Refuses to start a second process under a name that still runs. No `preexec_fn`
is used: it is unsafe in a program with threads. Linux only. What the processes are and in which order they live is
decided by the callers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from schemas.errors import ConfigurationError, PilotageError

TERM_GRACE = (
    20.0  # seconds between TERM and KILL: RabbitMQ flushes its queues in about one, ten times that is slow disk
)
PRIVATE = 0o077  # the umask of all that is ours: RabbitMQ makes its files with whatever it is given
INHERITED = -1  # the caller's umask
POLL = 0.02  # seconds between looks at a condition that has no file descriptor to wait on


class ProcessFailedError(PilotageError):
    """A process of the private stack did not come up."""


class DirectoryBusyError(ConfigurationError):
    """Another command is at work on this data directory."""


class ManagedProcess:
    """One named process with its pid file and its log file.

    Args:
        name: unique within the directory, for example `rabbitmq`.
        directory: the data directory; `run/<name>.json` and `log/<name>.log` are kept in it.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.pid_file = directory / "run" / f"{name}.json"
        self.log_file = directory / "log" / f"{name}.log"
        self._popen: subprocess.Popen[bytes] | None = None

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        dies_with_parent: bool = False,
        umask: int = PRIVATE,
        stdin: bytes = b"",
    ) -> int:
        """Start the program and return its pid at once; unless told otherwise, it writes files for its owner alone.

        `stdin` is what it reads there, through a pipe: for secrets. It must be short.

        With `dies_with_parent` the kernel kills it when the *thread* that spawned it ends (prctl(2), PR_SET_PDEATHSIG).

        Raises:
            ProcessFailedError: it runs already, or cannot be executed.
        """
        if self.pid is not None:
            raise ProcessFailedError(f"{self.name} is running already (pid {self.pid})")
        for file in (self.pid_file, self.log_file):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["setpriv", "--pdeathsig", "KILL", *argv] if dies_with_parent else list(argv)
        with open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:  # noqa: PTH123 a mode at creation needs os.open
            try:
                self._popen = subprocess.Popen(
                    command,
                    env=dict(env),
                    cwd=cwd,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    umask=umask,
                )
            except OSError as error:
                raise ProcessFailedError(f"cannot start {self.name}: {error}") from error
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self._popen.stdin as pipe:  # it ended already
                pipe.write(stdin)
        self._remember(self._popen.pid)
        return self._popen.pid

    def _remember(self, pid: int) -> None:
        record = {"pid": pid, "start": _start_ticks(pid), "boot": _boot_id()}
        draft = self.pid_file.with_suffix(".new")
        draft.write_text(json.dumps(record), encoding="ascii")
        draft.replace(self.pid_file)

    @property
    def pid(self) -> int | None:
        """The pid while the process lives, else None."""
        if self._popen is not None and self._popen.poll() is not None:
            return None  # reaped here, so that no zombie counts as alive
        try:
            record = json.loads(self.pid_file.read_text(encoding="ascii"))
            pid, start, boot = int(record["pid"]), record["start"], record["boot"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        alive = start is not None and boot == _boot_id() and _start_ticks(pid) == start
        return pid if alive else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.pid is not None

    def send(self, number: signal.Signals) -> bool:
        """Signal the process; False when it is gone."""
        pid = self.pid
        if pid is None:
            return False
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if self.pid != pid:  # looked up again under the handle: from here on the pid cannot be another's
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended; False when it still runs after `timeout` seconds."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
            return self._popen.returncode is not None
        pid = self.pid
        if pid is None:
            return True
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            if self.pid == pid:
                select.select([handle], [], [], timeout)
        finally:
            os.close(handle)
        return not self.running

    def stop(self, grace: float = TERM_GRACE) -> None:
        """TERM, then KILL after `grace` seconds; returns when the process is gone. Harmless when it is not running."""
        if self.send(signal.SIGTERM) and not self.wait(grace):
            self.kill()
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """KILL at once, and wait for the end."""
        if self.send(signal.SIGKILL):
            self.wait(TERM_GRACE)
        self.pid_file.unlink(missing_ok=True)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for an error message."""
        return tail(self.log_file, lines)

    def wait_ready(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait for `condition`; the process must live meanwhile.

        Raises:
            ProcessFailedError: it ended, or the time is over; the message holds the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.running:
                raise ProcessFailedError(f"{self.name} ended while it started; its log ends:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ProcessFailedError(
                    f"{self.name} was not ready after {timeout:g} s; its log ends:\n{self.log_tail()}"
                )
            time.sleep(POLL)


def stop_in_order(stages: Iterable[Sequence[ManagedProcess]], grace: float = TERM_GRACE) -> None:
    """Stop stage after stage; the processes of one stage get their TERM together."""
    for stage in stages:
        for process in stage:
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + grace
        for process in stage:
            process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()


@contextlib.contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the data directory for one command that changes it; the kernel frees it when the holder ends.

    Raises:
        DirectoryBusyError: another process holds it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise DirectoryBusyError(
                f"another pilotage command (pid {holder}) is at work on {directory}; wait for it"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def tail(file: Path, lines: int = 15) -> str:
    """The last lines of a text file; empty when it cannot be read."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 16_384))  # 15 long lines fit; a log may be huge
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _start_ticks(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot (proc(5), field 22 of stat); None for a zombie too."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
