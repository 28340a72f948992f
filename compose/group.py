"""The root command group: knows its commands by name and imports one only when it is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from producers.settings import UserSettings

    from .main import Mount


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are named."""

    mounts: Sequence[Mount] = ()
    text = ""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own context class moved between versions
        """Names, in the order of the table."""
        del ctx
        return [mount.name for mount in self.mounts if find_spec(mount.module) is not None]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Import a command; while a shell completes names, a stand-in with its summary is enough."""
        mount = next((mount for mount in self.mounts if mount.name == cmd_name), None)
        if mount is None or find_spec(mount.module) is None:
            return None
        if ctx.resilient_parsing and not _is_named(ctx, cmd_name):
            return TyperCommand(name=mount.name, help=mount.summary)
        return load(mount)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The same text as without imports."""
        del ctx
        formatter.write(self.text + "\n")


def load(mount: Mount) -> Any:
    """Import one command."""
    from typer.main import get_command

    command: Any = get_command(import_module(mount.module).app)
    if mount.member:
        command = command.commands[mount.member]
    command.name = mount.name
    return command


def make_group(mounts: Sequence[Mount], text: str, settings: Callable[[], UserSettings]) -> Any:
    """The root command, ready to be called."""
    from typer.main import get_command

    app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback(context_settings={"help_option_names": ["--help", "-h"]})
    def root(ctx: typer.Context) -> None:
        ctx.obj = settings  # read by the first command that needs them

    group: Any = get_command(app)
    group.mounts = mounts
    group.text = text
    return group


def _is_named(ctx: Any, name: str) -> bool:
    words = [*getattr(ctx, "_protected_args", ()), *ctx.args]
    return name in words
