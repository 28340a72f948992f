"""``pilotage proxy``: make, look at and destroy the user's proxy.

Promises: ``init`` writes a proxy that every grid tool reads; ``info`` prints one object and ends with 0 when the
chain is valid and 1 when it is not, whatever lies in the file; ``destroy`` overwrites before it removes. Passwords
come from the terminal or standard input, never from the command line. Cryptography and tables are imported inside
the functions, so that ``--help`` stays fast.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from schemas.errors import PilotageError

from .. import credentials
from .context import settings_of
from .proxy_report import describe, print_table, refused, show_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.identity import Credential, VerifiedChain

    from ..attributes import Attributes
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
    valid: Annotated[str | None, typer.Option(metavar="H:M", help="Lifetime as in voms-proxy-init.")] = None,
    voms: Annotated[
        list[str] | None,
        typer.Option(metavar="VO[:/group[/Role=role]]", help="Get attributes of this VO; may be given again."),
    ] = None,
    vomses: Annotated[Path | None, typer.Option(help="Where VOMS servers are listed: file or directory.")] = None,
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
    """Make a proxy from your certificate (RFC 3820), with VOMS attributes if you ask for them."""
    from broker.identity import create_proxy, new_key, save_credential

    if valid is not None:
        hours = _hours(valid)
    if not 0 < hours <= MAX_HOURS:  # also "nan", which passes the parser's own comparison
        raise typer.BadParameter(f"a lifetime is between 0 and {MAX_HOURS} hours", param_hint="--hours")
    settings = _settings(ctx)
    target = credentials.proxy_path(settings, out)
    try:
        user = _load_user(settings, cert, key, pwstdin=pwstdin)
        attributes = _attributes(settings, user, voms or (), vomses, hours)
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
            acs=[item.answer.der for item in attributes],
        )
        save_credential(proxy, target)
    except PilotageError as error:
        _fail(str(error))
    show_new(proxy, target, attributes, as_json=output is Output.JSON)
    _warn_of_attributes(settings, proxy, attributes)


def _hours(valid: str) -> float:
    """Read a lifetime as voms-proxy-init takes it: hours, or hours and minutes."""
    match = re.fullmatch(r"([0-9]{1,6})(?::([0-5]?[0-9]))?", valid)
    if match is None:
        raise typer.BadParameter("a lifetime is hours:minutes, such as 24:00", param_hint="--valid")
    return int(match[1]) + int(match[2] or 0) / 60


def _attributes(
    settings: UserSettings, user: Credential, requests: Sequence[str], vomses: Path | None, hours: float
) -> tuple[Attributes, ...]:
    """Get the attributes; raises if there is one that no server gives, so that no proxy is written."""
    if not requests:
        return ()
    from broker.grid.vomses import load_vomses

    from ..attributes import fetch

    found = load_vomses(credentials.vomses_paths(vomses))
    trust = credentials.ca_directory(settings, None)
    return fetch(requests, found, user, trust, lifetime=dt.timedelta(hours=hours))


def _warn_of_attributes(settings: UserSettings, proxy: Credential, attributes: Sequence[Attributes]) -> None:
    """Say what the servers said, and which attributes others may not believe."""
    if not attributes:
        return
    from broker.identity import TrustStore, VomsDir, verify_chain

    for item in attributes:
        for warning in item.answer.warnings:
            typer.echo(f"note: {item.server}: {warning}", err=True)
    servers = credentials.voms_directory(settings)
    if servers is None:
        return  # a user's machine needs no LSC files
    try:
        trust = TrustStore.load(credentials.ca_directory(settings, None))
        chain = verify_chain(proxy.ders, trust, VomsDir.load(servers), _now())
    except PilotageError as error:
        typer.echo(f"warning: the new proxy cannot be verified here: {error}", err=True)
        return
    for ac in chain.acs:
        if not ac.valid:
            typer.echo(f"warning: the attributes of {ac.vo or 'a VO'} would not count here: {ac.reason}", err=True)


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
        result = describe(_verify(settings, path, ca_dir, vomsdir))
    except IdentityError as error:
        result = refused(error.reason, error.identity)
    except PilotageError as error:
        result = refused(str(error), None)
    if output is Output.JSON:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_table(path, result)
    if result["valid"]:
        _warn_if_open(path)
    raise typer.Exit(0 if result["valid"] else 1)


def _warn_if_open(path: Path) -> None:
    """Say that nothing else takes this file: its key may be known to others."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077 and b"PRIVATE KEY" in path.read_bytes()[:MAX_FILE_BYTES]:
            typer.echo(f"warning: others may read the key in {path}: all other commands refuse it", err=True)


@app.command()
def destroy(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="Proxy file; yours by default.")] = None,
    renewable: Annotated[
        bool, typer.Option("--renewable", help="Take back the long proxy at MyProxy first; needs a valid proxy.")
    ] = False,
    myproxy: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="MyProxy server; see settings.")] = None,
) -> None:
    """Overwrite and remove a proxy."""
    path = credentials.proxy_path(_settings(ctx), file)
    if renewable or myproxy:
        _take_back(_settings(ctx), path, myproxy)
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


def _take_back(settings: UserSettings, path: Path, server: str | None) -> None:
    """Have MyProxy forget the long proxy; the file stays if it does not, for another try."""
    from broker.identity import load_credential

    from ..renewable import parse_server, take_back

    try:
        where = parse_server(settings.myproxy, server)
        take_back(settings.myproxy, where, load_credential(path), credentials.ca_directory(settings, None))
    except PilotageError as error:
        _fail(str(error))
    typer.echo(f"{where[0]} keeps no long proxy of yours any more", err=True)


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
