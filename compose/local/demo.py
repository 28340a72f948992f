"""``pilotage demo``: the whole chain on this machine, from nothing to results and back to nothing.

Promises: everything lies in one temporary directory that is removed at the end; no process outlives the command,
whether it ends well, fails, or is interrupted or killed; nothing of the user's own (proxy, configuration, stack) is
read or changed. The jobs are those of ``examples/``; they go the way of every user's job, through the Python client.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from broker.identity import create_proxy, load_credential, save_credential
from producers import Client
from producers.commands.printing import Column, print_table
from schemas.errors import PermanentError
from schemas.job import JobStatus

from ..settings import load_user_settings
from .configs import STORAGE_ELEMENT
from .demo_progress import progress
from .ending import undisturbed
from .examples import example, shown_example
from .stack import Stack

if TYPE_CHECKING:
    from producers import UserSettings
    from schemas.messages.service import JobSummary

    from .layout import Layout

PILOTS = 2
LFN = "/local/demo/seeds.txt"
JOBS_TIMEOUT = 120.0
"""Seconds for the jobs; ten on two quiet processors."""

PROXY_LIFETIME = dt.timedelta(hours=1)
"""The demonstration takes less than a minute; a slow machine may take some."""

_GRID_VARIABLES = ("X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "X509_CERT_DIR", "X509_VOMS_DIR")


def run() -> bool:
    """Run the demonstration; says whether everything went well.

    Raises:
        PilotageError: the stack did not come up, or did not answer.
    """
    begin = time.monotonic()
    with _own_environment(), _folder() as folder:
        stack = Stack(folder / "stack", dies_with_parent=True)
        try:
            _say("Starting a private stack: broker over TLS, services, two pilots")
            stack.up(_say, pilots=PILOTS)
            good = _work(stack, folder)
        finally:
            _say("\nStopping everything")
            with undisturbed():
                stack.down(_say)
    _say(f"\nDone in {time.monotonic() - begin:.0f} s; nothing is left running." if good else "\nIt did not go well.")
    _say(
        "\nWhere to go next:\n"
        "  pilotage up                     the same stack, to keep\n"
        "  pilotage proxy init             become its user\n"
        f"  pilotage submit {shown_example('hello.jdl')}\n"
        "  docs/tutorial.md                the rest, step by step"
    )
    return good


def _work(stack: Stack, folder: Path) -> bool:
    layout = stack.layout
    settings = _become_user(layout)
    with Client(settings) as client:
        _register_seeds(client, layout)
        descriptions = [example("pi.jdl"), example("hello.jdl")]
        _say(f"\nSubmitting {', '.join(path.name for path in descriptions)} as {client.identity}")
        parts, hello = (client.submit([path]).ids for path in descriptions)
        jobs = [*parts, *hello]
        with progress(len(jobs)) as on_change:
            statuses = client.wait(jobs, JOBS_TIMEOUT, on_change)
        good = all(status is JobStatus.DONE for status in statuses.values())
        if good:
            _show_results(client, parts, hello[0], folder / "output")
        _show_jobs(client.jobs(jobs), stack.pilot_names())
        for job in [job for job, status in statuses.items() if status is not JobStatus.DONE]:
            _explain(client, job)
    return good


def _become_user(layout: Layout) -> UserSettings:
    """Make the demonstration's proxy, as ``pilotage proxy init`` does, and settings for its stack."""
    user = load_credential(layout.user_certificate, key=layout.user_key)
    proxy = create_proxy(
        user.ders, user.key, lifetime=PROXY_LIFETIME, limited=False, now=dt.datetime.now(dt.UTC)
    )  # fmt: skip
    path = layout.user / "proxy.pem"
    save_credential(proxy, path)
    os.environ["X509_USER_PROXY"] = str(path)
    return load_user_settings({"PILOTAGE_CONFIG": str(layout.client_config)})


def _register_seeds(client: Client, layout: Layout) -> None:
    """Put the input data onto the storage element and tell the catalog."""
    file = layout.storage / LFN.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(example("seeds.txt"), file)
    client.register_replica(LFN, STORAGE_ELEMENT, file.as_uri(), file.stat().st_size)


def _show_results(client: Client, parts: Sequence[int], hello: int, folder: Path) -> None:
    files = [path for job in parts for path in client.output(job, folder) if path.name.startswith("hits-")]
    greeting = [path for path in client.output(hello, folder) if path.name == "hello.txt"]
    if len(files) != len(parts) or not greeting:
        raise PermanentError("the jobs are done, but outputs are missing")
    combined = subprocess.run(
        [sys.executable, example("pi.py"), *map(str, files)], capture_output=True, text=True, timeout=60, check=False
    )
    if combined.returncode != 0:
        raise PermanentError(f"the outputs cannot be combined: {combined.stderr.strip()[-500:]}")
    _say(f"\n{combined.stdout.strip()}")
    _say(greeting[0].read_text(encoding="utf-8", errors="replace").strip())


def _show_jobs(jobs: Sequence[JobSummary], names: Mapping[str, str]) -> None:
    columns = [
        Column("JOB", right=True), Column("NAME"), Column("STATUS"), Column("PILOT"),
        Column("WAITED s", right=True), Column("RAN s", right=True), Column("CPU s", right=True),
    ]  # fmt: skip
    _say("")
    print_table(columns, [_row(job, names) for job in sorted(jobs, key=lambda job: job.job)])


def _row(job: JobSummary, names: Mapping[str, str]) -> list[str]:
    waited = "" if job.started is None else f"{job.started - job.submitted:.2f}"
    ran = "" if job.started is None or job.ended is None else f"{job.ended - job.started:.2f}"
    pilot = names.get(job.pilot.partition(".")[0], job.pilot)
    return [str(job.job), job.name, job.status.value, pilot, waited, ran, f"{job.usage.cpu_seconds:.2f}"]


def _explain(client: Client, job: int) -> None:
    """Say why a job did not end well."""
    detail = client.job(job)
    last = detail.history[-1] if detail.history else None
    why = f"{last.minor or last.status.value}: {last.cause}" if last is not None else "no history"
    _say(f"job {job}: {why}")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pilotage-demo-"))
    try:
        yield folder
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_environment() -> Iterator[None]:
    """Within, the grid's variables name nothing of the user's own: the client would prefer them to its settings."""
    before = {name: os.environ.pop(name) for name in _GRID_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        for name in _GRID_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _say(line: str) -> None:
    print(line, flush=True)
