"""Hands for one attempt: work directory, input, proxy file, payload under watchdog, output, wipe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from broker.identity import Credential
from schemas.job import JobStatus, lease_margin
from schemas.messages.common import MAX_INLINE_BYTES, MAX_SANDBOX_BYTES, SandboxFile, Usage

from .data import StagedFile, stage
from .limits import Limits
from .payload import PayloadSpec
from .runner import PayloadRunner
from .running import ExitCallback, Payload
from .sandbox import PickedFile, SandboxError, pick_output, read_picked, replace_file, write_file
from .shares import Share
from .task import Task
from .watchdog import Watchdog
from .workdir import WorkArea, free_disk_mb, wipe

PROXY_FILE = ".x509_proxy.pem"
"""In the work directory, mode 0600; hidden, so that no output pattern picks it by accident."""

DATA_MARGIN_MB = 100.0
"""Disk that must stay free beside input data; the watchdog's disk limit guards the rest."""

DISK_SHARE = 0.9
"""Of the free disk at its start a payload may use so much (divided by the processors it does not have)."""


class Stagehand:
    """Does the work on files and processes.

    Args:
        area: where work directories are made.
        runner: runs payloads.
        watchdog: watches them.
        site: name of the site, for the payload's environment.
        stores: folders of storage elements on this node.
        cpu_power: normalised power of a processor.
        processors: of the slot.
        slot_end: when the slot ends on the runner's clock; None for never.
    """

    def __init__(
        self,
        area: WorkArea,
        runner: PayloadRunner,
        watchdog: Watchdog,
        *,
        site: str,
        stores: Mapping[str, Path],
        cpu_power: float,
        processors: int,
        slot_end: float | None = None,
    ) -> None:
        self._area = area
        self._runner = runner
        self._watchdog = watchdog
        self._site = site
        self._stores = stores
        self._cpu_power = cpu_power
        self._processors = processors
        self._slot_end = slot_end
        self._latest: tuple[Credential, bytes] | None = None

    def prepare(self, task: Task) -> None:
        """Make the work directory and write what came with the match."""
        task.directory = self._area.fresh(str(task.match.job), task.match.attempt)
        for file in task.match.files:
            if file.content is not None:
                self.write_input(task, file, file.content)

    def write_input(self, task: Task, file: SandboxFile, content: bytes) -> None:
        """Write one input sandbox file."""
        write_file(_directory(task), input_name(file.name), content, executable=bool(file.mode & 0o100))

    def copy_data(self, task: Task, cancelled: Callable[[], bool]) -> list[StagedFile]:
        """Copy input data; takes as long as it takes (its own thread)."""
        directory = _directory(task)
        return [
            stage(file, directory, self._stores, margin_mb=DATA_MARGIN_MB, cancelled=cancelled)
            for file in task.match.data
        ]

    def start(self, task: Task, proxy: Credential, lease_end: float, on_exit: ExitCallback) -> Payload:
        """Start the payload with its owner's proxy."""
        directory, description, share = _directory(task), task.description, _share(task)
        # Not flushed to the disk: a work directory does not outlive its pilot.
        write_file(directory, PROXY_FILE, self._pem_of(proxy))
        spec = PayloadSpec(
            job_id=str(task.match.job),
            attempt=task.match.attempt,
            directory=directory,
            executable=PurePosixPath(description.executable).name
            if description.executable in description.input_sandbox
            else description.executable,
            arguments=tuple(description.split_arguments()),
            environment=description.environment,
            stdout=description.std_output,
            stderr=description.std_error,
            proxy=directory / PROXY_FILE,
            site=self._site,
            processors=share.processors,
            memory_mb=int(share.memory_mb),
            gpus=tuple(gpu.device for gpu in share.gpus),
        )
        task.payload = payload = self._runner.start(spec, on_exit)
        task.limits = self._limits(task, lease_end)
        self._watchdog.watch(payload, task.limits)
        return payload

    def replace_proxy(self, task: Task, proxy: Credential) -> None:
        """Put a new proxy in the place of a running payload's.

        Raises:
            OSError: the work directory is gone or full.
        """
        replace_file(_directory(task), PROXY_FILE, self._pem_of(proxy))

    def _pem_of(self, proxy: Credential) -> bytes:
        """As a file has it; payloads in a row mostly have the same owner."""
        if self._latest is None or self._latest[0] is not proxy:
            self._latest = proxy, proxy.to_pem()
        return self._latest[1]

    def set_limits(self, task: Task, lease_end: float) -> None:
        """The lease was renewed."""
        if task.payload is not None and task.limits is not None:
            # The disk limit stays that of its start: what it has written meanwhile must not count against it twice.
            margin = lease_margin(task.lease_seconds)
            task.limits = replace(task.limits, lease_end=lease_end, margin_seconds=margin)
            self._watchdog.set_limits(task.payload, task.limits)

    def _limits(self, task: Task, lease_end: float) -> Limits:
        share = task.processors / self._processors
        return Limits(
            cpu_seconds=task.description.cpu_time / self._cpu_power * task.processors,
            memory_mb=_share(task).memory_mb,
            disk_mb=max(task.description.disk_space or 0, free_disk_mb(_directory(task)) * DISK_SHARE * share),
            lease_end=lease_end,
            slot_end=self._slot_end,
            margin_seconds=lease_margin(task.lease_seconds),
        )

    def usage(self, task: Task) -> Usage:
        """Figures for a heartbeat."""
        if task.payload is None or task.outcome is not None:
            return task.usage()
        sample = self._watchdog.latest(task.payload)
        return Usage(
            cpu_seconds=sample.cpu_seconds,
            wall_seconds=max(sample.wall_seconds, self._runner.now() - task.payload.started),
            memory_mb=sample.memory_mb,
            disk_mb=sample.disk_mb,
            processors=task.processors,
        )

    def pick_outputs(self, task: Task) -> tuple[tuple[SandboxFile, ...], list[str]]:
        """The output sandbox (small files with their contents) and notes about what was left out."""
        if task.killed or (task.final is not None and task.final[0] is JobStatus.RESCHEDULED):
            return (), []
        directory = _directory(task)
        for file in directory.glob(PROXY_FILE + "*"):
            with contextlib.suppress(OSError):
                file.unlink()  # a private key never travels, whatever the patterns say
        picked = pick_output(directory, task.description.output_sandbox, MAX_SANDBOX_BYTES)
        files: list[SandboxFile] = []
        left = MAX_INLINE_BYTES
        for one in picked.files:
            content = _read(directory, one) if one.size <= left else None
            if content is not None:
                left -= len(content)
            files.append(
                SandboxFile(
                    name=one.name,
                    sha256=one.sha256,
                    size=one.size,
                    mode=0o755 if one.executable else 0o644,
                    content=content,
                )
            )
        return tuple(files), [f"Output {refused.name} left out: {refused.reason}" for refused in picked.refused]

    def too_large_to_inline(self, task: Task) -> list[tuple[SandboxFile, bytes]]:
        """Output files that go in chunks, with their contents."""
        directory = _directory(task)
        return [
            (file, read_picked(directory, PickedFile(file.name, file.size, file.sha256)))
            for file in task.outputs
            if file.content is None
        ]

    @staticmethod
    def wipe(task: Task) -> None:
        """Remove the work directory, whatever happened in it."""
        if task.directory is not None:
            wipe(task.directory)
            task.directory = None


def input_name(entry: str) -> str:
    """The name that an InputSandbox entry has in the work directory."""
    return PurePosixPath(entry).name


def _read(directory: Path, file: PickedFile) -> bytes | None:
    with contextlib.suppress(SandboxError):
        return read_picked(directory, file)
    return None


def _share(task: Task) -> Share:
    if task.share is None:
        raise SandboxError("the attempt has no share of the slot")
    return task.share


def _directory(task: Task) -> Path:
    if task.directory is None:
        raise SandboxError("the attempt has no work directory")
    return task.directory
