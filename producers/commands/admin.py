"""``pilotage admin``: the registry, for operators. Each kind of entry has its own words; see their modules."""

from __future__ import annotations

from . import block, groups, match_limits, people, places, rules, site
from .context import make_app
from .history import history
from .sync import sync

app = make_app("admin", "See and change who and what is known (operators).")
app.add_typer(people.users)
app.add_typer(groups.groups)
app.add_typer(groups.services)
app.add_typer(site.app)
app.add_typer(places.storage)
app.add_typer(places.computing)
app.add_typer(rules.rules)
app.add_typer(rules.limits)
app.add_typer(match_limits.match_limits)
app.command("history")(history)
app.command("sync")(sync)
app.add_typer(block.app)
