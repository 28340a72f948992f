"""A payload that wants the pilot's keys: it tries what any process of the same account may try, and reports in JSON.

It runs alone, as a job's executable, so it imports nothing of ours. ``control`` is a process of its own on which the
same attempts must succeed: it shows that they would have worked.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
WAIT_ALL = 0x40000000  # __WALL
EFAULT = 14
PIDFD_GETFD, KCMP = 438, 312
KEYS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
    rb"|pilotage-enrol-1\.[a-z2-7]{20}\.[A-Za-z0-9_-]{43}"
    rb"|\x30\x77\x02\x01\x01\x04\x20"  # SEC 1, P-256
    rb"|\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"  # PKCS 8, EC
)
PLACES = ("/dev/shm", "/dev/mqueue")
MAX_FILE = 64 << 20

libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def attempt(action: Callable[[], str]) -> str:
    """What an action gave: empty if it was refused."""
    try:
        return action()
    except OSError:
        return ""


def read(path: str) -> str:
    with Path(path).open("rb") as file:
        return "read" if file.read(4096) else ""


def listing(path: str) -> str:
    return "listed" if list(Path(path).iterdir()) else ""


def memory(pid: int) -> str:
    """Read the heap or the stack by /proc/PID/mem, at whatever address it says."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        if rights.startswith("rw"):
            start = int(span.split("-")[0], 16)
            with Path(f"/proc/{pid}/mem").open("rb", 0) as file:
                file.seek(start)
                return "read" if file.read(64) else ""
    return ""


def open_memory(pid: int, mode: str) -> str:
    with Path(f"/proc/{pid}/mem").open(mode, 0):
        return "opened"


def ptrace(pid: int) -> str:
    if libc.ptrace(ctypes.c_long(PTRACE_ATTACH), ctypes.c_long(pid), None, None) != 0:
        return ""
    os.waitpid(pid, WAIT_ALL)
    libc.ptrace(ctypes.c_long(PTRACE_DETACH), ctypes.c_long(pid), None, None)
    return "attached"


def process_vm_readv(pid: int) -> str:
    """Whether it is allowed: what is not says EPERM; a bad address says EFAULT only to who may read at all."""
    buffer = ctypes.create_string_buffer(8)
    local, remote = Vector(ctypes.addressof(buffer), 8), Vector(8, 8)
    got = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return "allowed" if got >= 0 or ctypes.get_errno() == EFAULT else ""


def pidfd_getfd(pid: int) -> str:
    handle = os.pidfd_open(pid)
    for number in range(64):
        got = libc.syscall(PIDFD_GETFD, handle, number, 0)
        if got >= 0:
            return "taken"
    return ""


def kcmp(pid: int) -> str:
    return "compared" if libc.syscall(KCMP, os.getpid(), pid, 0, 0, 0) >= 0 else ""


def gdb(pid: int) -> str:
    if not Path("/usr/bin/gdb").exists():
        return ptrace(pid)
    command = ["/usr/bin/gdb", "-nx", "-batch", "-p", str(pid), "-ex", "print $sp", "-ex", "x/4x $sp", "-ex", "detach"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "read" if "$1 = (void *)" in done.stdout else ""


def tasks(pid: int) -> str:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for name in ("environ", "auxv", "maps"):
            if attempt(partial(read, str(task / name))):
                return task.name
    return ""


def raise_core_limit(pid: int) -> str:
    resource.prlimit(pid, resource.RLIMIT_CORE, (1 << 30, 1 << 30))
    return "raised"


def attacks(pid: int) -> dict[str, str]:
    """Every attempt by name; what it gave, empty where it was refused."""
    base = f"/proc/{pid}"
    tries: dict[str, Callable[[], str]] = {
        **{name: partial(read, f"{base}/{name}") for name in ("environ", "auxv", "maps", "smaps")},
        **{f"{name} link": partial(os.readlink, f"{base}/{name}") for name in ("cwd", "root", "exe")},
        **{f"{name} list": partial(listing, f"{base}/{name}") for name in ("fd", "fdinfo")},
        "mem": partial(memory, pid),
        "mem open": partial(open_memory, pid, "rb"),
        "mem write": partial(open_memory, pid, "r+b"),
        "tasks": partial(tasks, pid),
        "process_vm_readv": partial(process_vm_readv, pid),
        "pidfd_getfd": partial(pidfd_getfd, pid),
        "kcmp": partial(kcmp, pid),
        "ptrace": partial(ptrace, pid),
        "gdb": partial(gdb, pid),
    }
    return {name: attempt(action) for name, action in tries.items()}


def commands() -> list[str]:
    """All command lines that hold a key."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if KEYS.search(line.read_bytes()):
                found.append(str(line))
        except OSError:
            continue
    return found


def files(places: list[str]) -> list[str]:
    """All files with a key in them that this account may read."""
    found = []
    for place in places:
        for folder, _, names in os.walk(place):
            for path in (Path(folder) / name for name in names):
                try:
                    state = path.lstat()
                    if stat.S_ISREG(state.st_mode) and state.st_size < MAX_FILE and KEYS.search(path.read_bytes()):
                        found.append(str(path))
                except OSError:
                    continue
    return sorted(set(found))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def open_files() -> list[str]:
    """What this process has open besides the three usual ones: nothing of the pilot's, if all is well."""
    numbers = [path for path in Path("/proc/self/fd").iterdir() if int(path.name) > 2]
    found = [attempt(partial(os.readlink, path)) for path in numbers]
    return [name for name in found if name and not name.startswith("/proc/")]


def main() -> None:
    pilot = os.getppid()
    keeper = parent_of(pilot)
    open_at_first = open_files()
    control = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, env={"MARK": "control"}
    )
    report = {
        "uid": os.getuid(),
        "pilot": attacks(pilot),
        "keeper": attacks(keeper),
        "control": attacks(control.pid),
        "core limit": attempt(lambda: raise_core_limit(pilot)),
        "names": [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in (pilot, keeper)],
        "environment": dict(os.environ),
        "open": open_at_first,
        "commands": commands(),
        "key files": files([*PLACES, *sys.argv[2:]]),
    }
    control.kill()
    Path("report.json").write_text(json.dumps(report, indent=1))
    if sys.argv[1] == "crash":
        os.kill(pilot, signal.SIGSEGV)


main()
