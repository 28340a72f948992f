"""Who asks: the submission tool's commands and its Python client.

``from producers import Client`` is the whole public door; it is imported on first use, so that ``producers`` itself
costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client, Submission
    from .errors import InvalidJobError
    from .settings import BrokerSettings, UserSettings

__all__ = ["BrokerSettings", "Client", "InvalidJobError", "Submission", "UserSettings"]

_HOMES = {
    "Client": "client",
    "Submission": "client",
    "InvalidJobError": "errors",
    "BrokerSettings": "settings",
    "UserSettings": "settings",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # here, so that nothing is imported for nothing

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
