"""registry: who and what there is, changed by operators and by the sources of the VO."""

from __future__ import annotations

from typing import ClassVar

from .batch import Consumer


class RegistryKeeper(Consumer):
    """The consumer."""

    name = "registry"
    handlers: ClassVar = {}
