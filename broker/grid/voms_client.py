"""A VOMS client: asks a VO's server for an attribute certificate about the holder of a credential.

Promises: the server is the one that the vomses entry names (its certificate verified, its DN equal); the answer is
bounded before it is read; the attribute certificate that comes out is well formed, about the end entity of the
credential, from the VO that was asked, and has the groups and roles that were asked for, the first of them in front;
what a server says about an error comes out as one line. Whether the certificate's signature counts is decided where it
is used (``broker.identity``). Servers are spoken to in VOMS's own protocol, and by HTTP where they speak that only
(``GET /generate-ac``, as servers of VOs in INDIGO IAM do).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from schemas.identity import Fqan

from ..identity import IdentityError, inspect_ac
from ..identity.attribute_certificate import MAX_AC_BYTES
from .errors import GridRefusedError, GridUnavailableError
from .tls import connect
from .vomses import VomsEntry, Vomses, load_vomses, parse_vomses

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

    from ..identity import Credential
    from .tls import Link

__all__ = ["AcAnswer", "VomsEntry", "Vomses", "load_vomses", "parse_vomses", "request_ac"]

# Base64 of the largest certificate that we read, and the words around it.
MAX_ANSWER_BYTES = MAX_AC_BYTES * 4 // 3 + 16 * 1024
# More groups and roles than this nobody asks for at once; the request must fit into one TLS record.
MAX_REQUESTED = 50
# What a server says may fill a few lines of a terminal, not the screen.
MAX_WORDS = 500
# Real answers hold one or two messages.
MAX_ITEMS = 10
# Below it a number is a warning, from it on an error (voms-server's errors.h).
FIRST_ERROR = 1000

_AC = re.compile(rb"<ac>([A-Za-z0-9+/=\s]*)</ac>")
# Messages are far shorter; without a bound each of many beginnings without an end would be looked through to the end.
_NUMBER = re.compile(rb"\s{0,20}<number>\s{0,20}(-?[0-9]{1,6})\s{0,20}</number>\s{0,20}<message>")
_MESSAGE = re.compile(rb"<(?:message|warning)>([^<]{0,4096})")
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}


@dataclass(frozen=True, slots=True)
class AcAnswer:
    """What a VOMS server gave.

    Attributes:
        der: the attribute certificate.
        fqans: its groups and roles, as written there; the first is the primary one.
        not_after: its end.
        warnings: what the server had to say besides, a line each.
    """

    der: bytes
    fqans: tuple[str, ...]
    not_after: dt.datetime
    warnings: tuple[str, ...] = ()


def request_ac(
    server: VomsEntry,
    credential: Credential,
    trust_dir: Path,
    fqans: Sequence[Fqan] = (),
    *,
    lifetime: dt.timedelta,
    seconds: float = 30.0,
) -> AcAnswer:
    """Ask a VOMS server for an attribute certificate.

    Args:
        server: whom to ask.
        credential: about whom: a proxy, or the end entity's own certificate and key.
        trust_dir: CA directory in grid layout.
        fqans: groups and roles wanted, in this order; none: what the VO gives to every member. Servers add the
            member's other groups behind them.
        lifetime: wanted; the server may give less.
        seconds: for one conversation.

    Raises:
        GridUnavailableError: nobody answers.
        GridRefusedError: the server says no, in its words; or what it sent is not what was asked for.
        IdentityError: the credential's own chain is malformed.
    """
    wanted = tuple(dict.fromkeys(fqans)) or (Fqan(f"/{server.vo}"),)
    for fqan in wanted:
        if not fqan.belongs_to(server.vo):
            raise GridRefusedError(f"{fqan} is no group of the VO {server.vo}")
    if len(wanted) > MAX_REQUESTED:
        raise GridRefusedError(f"at most {MAX_REQUESTED} groups and roles can be asked for at once")
    whole = max(1, int(lifetime.total_seconds()))
    answer = _converse(server, credential, trust_dir, _request(wanted, whole), seconds)
    if answer.startswith(b"HTTP/"):
        answer = _converse(server, credential, trust_dir, _http_request(server, wanted, whole), seconds)
    return _read_answer(answer, server, credential, wanted)


def _request(wanted: Sequence[Fqan], seconds: int) -> bytes:
    """The request in VOMS's own form; FQANs and numbers hold nothing that XML would mind."""
    commands = "".join(f"<command>{_command(fqan)}</command>" for fqan in wanted)
    order = ",".join(f"{fqan.group}:{fqan.role}" if fqan.role else fqan.group for fqan in wanted)
    text = (
        f'<?xml version="1.0" encoding = "US-ASCII"?><voms>{commands}<order>{order}</order>'
        f"<base64>1</base64><version>4</version><lifetime>{seconds}</lifetime></voms>"
    )
    return text.encode("ascii")


def _command(fqan: Fqan) -> str:
    return f"B{fqan.group}:{fqan.role}" if fqan.role else f"G{fqan.group}"


def _http_request(server: VomsEntry, wanted: Sequence[Fqan], seconds: int) -> bytes:
    """HTTP 1.0: the answer ends with the connection, and is never cut into chunks."""
    names = quote(",".join(map(str, wanted)), safe="/,=")
    return (
        f"GET /generate-ac?fqans={names}&lifetime={seconds} HTTP/1.0\r\nHost: {server.host}:{server.port}\r\n"
        "User-Agent: pilotage\r\nAccept: text/xml\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def _converse(server: VomsEntry, credential: Credential, trust_dir: Path, request: bytes, seconds: float) -> bytes:
    with connect(server.host, server.port, credential, trust_dir, server_dn=server.dn, seconds=seconds) as link:
        if not request.startswith(b"GET "):
            link.send(b"0")  # no delegation by GSI
        link.send(request)
        return _receive(link)


def _receive(link: Link) -> bytes:
    data = b""
    while more := link.receive():
        data += more
        if len(data) > MAX_ANSWER_BYTES:
            raise GridRefusedError(f"the VOMS server sent more than {MAX_ANSWER_BYTES} bytes")
        if b"</vomsans>" in data[-64 - len(more) :]:
            break
    if not data:
        raise GridUnavailableError("the VOMS server ended the conversation without an answer")
    return data


def _read_answer(answer: bytes, server: VomsEntry, credential: Credential, wanted: Sequence[Fqan]) -> AcAnswer:
    is_http = answer.startswith(b"HTTP/")
    items = _items(answer)
    errors = [text for number, text in items if number >= FIRST_ERROR]
    warnings = [text for number, text in items if number < FIRST_ERROR]
    found = _AC.findall(answer)
    if is_http:
        said = [_words(text) for text in _MESSAGE.findall(answer)[:MAX_ITEMS]]
        good = re.match(rb"HTTP/1\.[01] 200\b", answer) is not None
        errors, warnings = ([], said) if good and found else (said or ["it speaks HTTP, but not VOMS"], [])
    # A server of VOMS numbers what it says to strangers below the errors, too: without a certificate all is an error.
    if errors or len(found) != 1:
        raise GridRefusedError("; ".join(errors or warnings) or "this is no VOMS server")
    try:
        encoded = base64.b64decode(b"".join(found[0].split()), validate=True)
    except binascii.Error:
        raise GridRefusedError("the VOMS server sent no attribute certificate") from None
    if len(encoded) < 2 and warnings:
        raise GridRefusedError("; ".join(warnings))
    return _checked(encoded, tuple(warnings), server, credential, wanted)


def _items(answer: bytes) -> list[tuple[int, str]]:
    """Read what the server says besides, each with its number; one that cannot be read counts as an error."""
    found = []
    for part in answer.split(b"<item>", MAX_ITEMS + 1)[1 : MAX_ITEMS + 1]:
        number = _NUMBER.match(part)
        text = part[number.end() :] if number else part
        found.append((int(number[1]) if number else FIRST_ERROR, _words(text.partition(b"</message>")[0])))
    return found


def _checked(
    encoded: bytes, warnings: tuple[str, ...], server: VomsEntry, credential: Credential, wanted: Sequence[Fqan]
) -> AcAnswer:
    """Take an attribute certificate only if it is what was asked for; its signature is checked where it is used."""
    try:
        ac = inspect_ac(encoded, credential.ders)
    except IdentityError as error:
        raise GridRefusedError(f"the VOMS server sent a bad attribute certificate: {error}") from None
    if ac.vo != server.vo:
        raise GridRefusedError(f"the VOMS server sent attributes of another VO than {server.vo}")
    given = {Fqan.parse(text) for text in ac.fqans}
    missing = [str(fqan) for fqan in wanted if fqan not in given]
    if missing:
        raise GridRefusedError(f"the VOMS server did not give {', '.join(missing)}")
    return AcAnswer(encoded, ac.fqans, ac.not_after, warnings)


def _words(raw: bytes) -> str:
    """Make one printable line of what a server says."""
    text = raw[: 4 * MAX_WORDS].decode("utf-8", "replace").replace("\\n", " ")
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:MAX_WORDS]
