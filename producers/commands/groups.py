"""``pilotage admin group|service``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .context import Output, OutputOption, make_app
from .entries import (
    ContainsOption,
    DryRunOption,
    ForceOption,
    NameArgument,
    ReasonOption,
    change,
    changes_of,
    list_entries,
    show_entry,
)

if TYPE_CHECKING:
    pass

groups = make_app("group", "Groups with their rights and shares.")
services = make_app("service", "Services, and what they may send.")

DnArgument = Annotated[str, typer.Argument(metavar="DN", help="Like /DC=org/CN=Jane Doe.")]
PropertyOption = Annotated[list[str], typer.Option("--property", "-p", help="What members may do; repeatable.")]
ShareOption = Annotated[float | None, typer.Option(min=0, help="Of the computing, against other groups.")]
BackgroundOption = Annotated[
    bool | None, typer.Option("--background/--no-background", help="Gets only what others leave.")
]
VomsRequiredOption = Annotated[
    bool | None,
    typer.Option(
        "--voms-required/--no-voms-required", help="Only with a proxy that carries the FQAN, proven by the VO."
    ),
]
FqanOption = Annotated[str | None, typer.Option(help="What VOMS calls it.")]
SendsOption = Annotated[list[str], typer.Option("--sends", help="A message type; by default all that its name allows.")]


# -- groups -----------------------------------------------------------------------------------------------------


@groups.command("list")
def list_groups(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List groups."""
    from schemas.messages.registrar import EntryKind

    fields = (
        ("GROUP", "name"),
        ("FQAN", "fqan"),
        ("SHARE", "share"),
        ("PROPERTIES", "properties"),
        ("FROM", "sources"),
    )
    list_entries(ctx, EntryKind.GROUP, fields, output, contains=contains)


@groups.command("show")
def show_group(ctx: typer.Context, group: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a group and its last changes; its members are told by `user list --group`."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.GROUP, group, output)


@groups.command("add")
def add_group(
    ctx: typer.Context,
    group: NameArgument,
    reason: ReasonOption,
    fqan: FqanOption = None,
    prop: PropertyOption = [],  # noqa: B006 - typer copies it
    share: ShareOption = None,
    background: BackgroundOption = None,
    voms_required: VomsRequiredOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a group known."""
    from schemas.entries import GroupEntry
    from schemas.messages.registrar import Operation

    entry = GroupEntry(
        name=group,
        fqan=fqan,
        properties=tuple(prop),
        share=share,
        background=background,
        voms_required=voms_required,
    )
    change(ctx, changes_of(Operation.ADD, [entry]), reason=reason, dry_run=dry_run, output=output)


@groups.command("set")
def set_group(
    ctx: typer.Context,
    group: NameArgument,
    reason: ReasonOption,
    fqan: FqanOption = None,
    prop: PropertyOption = [],  # noqa: B006 - typer copies it
    share: ShareOption = None,
    background: BackgroundOption = None,
    voms_required: VomsRequiredOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change a group; properties that are given replace all it had."""
    from schemas.entries import GroupEntry
    from schemas.messages.registrar import Operation

    properties = tuple(prop) or None
    entry = GroupEntry(
        name=group,
        fqan=fqan,
        properties=properties,
        share=share,
        background=background,
        voms_required=voms_required,
    )
    change(ctx, changes_of(Operation.SET, [entry]), reason=reason, dry_run=dry_run, force=force, output=output)


@groups.command("remove")
def remove_group(
    ctx: typer.Context,
    group: NameArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a group that operators added; its members lose it."""
    from schemas.entries import GroupEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [GroupEntry(name=group)])
    change(ctx, changes, reason=reason, dry_run=dry_run, force=force, output=output)


@groups.command("reset")
def reset_group(
    ctx: typer.Context,
    group: NameArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget what operators set of a group: the seed's word counts again."""
    from schemas.entries import GroupEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.RESET, [GroupEntry(name=group)])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


# -- services ---------------------------------------------------------------------------------------------------


@services.command("list")
def list_services(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List services."""
    from schemas.messages.registrar import EntryKind

    fields = (("SERVICE", "name"), ("DN", "dn"), ("FROM", "sources"))
    list_entries(ctx, EntryKind.SERVICE, fields, output, contains=contains)


@services.command("show")
def show_service(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="DN or name.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a service, what it may send, and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.SERVICE, service, output)


@services.command("add")
def add_service(
    ctx: typer.Context,
    service: NameArgument,
    dn: DnArgument,
    reason: ReasonOption,
    message: SendsOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a DN be a service: a second certificate of the same one, say."""
    from broker.authorization import sends
    from schemas.entries import ServiceEntry
    from schemas.identity import canonical_dn
    from schemas.messages.registrar import Operation

    entry = ServiceEntry(dn=canonical_dn(dn), name=service, sends=tuple(message) or sends(service))
    change(ctx, changes_of(Operation.ADD, [entry]), reason=reason, dry_run=dry_run, output=output)


@services.command("remove")
def remove_service(
    ctx: typer.Context,
    dn: DnArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a service that operators added."""
    from schemas.entries import ServiceEntry
    from schemas.identity import canonical_dn
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [ServiceEntry(dn=canonical_dn(dn))])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)
