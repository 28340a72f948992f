"""From job descriptions on disk to one checked submission: the same check as the server's, then the local files.

Promises: nothing is sent from here; all faults come at once, with line and column; files are bounded before they are
read; each file travels once, however many jobs name it. Depends on nothing but ``schemas``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.jdl import MAX_JDL_BYTES, CheckedSubmission, JobDescription, check
from schemas.jdl.source import Source
from schemas.messages.common import MAX_INLINE_BYTES, MAX_SANDBOX_BYTES, MAX_SANDBOX_FILES, SandboxFile
from schemas.messages.user import MAX_DESCRIPTIONS, SubmitJobs
from schemas.registry import encode, type_of

from .errors import Fault, InvalidJobError

_REMOTE = ("LFN:", "SB:")


@dataclass(frozen=True, slots=True)
class Description:
    """One job description.

    Attributes:
        text: JDL.
        folder: where its InputSandbox entries are looked up.
        name: for messages.
    """

    text: str | bytes
    folder: Path
    name: str = ""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the input sandbox, read."""

    entry: str
    content: bytes = field(repr=False)
    executable: bool

    @property
    def sha256(self) -> str:
        """Its content address."""
        return hashlib.sha256(self.content).hexdigest()

    def as_sandbox_file(self, *, inline: bool) -> SandboxFile:
        """The form in which it travels."""
        return SandboxFile(
            name=self.entry,
            sha256=self.sha256,
            size=len(self.content),
            mode=0o755 if self.executable else 0o644,
            content=self.content if inline else None,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What will be sent.

    Attributes:
        message: the submission.
        uploads: files that go in chunks before it.
        count: jobs.
    """

    message: SubmitJobs
    uploads: tuple[LocalFile, ...]
    count: int


def read_description(source: Path | str) -> Description:
    """A description from a file (``Path``) or from a text (``str``, its files looked up in the current folder).

    Raises:
        InvalidJobError: the file cannot be read or is too large.
    """
    if isinstance(source, str):
        return Description(source, Path())
    try:
        with source.open("rb") as file:
            data = file.read(MAX_JDL_BYTES + 1)
    except OSError as error:
        raise InvalidJobError([Fault(f"cannot read {source}: {error.strerror}")]) from None
    return Description(data, source.parent, str(source))


def prepare(descriptions: Sequence[Description], key: str) -> Prepared:
    """Check the descriptions and read their local files.

    Raises:
        InvalidJobError: with every fault of every description.
    """
    if not 1 <= len(descriptions) <= MAX_DESCRIPTIONS:
        raise InvalidJobError([Fault(f"one submission takes 1 to {MAX_DESCRIPTIONS} descriptions")])
    faults: list[Fault] = []
    files: dict[str, LocalFile] = {}
    count = 0
    for number, description in enumerate(descriptions):
        checked = check(description.text)
        faults.extend(Fault(e.message, e.line, e.column, e.attribute or "", number) for e in checked.errors)
        count += len(checked.jobs)
        for entry in local_entries(checked):
            _take(entry, description, number, files, faults)
    if faults:
        raise InvalidJobError(faults)
    inline = sum(len(file.content) for file in files.values()) <= MAX_INLINE_BYTES
    message = SubmitJobs(
        descriptions=tuple(_as_text(description.text) for description in descriptions),
        files=tuple(file.as_sandbox_file(inline=inline) for file in files.values()),
        key=key,
    )
    limit = type_of(SubmitJobs).max_bytes
    if len(encode(message)) > limit:
        raise InvalidJobError(
            [Fault(f"the submission is larger than {limit >> 10} KiB; submit fewer descriptions at a time")]
        )
    uploads: dict[str, LocalFile] = {} if inline else {file.sha256: file for file in files.values()}
    return Prepared(message, tuple(uploads.values()), count)


def local_faults(description: Description, number: int, checked: CheckedSubmission) -> list[Fault]:
    """What is wrong with the local files that a checked description names."""
    faults: list[Fault] = []
    for entry in local_entries(checked):
        _take(entry, description, number, {}, faults)
    return faults


def local_entries(checked: CheckedSubmission) -> Iterator[str]:
    """InputSandbox entries that are files here, each once."""
    seen: set[tuple[str, ...]] = set()
    entries: dict[str, None] = {}
    for job in checked.jobs:
        if job.input_sandbox not in seen:
            seen.add(job.input_sandbox)
            entries.update(dict.fromkeys(_local(job)))
    return iter(entries)


def _local(job: JobDescription) -> Iterator[str]:
    return (entry for entry in job.input_sandbox if not entry.startswith(_REMOTE))


def _take(entry: str, description: Description, number: int, files: dict[str, LocalFile], faults: list[Fault]) -> None:
    line, column = place_of(entry, description.text)

    def fault(message: str) -> None:
        faults.append(Fault(message, line, column, "InputSandbox", number))

    try:
        file = _read(entry, description.folder)
    except OSError as error:
        fault(f"cannot read {entry!r}: {error.strerror or error}")
        return
    except ValueError as error:
        fault(f"{entry!r} {error}")
        return
    before = files.setdefault(entry, file)
    if before != file:
        fault(f"another description names another file {entry!r}; submit them apart or rename one")
    elif len(files) > MAX_SANDBOX_FILES:
        fault(f"more than {MAX_SANDBOX_FILES} files; pack them into an archive")
        files.pop(entry)


def _read(entry: str, folder: Path) -> LocalFile:
    path = folder / Path(entry).expanduser()
    # O_NONBLOCK: a named pipe must not hang us; regular files do not care.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("is no regular file; pack folders into an archive")
        content = file.read(MAX_SANDBOX_BYTES + 1)
    if len(content) > MAX_SANDBOX_BYTES:
        raise ValueError(f"is larger than {MAX_SANDBOX_BYTES >> 20} MiB; put it on a storage element (InputData)")
    return LocalFile(entry, content, bool(state.st_mode & stat.S_IXUSR))


def place_of(entry: str, text: str | bytes) -> tuple[int, int]:
    """Line and column of an InputSandbox entry; of the attribute where the entry is made of parameters."""
    source = Source(_as_text(text))
    attribute = re.search(r"\binputsandbox\s*=", source.text, re.IGNORECASE)
    if attribute is None:
        return 1, 1
    found = source.text.find(entry, attribute.end())
    if found < 0:
        return source.place(attribute.start())
    return source.place(found - 1 if source.text[found - 1] == '"' else found)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace").removeprefix("\ufeff")
