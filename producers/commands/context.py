"""What every command has: settings from the composition root, and the one way to print."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ..settings import UserSettings

if TYPE_CHECKING:
    from ..client import Client


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people, for programs, or ids only (one per line).")
]


def settings_of(ctx: typer.Context) -> UserSettings:
    """The settings; the composition root gives them, or a function that reads them when they are needed.

    Raises:
        ConfigurationError: they cannot be read.
    """
    given: object = ctx.obj
    if isinstance(given, UserSettings):
        return given
    if callable(given):
        made: object = given()
        if isinstance(made, UserSettings):
            return made
    return UserSettings()


def client_of(ctx: typer.Context) -> Client:
    """A client with these settings, not logged in yet."""
    from ..client import Client

    return Client(settings_of(ctx))


def make_app(name: str, help_text: str) -> typer.Typer:
    """A command group that looks like all the others."""
    return typer.Typer(
        name=name, help=help_text, no_args_is_help=True, rich_markup_mode=None, add_completion=False,
        pretty_exceptions_enable=False,
    )  # fmt: skip
