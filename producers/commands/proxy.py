"""``pilotage proxy``: make, look at and destroy the user's proxy.

Promises: ``init`` writes a proxy that every grid tool reads; ``info`` prints one object and ends with 0 when the
chain is valid and 1 when it is not, whatever lies in the file; ``destroy`` overwrites before it removes. Passwords
come from the terminal or standard input, never from the command line. Cryptography and tables are imported inside
the functions, so that ``--help`` stays fast.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from schemas.errors import PilotageError

from .. import credentials
from .context import settings_of

if TYPE_CHECKING:
    from broker.identity import Credential, VerifiedChain

    from ..settings import UserSettings

app = typer.Typer(name="proxy", no_args_is_help=True, rich_markup_mode=None, help="Make, show and destroy proxies.")

# The longest proxy that we make: a longer one is a private key without a password for too long.
MAX_HOURS = 24 * 365
# Of the long proxy that lies with MyProxy: the longest jobs with a few days in the queue. A stolen MyProxy server is
# good for all that lies there, so a month is enough for anybody.
RENEWABLE_HOURS = 7 * 24.0
MAX_RENEWABLE_HOURS = 28 * 24.0
# What a proxy file may have; the same bound that the library applies to what it loads.
MAX_FILE_BYTES = 80 * 1024


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]


@app.command()
def init(
    ctx: typer.Context,
    cert: Annotated[Path | None, typer.Option(help="User certificate, or a proxy file to go on from.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key to the certificate.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the proxy.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=MAX_HOURS, help="Lifetime in hours.")] = 12.0,
    limited: Annotated[bool, typer.Option("--limited", help="Make a limited proxy (it cannot submit jobs).")] = False,
    rsa: Annotated[bool, typer.Option("--rsa", help="Use an RSA key, as older grid tools need.")] = False,
    bits: Annotated[int | None, typer.Option(min=2048, max=8192, help="Size of the RSA key; implies --rsa.")] = None,
    path_length: Annotated[int | None, typer.Option(min=0, help="How many proxies may follow below it.")] = None,
    pwstdin: Annotated[bool, typer.Option("--pwstdin", help="Read the key's password from standard input.")] = False,
    renewable: Annotated[
        bool, typer.Option("--renewable", help="Leave a long proxy with MyProxy, for the service to renew from.")
    ] = False,
    myproxy: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="MyProxy server; see settings.")] = None,
    renewable_hours: Annotated[
        float, typer.Option(min=1, max=MAX_RENEWABLE_HOURS, help="Lifetime of the long proxy in hours.")
    ] = RENEWABLE_HOURS,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a proxy from your certificate (RFC 3820)."""
    from broker.identity import create_proxy, new_key, save_credential

    if not 0 < hours <= MAX_HOURS:  # also "nan", which passes the parser's own comparison
        raise typer.BadParameter(f"a lifetime is between 0 and {MAX_HOURS} hours", param_hint="--hours")
    settings = _settings(ctx)
    target = credentials.proxy_path(settings, out)
    try:
        user = _load_user(settings, cert, key, pwstdin=pwstdin)
        if renewable or myproxy:
            if limited:
                raise typer.BadParameter("what is renewed from a long proxy is full", param_hint="--limited")
            _leave(settings, user, myproxy, renewable_hours)
        proxy = create_proxy(
            user.ders,
            user.key,
            lifetime=dt.timedelta(hours=hours),
            limited=limited,
            now=_now(),
            key=new_key(rsa_bits=bits or (2048 if rsa else None)),
            path_length=path_length,
        )
        save_credential(proxy, target)
    except PilotageError as error:
        _fail(str(error))
    _show_new(proxy, target, output)


def _leave(settings: UserSettings, user: Credential, server: str | None, hours: float) -> None:
    """Leave the long proxy with MyProxy."""
    from ..renewable import leave, parse_server

    where = parse_server(settings.myproxy, server)
    trust = credentials.ca_directory(settings, None)
    ends = leave(settings.myproxy, where, user, trust, hours=hours, now=_now())
    typer.echo(f"Renewable until {ends:%Y-%m-%d %H:%M:%S} UTC: {where[0]} keeps a long proxy for the service", err=True)


@app.command()
def info(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="Proxy file; yours by default.")] = None,
    ca_dir: Annotated[Path | None, typer.Option(help="Trust directory (CA certificates, CRLs, policies).")] = None,
    vomsdir: Annotated[Path | None, typer.Option(help="Directory of VOMS servers' LSC files.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify a proxy and show whose it is; ends with 0 if it is valid, with 1 if not."""
    from broker.identity import IdentityError

    settings = _settings(ctx)
    path = credentials.proxy_path(settings, file)
    try:
        result = _describe(_verify(settings, path, ca_dir, vomsdir))
    except IdentityError as error:
        result = _refused(error.reason, error.identity)
    except PilotageError as error:
        result = _refused(str(error), None)
    if output is Output.JSON:
        typer.echo(json.dumps(result, indent=2))
    else:
        _print_table(path, result)
    raise typer.Exit(0 if result["valid"] else 1)


@app.command()
def destroy(
    ctx: typer.Context, file: Annotated[Path | None, typer.Argument(help="Proxy file; yours by default.")] = None
) -> None:
    """Overwrite and remove a proxy."""
    path = credentials.proxy_path(_settings(ctx), file)
    try:
        # O_NOFOLLOW: a link in /tmp may point at another file of ours; that one must not be overwritten.
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "wb") as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_FILE_BYTES:
                _fail(f"{path} is no proxy file")
            stream.write(b"\0" * state.st_size)
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()
    except OSError as error:
        _fail(f"cannot destroy {path}: {error.strerror}")
    typer.echo(f"Destroyed {path}", err=True)


def _settings(ctx: typer.Context) -> UserSettings:
    return settings_of(ctx)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def _load_user(settings: UserSettings, cert: Path | None, key: Path | None, *, pwstdin: bool) -> Credential:
    """Load the user's certificate and key; asks for the password only if there is one."""
    from broker.identity import CredentialError, PasswordNeededError, load_credential

    certificate = credentials.user_certificate(settings, cert)
    try:
        holds_key = cert is not None and key is None and b"PRIVATE KEY-----" in cert.read_bytes()[:MAX_FILE_BYTES]
    except OSError as error:
        raise CredentialError(f"cannot read {cert}: {error.strerror}") from None
    private = None if holds_key else credentials.user_key(settings, key)
    try:
        return load_credential(certificate, key=private)
    except PasswordNeededError:
        return load_credential(certificate, key=private, password=_ask_password(private or certificate, pwstdin))


def _ask_password(path: Path, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        _fail(f"{path} is protected by a password and there is no terminal to ask at; use --pwstdin")
    from getpass import getpass

    return getpass(f"Password of {path}: ")


def _show_new(proxy: Credential, path: Path, output: Output) -> None:
    from broker.identity import parse_certificate

    leaf = parse_certificate(proxy.leaf)
    ends = leaf.x509.not_valid_after_utc
    if output is Output.JSON:
        typer.echo(json.dumps({"path": str(path), "subject": leaf.dn, "not_after": str(ends)}))
        return
    typer.echo(f"Proxy:       {path}\nSubject:     {leaf.dn}\nValid until: {ends:%Y-%m-%d %H:%M:%S} UTC")


def _verify(settings: UserSettings, path: Path, ca_dir: Path | None, vomsdir: Path | None) -> VerifiedChain:
    from broker.identity import TrustStore, VomsDir, verify_chain

    data = _read(path)
    servers = credentials.voms_directory(settings, vomsdir)
    trust = TrustStore.load(credentials.ca_directory(settings, ca_dir))
    return verify_chain(data, trust, VomsDir.load(servers) if servers else None, _now())


def _read(path: Path) -> bytes:
    """Read a file of a sensible size; a pipe or a device does not hang or flood us."""
    from broker.identity import IdentityError

    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise IdentityError(f"{path} is no regular file")
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise IdentityError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _describe(chain: VerifiedChain) -> dict[str, Any]:
    return {
        "valid": True,
        "reason": "",
        "identity": chain.identity,
        "limited": chain.limited,
        "depth": chain.depth,
        "not_after": str(chain.not_after),
        "acs": [{"valid": ac.valid, "vo": ac.vo, "fqans": list(ac.fqans), "reason": ac.reason} for ac in chain.acs],
    }


def _refused(reason: str, identity: str | None) -> dict[str, Any]:
    return {
        "valid": False,
        "reason": reason,
        "identity": identity,
        "limited": None,
        "depth": None,
        "not_after": None,
        "acs": [],
    }


def _print_table(path: Path, result: dict[str, Any]) -> None:
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
        left = dt.datetime.fromisoformat(result["not_after"]) - _now()
        rows += [
            ("Kind", _kind(result)),
            ("Valid until", f"{result['not_after']} ({str(left).partition('.')[0]} left)"),
        ]
    for ac in result["acs"]:
        rows.append((f"VO {ac['vo']}", "\n".join(ac["fqans"]) if ac["valid"] else f"not valid: {ac['reason']}"))
    for name, value in rows:
        # Text, not str: names from a file are never read as markup. A file's own name may be no valid text.
        table.add_row(name, Text(value.encode("utf-8", "backslashreplace").decode("utf-8")))
    Console().print(table)


def _kind(result: dict[str, Any]) -> str:
    if result["depth"] == 0:
        return "end entity's certificate"
    return f"{'limited' if result['limited'] else 'full'} proxy, depth {result['depth']}"
