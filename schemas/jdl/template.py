"""From statements to a checked template of one or many jobs.

Promises: :func:`build` reports every fault of the attributes with the place of its value; a template without errors
expands any slice of its jobs without any further fault. Attributes without placeholders are checked once; the others
are checked for every job, unless the values are so plain that a few of them speak for all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from .attributes import (
    ALIASES,
    BY_NAME,
    MAX_EXTRA_ATTRIBUTES,
    PARAMETRIC,
    SERVER_SET,
    WITHOUT_EFFECT,
    Attribute,
    Kind,
    closest_name,
)
from .checks import check
from .description import JobDescription, map_texts
from .evaluate import EvaluationError, Evaluator
from .number_tags import read_number_tags
from .parametric import PLACEHOLDER, ExpansionError, Vectors, expand_plain, read_vectors
from .reading import Reader
from .together import contradictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .checks import FieldValue, Plain
    from .source import JdlError, Problems
    from .tree import Statement

MAX_DESCRIPTION_BYTES: Final = 128 * 1024
"""Of one job's filled description: twice the largest text, so that nothing written out by hand is refused."""

_PLAIN_ELEMENT: Final = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
_TOLERANT: Final = frozenset({Kind.TEXT, Kind.WORD, Kind.FILE, Kind.RESULT_FILES, Kind.LOCAL_FILES, Kind.OUTPUT_FILES})
"""Kinds for which any plain element is as good as another, but for its length."""
_NAMES: Final = {attribute.field: attribute.name for attribute in BY_NAME.values()}


@dataclass(frozen=True, slots=True)
class _Moving:
    """An attribute whose value changes from job to job."""

    attribute: Attribute
    value: Plain
    offset: int
    item_offsets: list[int]


@dataclass(frozen=True)
class Template:
    """A checked description of ``count`` jobs, not yet expanded.

    Attributes:
        count: How many jobs it makes; 0 when there are errors.
        errors: What is wrong, by place.
        warnings: What is probably not meant so, by place.
    """

    count: int = 0
    errors: tuple[JdlError, ...] = ()
    warnings: tuple[JdlError, ...] = ()
    _fixed: Mapping[str, FieldValue] = field(default_factory=dict)
    _moving: tuple[_Moving, ...] = ()
    _extra: dict[str, object] = field(default_factory=dict)
    _moving_extra: bool = False
    _vectors: Vectors | None = None

    def expand(self, start: int = 0, stop: int | None = None) -> tuple[JobDescription, ...]:
        """Return the jobs ``start`` to ``stop`` (not included), as a slice of all."""
        return tuple(self._job(number) for number in range(*slice(start, stop).indices(self.count)))

    def _job(self, number: int) -> JobDescription:
        fields: dict[str, FieldValue] = dict(self._fixed)
        extra: object = self._extra
        if self._vectors is not None:
            for moving in self._moving:
                value = expand_plain(moving.value, self._vectors, number)
                fields[moving.attribute.field] = check(moving.attribute, value, _ignore)
            if self._moving_extra:
                extra = map_texts(self._extra, partial(self._vectors.fill, number=number))
        return JobDescription(**read_number_tags(fields), extra=extra)  # type: ignore[arg-type]  # each value was checked by its row


def _ignore(index: int | None, message: str) -> None:
    """Faults were reported when the template was built."""


def build(statements: Iterable[Statement], problems: Problems, *, vo: str | None = None) -> Template:
    """Check the statements of a description against the table and make its template."""
    return _Builder(tuple(statements), problems, vo).build()


class _Builder:
    def __init__(self, statements: tuple[Statement, ...], problems: Problems, vo: str | None) -> None:
        self._problems = problems
        self._vo = vo
        self._told: set[tuple[int, str]] = set()
        self._evaluator = Evaluator(statements)
        self._reader = Reader(self._evaluator, self._warn)
        self._last = {self._canonical(statement): statement for statement in statements}
        self._fixed: dict[str, FieldValue] = {}
        self._moving: list[_Moving] = []
        self._offsets: dict[str, int] = {}
        self._extra: dict[str, object] = {}
        self._vectors: Vectors | None = None
        self._parametric = False
        for statement in statements:
            if self._last[self._canonical(statement)] is not statement:
                self._problems.warn(
                    statement.offset, f"{statement.name} is given again below; the last one counts", statement.name
                )

    @staticmethod
    def _canonical(statement: Statement) -> str:
        name = statement.name.lower()
        return ALIASES.get(name, name).lower()

    def _warn(self, offset: int, message: str, attribute: str | None = None) -> None:
        self._problems.warn(offset, message, attribute)

    def build(self) -> Template:
        parametric = [s for key, s in self._last.items() if key.partition(".")[0] in PARAMETRIC]
        self._parametric = bool(parametric)
        self._vectors = read_vectors(parametric, self._evaluator, self._problems)
        for key, statement in self._last.items():
            if key.partition(".")[0] in PARAMETRIC or statement.value is None or self._problems.full:
                continue
            if key in BY_NAME:
                self._known(BY_NAME[key], statement)
            else:
                self._unknown(key, statement)
        if "executable" not in self._last:
            self._problems.error(0, "Executable is missing: the program to run", "Executable")
        if self._moving or self._touched(self._extra):
            self._check_jobs()
        elif not self._problems.errors:
            self._check_together(self._fixed, "")
            self._check_size(self._fixed, self._extra, "")
        return self._template()

    def _template(self) -> Template:
        errors = self._problems.errors
        count = 0 if errors else (self._vectors.count if self._vectors is not None else 1)
        moving_extra = self._touched(self._extra)
        return Template(
            count,
            errors,
            self._problems.warnings,
            self._fixed,
            tuple(self._moving),
            self._extra,
            moving_extra,
            self._vectors,
        )

    # One attribute

    def _known(self, attribute: Attribute, statement: Statement) -> None:
        assert statement.value is not None  # noqa: S101 - build() left these out; for the type checker
        try:
            value, item_offsets = self._reader.read(attribute, statement.value)
        except EvaluationError as error:
            self._problems.error(error.offset, error.message, attribute.name)
            return
        if value is None:
            if attribute.name == "Executable":
                self._problems.error(statement.value.offset, "Executable is undefined", attribute.name)
            return
        if attribute.kind is Kind.TAG_EXPRESSION and (PLACEHOLDER.search(str(value)) or "%j" in str(value)):
            message = f"{attribute.name} is the same for all jobs of a description; placeholders are not replaced in it"
            self._problems.error(statement.value.offset, message, attribute.name)
            return
        entry = _Moving(attribute, value, statement.value.offset, item_offsets)
        self._offsets[attribute.field] = entry.offset
        self._check_placeholders(entry)
        if self._touched(value):
            self._moving.append(entry)
        else:
            self._fixed[attribute.field] = self._checked(entry, value, "")

    def _checked(self, entry: _Moving, value: Plain, of_job: str) -> FieldValue:
        """Check one value; the same fault of many jobs is told once."""

        def report(index: int | None, message: str) -> None:
            offset = entry.offset if index is None else (entry.item_offsets[index:] or [entry.offset])[0]
            if (offset, message) not in self._told:
                self._told.add((offset, message))
                self._problems.error(offset, message + of_job, entry.attribute.name)

        checked = check(entry.attribute, value, report)
        if self._vo is not None and entry.attribute.kind is Kind.LFNS and isinstance(checked, tuple):
            for index, lfn in enumerate(checked):
                if not lfn.startswith(f"/{self._vo}/"):
                    report(index, f"{lfn[:80]!r} in {entry.attribute.name} does not lie below /{self._vo}/")
        return checked

    def _check_placeholders(self, entry: _Moving) -> None:
        texts = [entry.value] if isinstance(entry.value, str) else entry.value
        if not isinstance(texts, (list, tuple)):
            return
        for text in texts:
            for match in () if self._parametric else PLACEHOLDER.finditer(text):
                if match["name"] is not None:
                    message = f"{match.group()} stays as it is: there are no Parameters"
                    self._warn(entry.offset, message, entry.attribute.name)
            for unknown in self._vectors.unknown(text) if self._vectors is not None else ():
                message = f"{unknown} has no vector Parameters.{unknown[2:-2]}"
                self._problems.error(entry.offset, message, entry.attribute.name)
            if "_PARAM_" in text:
                self._warn(entry.offset, "_PARAM_ is not replaced here; the placeholder is %s", entry.attribute.name)

    def _unknown(self, key: str, statement: Statement) -> None:
        assert statement.value is not None  # noqa: S101 - build() left these out; for the type checker
        name, offset = statement.name, statement.offset
        if key in SERVER_SET:
            self._warn(offset, f"{name} is known from your login; what stands here is not used", name)
            return
        if key in WITHOUT_EFFECT:
            self._warn(offset, f"{name} has no effect here: {WITHOUT_EFFECT[key]}", name)
        else:
            close = closest_name(name)
            if close is not None:
                self._problems.error(offset, f"Unknown attribute {name}; did you mean {close}?", name)
                return
            self._warn(offset, f"{name} has no meaning here; it is kept with the job", name)
        if len(self._extra) >= MAX_EXTRA_ATTRIBUTES:
            self._problems.error(offset, f"More than {MAX_EXTRA_ATTRIBUTES} attributes without meaning here", name)
            return
        try:
            value, reason = self._reader.read_extra(statement.value, statement.written)
        except EvaluationError as error:
            self._problems.error(error.offset, error.message, name)
            return
        if reason is not None and key not in WITHOUT_EFFECT:
            self._warn(statement.value.offset, f"{name} is kept as text: {reason}", name)
        self._extra[name] = value

    def _touched(self, value: object) -> bool:
        if self._vectors is None:
            return False
        if isinstance(value, str):
            return self._vectors.touches(value)
        if isinstance(value, dict):
            return any(self._touched(item) for item in value.values())
        return isinstance(value, (tuple, list)) and any(self._touched(item) for item in value)

    # All jobs

    def _check_jobs(self) -> None:
        vectors = self._vectors
        if vectors is None:
            return
        for number in self._numbers_to_check(vectors):
            if self._problems.full:
                return
            fields = self._check_job(number, vectors)
            if fields is not None and not self._problems.errors:
                self._check_together(fields, f" (job {number})")

    def _check_size(self, fields: Mapping[str, FieldValue], extra: object, of_job: str) -> None:
        """Placeholders can blow a small text up a thousandfold; what travels and is kept is the filled form."""
        size = len(msgspec.json.encode((fields, extra)))
        if size > MAX_DESCRIPTION_BYTES:
            message = f"The filled description has {size} bytes, at most {MAX_DESCRIPTION_BYTES} are allowed{of_job}"
            self._problems.error(0, message)

    def _check_job(self, number: int, vectors: Vectors) -> dict[str, FieldValue] | None:
        fields = dict(self._fixed)
        try:
            extra = map_texts(self._extra, partial(vectors.fill, number=number))
        except ExpansionError as error:
            self._problems.error(0, str(error))
            return None
        for entry in self._moving:
            try:
                value = expand_plain(entry.value, vectors, number)
            except ExpansionError as error:
                self._problems.error(entry.offset, str(error), entry.attribute.name)
                return None
            fields[entry.attribute.field] = self._checked(entry, value, f" (job {number})")
        self._check_size(fields, extra, f" (job {number})")
        return fields

    def _numbers_to_check(self, vectors: Vectors) -> Iterable[int]:
        """Return the jobs that speak for all: those with the longest value of each vector, if values are plain."""
        if any(entry.attribute.kind not in _TOLERANT for entry in self._moving):
            return range(vectors.count)
        numbers = {0, vectors.count - 1}
        for vector in vectors.values.values():
            texts = [element for element in vector if isinstance(element, str)]
            if len(texts) < len(vector) or not all(map(_PLAIN_ELEMENT.fullmatch, texts)):
                return range(vectors.count)
            numbers.add(max(range(len(texts)), key=lambda number: len(texts[number])))
        return sorted(numbers) if len(vectors.values) <= 1 else self._or_all(numbers, vectors)

    def _or_all(self, numbers: set[int], vectors: Vectors) -> Iterable[int]:
        """With several vectors the longest text may be of another job: fall back when lengths come near a limit."""
        longest = sum(max(map(len, vector)) for vector in vectors.values.values())
        for entry in self._moving:
            texts = entry.value if isinstance(entry.value, tuple) else (str(entry.value),)
            placeholders = max((len(PLACEHOLDER.findall(text)) for text in texts), default=0)
            if max(map(len, texts), default=0) + (longest + 6) * placeholders > entry.attribute.max_length:
                return range(vectors.count)
        return sorted(numbers)

    def _check_together(self, fields: Mapping[str, FieldValue], of_job: str) -> None:
        """Check attributes that must fit each other."""
        read = read_number_tags(fields, self._doubt, lambda field, message: self._conflict(field, message + of_job))
        for field_name, message in contradictions(read):
            self._conflict(field_name, message + of_job)
        streams = fields.get("std_output", "std.out"), fields.get("std_error", "std.err")
        if streams[0] == streams[1]:
            self._warn(self._offsets.get("std_error", 0), "StdOutput and StdError are the same file", "StdError")

    def _conflict(self, field: str, message: str) -> None:
        self._problems.error(self._offsets.get(field, 0), message, _NAMES[field])

    def _doubt(self, field: str, message: str) -> None:
        self._warn(self._offsets.get(field, 0), message, _NAMES[field])
