"""How ``pilotage proxy`` prints what it made and what it found."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.identity import Credential, VerifiedChain

    from ..attributes import Attributes


def show_new(proxy: Credential, path: Path, attributes: Sequence[Attributes], *, as_json: bool) -> None:
    """Print where a new proxy lies, whose it is and what it carries."""
    from broker.identity import parse_certificate

    leaf = parse_certificate(proxy.leaf)
    ends = leaf.x509.not_valid_after_utc
    if as_json:
        acs = [
            {"vo": item.vo, "fqans": list(item.answer.fqans), "not_after": str(item.answer.not_after)}
            for item in attributes
        ]
        typer.echo(json.dumps({"path": str(path), "subject": leaf.dn, "not_after": str(ends), "acs": acs}))
        return
    typer.echo(f"Proxy:       {path}\nSubject:     {leaf.dn}\nValid until: {ends:%Y-%m-%d %H:%M:%S} UTC")
    for item in attributes:
        typer.echo(f"{f'VO {item.vo}:':<12} until {item.answer.not_after:%Y-%m-%d %H:%M:%S} UTC")
        for fqan in item.answer.fqans:
            typer.echo(f"             {fqan}")


def describe(chain: VerifiedChain) -> dict[str, Any]:
    """The result for a chain that is valid."""
    return {
        "valid": True,
        "reason": "",
        "identity": chain.identity,
        "limited": chain.limited,
        "depth": chain.depth,
        "not_after": str(chain.not_after),
        "acs": [
            {
                "valid": ac.valid,
                "vo": ac.vo,
                "fqans": list(ac.fqans),
                "not_after": str(ac.not_after) if ac.not_after else None,
                "reason": ac.reason,
            }
            for ac in chain.acs
        ],
    }


def refused(reason: str, identity: str | None) -> dict[str, Any]:
    """The result for one that is not."""
    return {
        "valid": False,
        "reason": reason,
        "identity": identity,
        "limited": None,
        "depth": None,
        "not_after": None,
        "acs": [],
    }


def print_table(path: Path, result: dict[str, Any]) -> None:
    """Print a result for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [("File", str(path)), ("Valid", "yes" if result["valid"] else f"no: {result['reason']}")]
    if result["identity"]:
        rows.append(("Identity", result["identity"]))
    if result["valid"]:
        rows += [("Kind", _kind(result)), ("Valid until", _until(result["not_after"]))]
    for ac in result["acs"]:
        rows.append((f"VO {ac['vo']}", "\n".join(ac["fqans"]) if ac["valid"] else f"not valid: {ac['reason']}"))
        if ac["valid"]:
            rows.append(("  until", _until(ac["not_after"])))
    for name, value in rows:
        # Text, not str: names from a file are never read as markup. A file's own name may be no valid text.
        table.add_row(name, Text(value.encode("utf-8", "backslashreplace").decode("utf-8")))
    Console().print(table)


def _until(moment: str) -> str:
    left = dt.datetime.fromisoformat(moment) - dt.datetime.now(dt.UTC)
    return f"{moment} ({str(left).partition('.')[0]} left)"


def _kind(result: dict[str, Any]) -> str:
    if result["depth"] == 0:
        return "end entity's certificate"
    return f"{'limited' if result['limited'] else 'full'} proxy, depth {result['depth']}"
