"""The job description language: text in, checked job descriptions out.

Promises: :func:`check` and :func:`parse` never raise on bad input, take time linear in the text, and find all errors
of a text at once, each with its line and column. The same code runs in the submission tool and in the server. Nothing
here reads files or clocks; whether sites, data or rights exist is decided elsewhere.

Follows ClassAd lexing with DIRAC's habits; docs/reference/jdl.md, made from the table in ``attributes``, says how.
"""

from __future__ import annotations

import msgspec

from .attributes import ATTRIBUTES, Attribute
from .description import JobDescription, fill_job_id, unparse
from .parametric import MAX_PARAMETRIC_JOBS
from .parser import parse_statements
from .source import MAX_JDL_BYTES, JdlError, read_source
from .template import Template, build

__all__ = [
    "ATTRIBUTES",
    "MAX_JDL_BYTES",
    "MAX_PARAMETRIC_JOBS",
    "Attribute",
    "CheckedSubmission",
    "JdlError",
    "JobDescription",
    "Template",
    "check",
    "fill_job_id",
    "parse",
    "unparse",
]


class CheckedSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """What a text says.

    Attributes:
        jobs: The jobs, expanded; empty when there are errors.
        errors: Every error, by place.
        warnings: What is accepted but probably not meant so, by place.
    """

    jobs: tuple[JobDescription, ...]
    errors: tuple[JdlError, ...]
    warnings: tuple[JdlError, ...]

    def as_output(self) -> dict[str, object]:
        """Return what ``submit --check --output json`` prints."""
        return {
            "jobs": [job.attributes() for job in self.jobs],
            "errors": [msgspec.to_builtins(error) for error in self.errors],
            "warnings": [msgspec.to_builtins(warning) for warning in self.warnings],
        }


def parse(text: str | bytes, *, vo: str | None = None) -> Template:
    """Check a text and return its template, from which jobs are expanded in slices.

    Args:
        text: The description; bytes must be UTF-8.
        vo: The VO that it is submitted for, where known: input data must then lie below ``/<vo>/``.
    """
    problems = read_source(text)
    if problems.source.text.strip():
        return build(parse_statements(problems), problems, vo=vo)
    if not problems.errors:
        problems.error(0, "The job description is empty")
    return Template(errors=problems.errors)


def check(text: str | bytes, *, vo: str | None = None) -> CheckedSubmission:
    """Check a text and expand all its jobs; arguments as for :func:`parse`."""
    template = parse(text, vo=vo)
    return CheckedSubmission(jobs=template.expand(), errors=template.errors, warnings=template.warnings)
