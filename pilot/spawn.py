"""Making one child process: its output files, the start itself, the kernel's limits on it.

Promises: whatever fails leaves no process and no open descriptor behind; the reason says whose fault it is,
the payload's (:class:`~pilot.payload.PayloadStartError`) or the node's (:class:`NodeTroubleError`).

`subprocess` starts children with vfork(2) as long as no `preexec_fn`, user or group change is asked for, so the
start costs the same however large the pilot is; kernel limits are set from outside right after (prlimit(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import resource
import subprocess
import time
from collections.abc import Mapping

from schemas.errors import TemporaryError

from .payload import PayloadSpec, PayloadStartError, ResourceFloor
from .sandbox import SandboxError, open_inside

# A file that another thread's child still holds open for writing until its execve cannot be run (ETXTBSY): try again.
_BUSY_TRIES = 8
_BUSY_SECONDS = 0.01
# RLIMIT_CPU's soft limit gives SIGXCPU; the hard one, so many seconds later, gives KILL.
_CPU_HARD_EXTRA = 5
_MB = 1_000_000
_NODE_TROUBLE = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


class NodeTroubleError(TemporaryError):
    """This node cannot start processes now."""


def spawn(spec: PayloadSpec, command: list[str], environment: Mapping[str, str], stdin: int) -> int:
    """Start the child and return its process id; the caller must wait for it.

    Raises:
        PayloadStartError: if the command cannot be run.
        NodeTroubleError: if the node lacks the means.
    """
    try:
        outputs = _open_outputs(spec)
        try:
            pid = _patiently(spec, command, environment, (stdin, *outputs))
        finally:
            for descriptor in set(outputs):
                os.close(descriptor)
    except OSError as error:
        if error.errno in _NODE_TROUBLE:
            raise NodeTroubleError(f"this node cannot start processes now: {error.strerror}") from error
        raise PayloadStartError(_why_not(command[0], error)) from error
    _set_floor(pid, spec.floor)
    return pid


def _patiently(
    spec: PayloadSpec, command: list[str], environment: Mapping[str, str], files: tuple[int, int, int]
) -> int:
    for tries_left in reversed(range(_BUSY_TRIES)):
        try:
            return _start(spec, command, environment, files)
        except OSError as error:
            if error.errno == errno.ENOEXEC and not spec.prefix and command[0] != "/bin/sh":
                command = ["/bin/sh", *command]  # a script without an interpreter line: as shells do
            elif error.errno != errno.ETXTBSY or not tries_left:
                raise
            else:
                time.sleep(_BUSY_SECONDS)
    raise PayloadStartError


def _start(spec: PayloadSpec, command: list[str], environment: Mapping[str, str], files: tuple[int, int, int]) -> int:
    child = subprocess.Popen(
        command,
        cwd=spec.directory,
        env=environment,
        stdin=files[0],
        stdout=files[1],
        stderr=files[2],
        close_fds=True,
        start_new_session=True,
    )
    child.returncode = 0  # the runner waits for the child itself; Popen must never do so
    return child.pid


def _open_outputs(spec: PayloadSpec) -> tuple[int, int]:
    """Fresh files for StdOutput and StdError (one descriptor if they are the same name).

    They are opened for appending: then the watchdog can cut a file that grows too long, and the payload goes on.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    opened: list[int] = []
    try:
        for name in dict.fromkeys((spec.stdout, spec.stderr)):
            opened.append(open_inside(spec.directory, name, flags, make_parents=True))
    except (OSError, SandboxError) as error:
        for descriptor in opened:
            os.close(descriptor)
        if isinstance(error, OSError) and error.errno in _NODE_TROUBLE:
            raise
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise PayloadStartError(f"cannot make the output file {name!r}: {why}") from error
    return opened[0], opened[-1]


def _why_not(program: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"cannot start {program!r}: it or its interpreter does not exist on this node"
    if error.errno == errno.E2BIG:
        return "Arguments and Environment together are too long for this node"
    return f"cannot start {program!r}: {os.strerror(error.errno or 0)}"


def _set_floor(pid: int, floor: ResourceFloor) -> None:
    wanted: list[tuple[int, int | None, int]] = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, floor.cpu_seconds, _CPU_HARD_EXTRA),
        (resource.RLIMIT_FSIZE, None if floor.file_mb is None else floor.file_mb * _MB, 0),
        (resource.RLIMIT_AS, None if floor.address_space_mb is None else floor.address_space_mb * _MB, 0),
        (resource.RLIMIT_NOFILE, floor.open_files, 0),
        (resource.RLIMIT_NPROC, floor.user_processes, 0),
    ]
    for limit, soft, extra in wanted:
        if soft is None:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            allowed = resource.getrlimit(limit)[1]
            hard = soft + extra if allowed == resource.RLIM_INFINITY else min(soft + extra, allowed)
            resource.prlimit(pid, limit, (min(soft, hard), hard))


def user_name() -> str:
    """The name of the account that the pilot runs under."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # an account that the node does not name, as in containers
        return f"uid{os.geteuid()}"
