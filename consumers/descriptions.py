"""What is wrong with job descriptions, as those are told who sent them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.jdl import Template
from schemas.messages.service import RefusalDetail

MAX_ERRORS = 100
"""Errors told at once: nobody reads more, and the answer stays small."""


def template_errors(templates: Sequence[Template]) -> list[RefusalDetail]:
    """All errors of some descriptions; with several each names its own."""
    several = len(templates) > 1
    errors = []
    for number, template in enumerate(templates, 1):
        for error in template.errors:
            told = detail(error)
            if several:
                told = msgspec.structs.replace(told, message=f"description {number}: {told.message}")
            errors.append(told)
    return errors


def detail(error: object) -> RefusalDetail:
    """An error or warning with its place in the text."""
    return msgspec.convert(error, RefusalDetail, from_attributes=True)
