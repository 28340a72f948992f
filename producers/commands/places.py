"""``pilotage admin se|ce``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InvalidInputError

from .context import Output, OutputOption, make_app
from .entries import (
    ContainsOption,
    DryRunOption,
    NameArgument,
    ReasonOption,
    change,
    changes_of,
    list_entries,
    show_entry,
)

if TYPE_CHECKING:
    from schemas.entries import ComputingQueue

storage = make_app("se", "Storage elements, and the sites that are near.")
computing = make_app("ce", "Computing elements with their queues.")

SiteOption = Annotated[list[str], typer.Option("--site", "-s", help="A site that is near; repeatable.")]
QueueOption = Annotated[
    list[str],
    typer.Option(
        "--queue",
        help="A queue: 'NAME KEY=VALUE …' with cpu_seconds, wall_seconds, processors, memory_mb, max_waiting, "
        "max_pilots, platform, tags and groups (with commas).",
    ),
]


# -- storage elements -------------------------------------------------------------------------------------------


@storage.command("list")
def list_storage(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List storage elements."""
    from schemas.messages.registrar import EntryKind

    fields = (("SE", "name"), ("SITES", "sites"), ("FROM", "sources"))
    list_entries(ctx, EntryKind.STORAGE_ELEMENT, fields, output, contains=contains)


@storage.command("show")
def show_storage(ctx: typer.Context, se: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a storage element and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.STORAGE_ELEMENT, se, output)


@storage.command("add")
def add_storage(
    ctx: typer.Context,
    se: NameArgument,
    reason: ReasonOption,
    site: SiteOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a storage element known."""
    from schemas.entries import StorageEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.ADD, [StorageEntry(name=se, sites=tuple(site))])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


@storage.command("set")
def set_storage(
    ctx: typer.Context,
    se: NameArgument,
    reason: ReasonOption,
    site: SiteOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say anew which sites are near."""
    from schemas.entries import StorageEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.SET, [StorageEntry(name=se, sites=tuple(site))])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


@storage.command("remove")
def remove_storage(
    ctx: typer.Context,
    se: NameArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a storage element that operators added."""
    from schemas.entries import StorageEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [StorageEntry(name=se)])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


# -- computing elements -----------------------------------------------------------------------------------------


@computing.command("list")
def list_computing(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List computing elements."""
    from schemas.messages.registrar import EntryKind

    fields = (("CE", "name"), ("SITE", "site"), ("TYPE", "type"), ("ADDRESS", "address"), ("FROM", "sources"))
    list_entries(ctx, EntryKind.COMPUTING_ELEMENT, fields, output, contains=contains)


@computing.command("show")
def show_computing(ctx: typer.Context, ce: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a computing element, its queues and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.COMPUTING_ELEMENT, ce, output)


@computing.command("add")
def add_computing(
    ctx: typer.Context,
    ce: NameArgument,
    reason: ReasonOption,
    site: Annotated[str, typer.Option("--site", "-s", help="Where it is.")],
    kind: Annotated[str, typer.Option("--type", "-t", help="How it is spoken to: local, slurm, htcondor, arc, …")],
    address: Annotated[str, typer.Option(help="Where it is reached.")] = "",
    queue: QueueOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a computing element known."""
    from schemas.entries import ComputingEntry
    from schemas.messages.registrar import Operation

    queues = tuple(parse_queue(text) for text in queue)
    entry = ComputingEntry(name=ce, site=site, type=kind, address=address, queues=queues)
    change(ctx, changes_of(Operation.ADD, [entry]), reason=reason, dry_run=dry_run, output=output)


@computing.command("set")
def set_computing(
    ctx: typer.Context,
    ce: NameArgument,
    reason: ReasonOption,
    site: Annotated[str | None, typer.Option("--site", "-s", help="Where it is.")] = None,
    kind: Annotated[str | None, typer.Option("--type", "-t", help="How it is spoken to.")] = None,
    address: Annotated[str | None, typer.Option(help="Where it is reached.")] = None,
    queue: QueueOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change a computing element; queues that are given replace all it had."""
    from schemas.entries import ComputingEntry
    from schemas.messages.registrar import Operation

    queues = tuple(parse_queue(text) for text in queue) or None
    entry = ComputingEntry(name=ce, site=site, type=kind, address=address, queues=queues)
    change(ctx, changes_of(Operation.SET, [entry]), reason=reason, dry_run=dry_run, output=output)


@computing.command("remove")
def remove_computing(
    ctx: typer.Context,
    ce: NameArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a computing element that operators added."""
    from schemas.entries import ComputingEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [ComputingEntry(name=ce)])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


def parse_queue(text: str) -> ComputingQueue:
    """``long wall_seconds=86400 tags=gpu,avx2`` as a queue.

    Raises:
        InvalidInputError: a key is unknown, or its value is not of its kind.
    """
    import msgspec

    from schemas.entries import ComputingQueue

    words = text.split()
    if not words or "=" in words[0]:
        raise InvalidInputError("a queue begins with its name: 'long wall_seconds=86400'")
    values: dict[str, object] = {"name": words[0]}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key == "name":
            raise InvalidInputError(f"queue {words[0]}: {word!r} is not KEY=VALUE")
        values[key] = value.split(",") if key in {"tags", "groups"} else value
    try:
        return msgspec.convert(values, ComputingQueue, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"queue {words[0]}: {error}") from None
