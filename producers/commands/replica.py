"""``pilotage replica``: where files have their copies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InvalidInputError

from .context import Output, OutputOption, client_of, make_app
from .exit_codes import ExitCode
from .printing import Column, print_json, print_table

if TYPE_CHECKING:
    from schemas.messages.common import InputFile

app = make_app("replica", "Where files have their copies.")

_ADLER32 = re.compile(r"[0-9a-f]{8}")


@app.command()
def add(
    ctx: typer.Context,
    lfn: Annotated[str, typer.Argument(help="Logical file name: /vo/path.")],
    se: Annotated[str, typer.Argument(help="Storage element.")],
    pfn: Annotated[str, typer.Argument(help="Where it lies there: a URL, or the path of a file here.")],
    size: Annotated[int | None, typer.Option(min=0, help="Bytes; measured if it is a file here.")] = None,
    adler32: Annotated[str | None, typer.Option(help="Checksum, 8 hex digits; made if it is a file here.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell the catalog that a file has a copy on a storage element."""
    pfn, size, adler32 = _measure(pfn, size, adler32)
    if adler32 and _ADLER32.fullmatch(adler32) is None:
        raise InvalidInputError(f"{adler32!r} is no Adler-32 checksum: 8 hex digits in lower case")
    with client_of(ctx) as client:
        file = client.register_replica(_plain(lfn), se, pfn, size, adler32)
    _print([file] if file is not None else [], output)


def _measure(pfn: str, size: int | None, adler32: str | None) -> tuple[str, int, str]:
    """Fill in what a local file says about itself, and write its place as a URL."""
    path = Path(pfn.removeprefix("file://"))
    local = ":" not in pfn or pfn.startswith("file://")
    if not local:
        if size is None:
            raise InvalidInputError("--size is needed: the file does not lie on this machine")
        return pfn, size, adler32 or ""
    try:
        measured = path.stat().st_size
        digest = adler32 or _adler32(path)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None
    if size is not None and size != measured:
        raise InvalidInputError(f"{path} has {measured} bytes, not {size}")
    return path.resolve().as_uri(), measured, digest


def _adler32(path: Path) -> str:
    import zlib

    value = 1
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.adler32(block, value)
    return f"{value:08x}"


@app.command("list")
def list_replicas(
    ctx: typer.Context,
    lfns: Annotated[list[str], typer.Argument(metavar="LFN", help="Logical file names.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the copies of files; 1 if one of them is unknown."""
    wanted = [_plain(lfn) for lfn in lfns]
    with client_of(ctx) as client:
        found = client.replicas(wanted)
    _print(list(found.values()), output)
    unknown = [lfn for lfn in wanted if lfn not in found]
    for lfn in unknown:
        typer.echo(f"{lfn}: not in the catalog", err=True)
    if unknown:
        raise typer.Exit(ExitCode.NO)


def _plain(lfn: str) -> str:
    return lfn[4:] if lfn[:4].upper() == "LFN:" else lfn


def _print(files: Sequence[InputFile], output: Output) -> None:
    if output is Output.JSON:
        print_json({"files": files})
    elif output is Output.QUIET:
        typer.echo("".join(f"{file.lfn}\n" for file in files), nl=False)
    elif files:
        columns = [Column("LFN", elastic=True), Column("BYTES", right=True), Column("SE"), Column("PFN", elastic=True)]
        rows = [[file.lfn, str(file.size), copy.se, copy.pfn] for file in files for copy in file.replicas]
        print_table(columns, rows)
