"""The command line, from the applications themselves."""

# ruff: noqa: SLF001 - reads parsers that are nobody's interface
from __future__ import annotations

import argparse
import enum
from collections.abc import Iterator
from typing import Any

from broker.authorization import SERVICES
from compose import serve
from compose.group import load
from compose.main import available
from pilot import __main__ as pilot

from .markdown import codes, generated, table

_HEAD = """\
# Command line

{generated}

`pilotage` is for users and operators, `pilotage-serve` runs services, `pilotage-pilot` runs a pilot. Every command has
`--help`. Exit codes and the forms of `--output` are in [exit codes](exit-codes.md), settings in
[configuration](configuration.md). `pilotage --install-completion` installs completion for your shell.
"""


def render() -> str:
    """The page."""
    parts = [_HEAD.format(generated=generated("the applications in producers/commands, compose and pilot"))]
    for mount in available():
        for path, command in _commands(mount.name, load(mount)):
            parts.append(_command(path, command))
    parts.append(_argparse("pilotage-serve", serve._parser(), f"Services: {codes(sorted(SERVICES))}."))
    parts.append(_argparse("pilotage-pilot", pilot._parser(), ""))
    return "\n".join(parts)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _commands(f"{path} {name}", inner)


def _command(path: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter for parameter in command.params if parameter.param_type_name == "option" and not parameter.hidden
    ]
    usage = " ".join(["pilotage", path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    rows = [(f"`{_name(parameter)}`", parameter.help or "", "") for parameter in arguments]
    rows += [(codes(_spellings(parameter)), parameter.help or "", _default(parameter)) for parameter in options]
    text = " ".join((command.help or "").split())
    listing = table(("", "Meaning", "Default"), rows) + "\n" if rows else ""
    return f"## `pilotage {path}`\n\n{text}\n\n```\n{usage}\n```\n" + (f"\n{listing}" if listing else "")


def _name(parameter: Any) -> str:
    return (parameter.metavar or parameter.name.upper()).strip("[].")


def _argument(parameter: Any) -> str:
    name = _name(parameter) + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _spellings(parameter: Any) -> list[str]:
    choices = getattr(parameter.type, "choices", None)
    if parameter.is_flag:
        value = ""
    elif choices:
        value = " " + "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    else:
        value = " " + (parameter.metavar or parameter.type.name.upper().replace(" RANGE", ""))
    return [f"{spelling}{value}" for spelling in [*parameter.opts, *parameter.secondary_opts]]


def _default(parameter: Any) -> str:
    value = parameter.default
    if value in (None, False, "", ()) or callable(value) or parameter.required:
        return ""
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _argparse(program: str, parser: argparse.ArgumentParser, text: str) -> str:
    rows = []
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        names = (
            codes(f"{name}{value}" for name in action.option_strings) or f"`{action.metavar or action.dest.upper()}`"
        )
        rows.append((names, action.help or ""))
    return f"## `{program}`\n\n{parser.description}{' ' + text if text else ''}\n\n{table(('', 'Meaning'), rows)}\n"
