"""What the commands on the registry share: options, and how entries and their changes are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidJobError
from .context import Output, client_of
from .exit_codes import ExitCode
from .printing import Column, harmless, print_fault, print_json, print_table

if TYPE_CHECKING:
    from schemas.entries import AnyEntry
    from schemas.messages.registrar import Difference, EntryChange, EntryKind, ListedEntry, Operation

    from ..client import Client

ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it stays in the history.", show_default=False)]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Even if no operator is left, or you lock yourself out.")]
ContainsOption = Annotated[str, typer.Option("--contains", help="Only those with this text anywhere.")]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="DN or nickname.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name.")]
FieldOption = Annotated[
    list[str], typer.Option("--queue", help="A queue: NAME KEY=VALUE …; see the reference of computing elements.")
]

Fields = Sequence[tuple[str, str]]
"""Columns of a table: title and field."""


def change(
    ctx: typer.Context,
    changes: Sequence[EntryChange],
    *,
    reason: str,
    dry_run: bool,
    output: Output,
    force: bool = False,
    client: Client | None = None,
) -> None:
    """Make changes and print what became different."""
    if client is None:
        with client_of(ctx) as own:
            change(ctx, changes, reason=reason, dry_run=dry_run, output=output, force=force, client=own)
        return
    try:
        answer = client.registry.change(changes, reason, dry_run=dry_run, force=force)
    except InvalidJobError as error:
        if output is Output.JSON:
            raise
        for fault in error.faults:
            print_fault(fault, "", None)
        raise typer.Exit(ExitCode.USAGE) from None
    for note in answer.notes:
        typer.echo(f"note: {harmless(note)}", err=True)
    if output is Output.JSON:
        print_json(answer)
    elif output is Output.QUIET:
        names = dict.fromkeys(entry.key[1] for one in answer.differences if (entry := one.after or one.before))
        typer.echo("".join(f"{harmless(name)}\n" for name in names), nl=False)
    else:
        print_differences(answer.differences, answer.omitted, dry_run=dry_run)


def print_differences(differences: Sequence[Difference], omitted: int, *, dry_run: bool) -> None:
    """One line for each entry that became different."""
    for one in differences:
        typer.echo(harmless(difference_line(one)))
    if omitted:
        typer.echo(f"… and {omitted} more")
    if not differences:
        typer.echo("Nothing changes." if dry_run else "Nothing changed.", err=True)
    elif dry_run:
        typer.echo("This was a dry run: nothing was changed.", err=True)


def difference_line(one: Difference) -> str:
    """``+ user /CN=x nickname=x``, ``- site S``, ``~ group g share: 1 → 5``."""
    before, after = one.before, one.after
    entry = after or before
    if entry is None:
        return ""
    kind, name, scope = entry.key
    title = " ".join(word for word in (kind, name, scope) if word)
    if before is None or after is None:
        values = " ".join(f"{key}={shown(value)}" for key, value in fields_of(entry).items() if told(value))
        return f"{'+' if before is None else '-'} {title} {values}".rstrip()
    old, new = fields_of(before), fields_of(after)
    changed = [f"{key}: {shown(old.get(key))} → {shown(new.get(key))}" for key in new if old.get(key) != new[key]]
    return f"~ {title}  {'; '.join(changed)}"


def fields_of(entry: AnyEntry) -> Mapping[str, Any]:
    """The fields of an entry, without those that name it."""
    import msgspec

    from schemas.entries import key_fields

    found: dict[str, Any] = msgspec.to_builtins(entry)
    names = key_fields(entry) | {"kind"}
    every = {name: found.get(name) for name in type(entry).__struct_fields__}
    return {name: value for name, value in every.items() if name not in names}


def told(value: object) -> bool:
    """Whether a value is worth a word."""
    return value not in (None, "", False) and value != [] and value != ()


def shown(value: object) -> str:
    """A value for people."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(one.get("name", "") if isinstance(one, dict) else str(one) for one in value) or "-"
    return str(value)


def list_entries(
    ctx: typer.Context,
    kind: EntryKind,
    fields: Fields,
    output: Output,
    *,
    contains: str = "",
    group: str = "",
) -> None:
    """Print all entries of a kind."""
    with client_of(ctx) as client:
        found = list(client.registry.entries(kind, contains=contains, group=group))
    print_entries(found, fields, output)


def print_entries(found: Sequence[ListedEntry], fields: Fields, output: Output) -> None:
    """Entries in a table; ``groups`` and ``sources`` are fields, too."""
    if output is Output.JSON:
        print_json(found)
    elif output is Output.QUIET:
        typer.echo("".join(f"{harmless(one.entry.key[1])}\n" for one in found), nl=False)
    elif not found:
        typer.echo("There are none.", err=True)
    else:
        columns = [Column(title, elastic=field in {"dn", "reason", "sends", "sites"}) for title, field in fields]
        print_table(columns, [[_cell(one, field) for _, field in fields] for one in found])


def _cell(one: ListedEntry, field: str) -> str:
    if field in {"groups", "sources"}:
        return ",".join(getattr(one, field))
    return shown(getattr(one.entry, field))


def show_entry(ctx: typer.Context, kind: EntryKind, name: str, output: Output) -> None:
    """Print one entry with all its fields and its last changes."""
    with client_of(ctx) as client:
        found = client.registry.find(kind, name)
        lines = client.registry.history(kind=kind, name=found.entry.key[1], limit=5) if output is Output.TABLE else []
    if output is Output.JSON:
        print_json(found)
        return
    if output is Output.QUIET:
        typer.echo(harmless(found.entry.key[1]))
        return
    facts: dict[str, Any] = {kind.value: found.entry.key[1], **fields_of(found.entry)}
    if found.groups:
        facts["groups"] = found.groups
    facts["sources"] = found.sources
    for key, value in facts.items():
        if key == "queues":
            for queue in value or ():
                typer.echo(harmless(f"{'queue:':<12}" + " ".join(f"{k}={shown(v)}" for k, v in queue.items())))
        else:
            typer.echo(harmless(f"{key + ':':<11} {shown(value)}"))
    if lines:
        from .history import print_lines

        typer.echo("\nLast changes:")
        print_lines(lines)


def changes_of(operation: Operation, entries: Iterable[AnyEntry]) -> list[EntryChange]:
    """The same operation on each of these."""
    from schemas.messages.registrar import EntryChange

    return [EntryChange(operation=operation, entry=entry) for entry in entries]
