"""``pilotage admin user``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .context import Output, OutputOption, client_of, make_app
from .entries import (
    ContainsOption,
    DryRunOption,
    ForceOption,
    ReasonOption,
    UserArgument,
    change,
    changes_of,
    list_entries,
    show_entry,
)

if TYPE_CHECKING:
    from schemas.entries import AnyEntry

users = make_app("user", "Who may do what.")

DnArgument = Annotated[str, typer.Argument(metavar="DN", help="Like /DC=org/CN=Jane Doe.")]
GroupsArgument = Annotated[list[str], typer.Argument(metavar="GROUPS", help="Names of groups.")]
GroupOption = Annotated[list[str], typer.Option("--group", "-g", help="Of this group; the first one is the default.")]


@users.command("list")
def list_users(
    ctx: typer.Context,
    group: Annotated[str, typer.Option("--group", "-g", help="Only members of this group.")] = "",
    contains: ContainsOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List users and pilots."""
    from schemas.messages.registrar import EntryKind

    fields = (("NAME", "nickname"), ("DN", "dn"), ("GROUPS", "groups"), ("SUSPENDED", "suspended"), ("FROM", "sources"))
    list_entries(ctx, EntryKind.USER, fields, output, contains=contains, group=group)


@users.command("show")
def show_user(ctx: typer.Context, user: UserArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a user and his last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.USER, user, output)


@users.command("add")
def add_user(
    ctx: typer.Context,
    dn: DnArgument,
    reason: ReasonOption,
    nickname: Annotated[str, typer.Option(help="A short name.")] = "",
    mail: Annotated[str, typer.Option(help="Where he is reached.")] = "",
    group: GroupOption = [],  # noqa: B006 - typer copies it
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a user known, and a member of groups."""
    from schemas.entries import MemberEntry, UserEntry
    from schemas.identity import canonical_dn
    from schemas.messages.registrar import Operation

    name = canonical_dn(dn)
    entries: list[AnyEntry] = [UserEntry(dn=name, nickname=nickname, mail=mail)]
    entries += [MemberEntry(dn=name, group=one) for one in group]
    change(ctx, changes_of(Operation.ADD, entries), reason=reason, dry_run=dry_run, output=output)


@users.command("set")
def set_user(
    ctx: typer.Context,
    user: UserArgument,
    reason: ReasonOption,
    nickname: Annotated[str | None, typer.Option(help="A short name.")] = None,
    mail: Annotated[str | None, typer.Option(help="Where he is reached.")] = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what is known of a user."""
    from schemas.entries import UserEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        entry = UserEntry(dn=client.registry.dn_of(user), nickname=nickname, mail=mail)
        changes = changes_of(Operation.SET, [entry])
        change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)


@users.command("suspend")
def suspend_user(
    ctx: typer.Context,
    users_: Annotated[list[str], typer.Argument(metavar="USERS", help="DNs or nicknames.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take all rights of users, for now: their connections end, their running jobs as the policy says."""
    _suspend(ctx, users_, True, reason, dry_run, force, output)


@users.command("allow")
def allow_user(
    ctx: typer.Context,
    users_: Annotated[list[str], typer.Argument(metavar="USERS", help="DNs or nicknames.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give users whom operators suspended their rights back."""
    _suspend(ctx, users_, False, reason, dry_run, False, output)


def _suspend(
    ctx: typer.Context, who: list[str], suspended: bool, reason: str, dry_run: bool, force: bool, output: Output
) -> None:
    from schemas.entries import UserEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        entries = [UserEntry(dn=client.registry.dn_of(name), suspended=suspended) for name in who]
        changes = changes_of(Operation.SET, entries)
        change(ctx, changes, reason=reason, dry_run=dry_run, force=force, output=output, client=client)


@users.command("remove")
def remove_user(
    ctx: typer.Context,
    users_: Annotated[list[str], typer.Argument(metavar="USERS", help="DNs or nicknames.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget users whom operators added; others are the seed's or the VO's: suspend them."""
    from schemas.entries import UserEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        entries = [UserEntry(dn=client.registry.dn_of(name)) for name in users_]
        changes = changes_of(Operation.REMOVE, entries)
        change(ctx, changes, reason=reason, dry_run=dry_run, force=force, output=output, client=client)


@users.command("join")
def join_groups(
    ctx: typer.Context,
    user: UserArgument,
    groups_: GroupsArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a user a member of groups."""
    from schemas.entries import MemberEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        dn = client.registry.dn_of(user)
        changes = changes_of(Operation.ADD, [MemberEntry(dn=dn, group=name) for name in groups_])
        change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)


@users.command("leave")
def leave_groups(
    ctx: typer.Context,
    user: UserArgument,
    groups_: GroupsArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take a user out of groups, whatever other sources say."""
    from schemas.entries import MemberEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        dn = client.registry.dn_of(user)
        changes = changes_of(Operation.REMOVE, [MemberEntry(dn=dn, group=name) for name in groups_])
        change(ctx, changes, reason=reason, dry_run=dry_run, force=force, output=output, client=client)


@users.command("share")
def set_share(
    ctx: typer.Context,
    user: UserArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Name of a group that he is a member of.")],
    share: Annotated[float, typer.Argument(min=0, help="1 is usual; 0: only what the other members leave.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a user a share of a group's computing, against its other members: it counts from the next match on."""
    from schemas.entries import MemberEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        entry = MemberEntry(dn=client.registry.dn_of(user), group=group, share=share)
        changes = changes_of(Operation.SET, [entry])
        change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)


@users.command("reset")
def reset_user(
    ctx: typer.Context,
    user: UserArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget what operators set of a user, suspensions included: the other sources' word counts again."""
    from schemas.entries import UserEntry
    from schemas.messages.registrar import Operation

    with client_of(ctx) as client:
        changes = changes_of(Operation.RESET, [UserEntry(dn=client.registry.dn_of(user))])
        change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)
