"""Makers of the generated reference: each page is a function without arguments that returns its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from consumers.store import reference as store
from schemas.jdl import reference as jdl

from . import asyncapi, audit, authorization, cli, configuration, messages, topology

PAGES: Mapping[str, Callable[[], str]] = {
    "schemas/asyncapi.yaml": asyncapi.render,
    "docs/reference/messages.md": messages.render,
    "docs/reference/authorization.md": authorization.render,
    "docs/reference/audit.md": audit.render,
    "docs/reference/topology.md": topology.render,
    "docs/reference/store.md": store.render,
    "docs/reference/cli.md": cli.render,
    "docs/reference/configuration.md": configuration.render,
    "docs/reference/jdl.md": jdl.render,
}
"""Path in the repository → maker. `make docs` writes them; a test proves that none has drifted."""
