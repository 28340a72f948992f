"""``pilotage admin``: the registry, for operators. Each kind of entry has its own words; see their modules."""

from __future__ import annotations

from . import block, people, places, site
from .context import make_app
from .history import history
from .sync import sync

app = make_app("admin", "See and change who and what is known (operators).")
app.add_typer(people.users)
app.add_typer(people.groups)
app.add_typer(people.services)
app.add_typer(site.app)
app.add_typer(places.storage)
app.add_typer(places.computing)
app.add_typer(places.rules)
app.add_typer(places.limits)
app.command("history")(history)
app.command("sync")(sync)
app.add_typer(block.app)
