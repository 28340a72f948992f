"""VOMS attributes for a new proxy: from what the user asked for to attribute certificates.

Promises: all or nothing; servers of a VO are tried in the order of the vomses files until one gives; every refusal
comes out as one message that names the servers and says what can be done. Nothing is written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError, InvalidInputError, PermanentError
from schemas.identity import Fqan

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

    from broker.grid.voms_client import AcAnswer
    from broker.grid.vomses import Vomses
    from broker.identity import Credential

# A dead server must not keep a person waiting for long; a living one answers within a second.
SECONDS_PER_SERVER = 20.0


class NoAttributesError(PermanentError):
    """No VOMS server gave the attributes."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What one VO gave."""

    vo: str
    server: str
    answer: AcAnswer


def parse_request(text: str) -> tuple[str, Fqan | None]:
    """Read ``VO[:/group[/Role=role]]``; the VO may be an alias from the vomses files.

    Raises:
        InvalidInputError: it is of another form.
    """
    name, colon, fqan = text.partition(":")
    if not name or not name.isprintable() or (colon and not fqan):
        raise InvalidInputError(f"--voms takes VO or VO:/group/Role=role, not {text!r}")
    if not colon:
        return name, None
    try:
        return name, Fqan.parse(fqan)
    except InvalidInputError as error:
        raise InvalidInputError(f"--voms {text}: {error}") from None


def fetch(
    requests: Sequence[str], vomses: Vomses, user: Credential, trust_dir: Path, *, lifetime: dt.timedelta
) -> tuple[Attributes, ...]:
    """Get one attribute certificate for each VO that is asked for, in the order of the requests.

    Args:
        requests: as in ``parse_request``; several of one VO go into one certificate, in their order.
        vomses: where the servers are.
        user: about whom.
        trust_dir: CA directory in grid layout.
        lifetime: wanted.

    Raises:
        InvalidInputError: a request is malformed.
        ConfigurationError: no server is known for a VO.
        NoAttributesError: no server of a VO gave them.
    """
    wanted: dict[str, list[Fqan]] = {}
    for text in requests:
        name, fqan = parse_request(text)
        wanted.setdefault(name, []).extend([fqan] if fqan else [])
    return tuple(_from_vo(name, fqans, vomses, user, trust_dir, lifetime) for name, fqans in wanted.items())


def _from_vo(
    name: str, fqans: Sequence[Fqan], vomses: Vomses, user: Credential, trust_dir: Path, lifetime: dt.timedelta
) -> Attributes:
    from broker.grid.errors import GridRefusedError, GridUnavailableError
    from broker.grid.voms_client import request_ac

    servers = vomses.servers_of(name)
    if not servers:
        raise ConfigurationError(_unknown(name, vomses))
    for fqan in fqans:
        if not fqan.belongs_to(servers[0].vo):
            raise InvalidInputError(f"{fqan} is no group of {servers[0].vo}: its groups begin with /{servers[0].vo}")
    reasons: dict[str, None] = {}
    refused = False
    for server in servers:
        try:
            answer = request_ac(server, user, trust_dir, fqans, lifetime=lifetime, seconds=SECONDS_PER_SERVER)
        except (GridRefusedError, GridUnavailableError) as error:
            refused = refused or isinstance(error, GridRefusedError)
            reasons[f"{server.host}:{server.port}: {error}"] = None
        else:
            return Attributes(server.vo, f"{server.host}:{server.port}", answer)
    advice = f"ask the managers of {name} what you are a member of" if refused else "try again later"
    raise NoAttributesError(f"no VOMS attributes of {name} ({'; '.join(reasons)}); {advice}")


def _unknown(name: str, vomses: Vomses) -> str:
    problems = f" (not understood: {'; '.join(vomses.problems)})" if vomses.problems else ""
    return (
        f"no VOMS server is known for {name}: looked in {', '.join(vomses.looked)}{problems};"
        " name a vomses file of your VO with --vomses"
    )
