"""Who is connected, and cutting connections: what operators ask the gatekeeper."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..registry import HOUR, MINUTE, Kind, Message, register
from .common import Count, Epoch, Name, Text, Value
from .service import CLIENT


@register("session.query.v1", Kind.QUERY, "gatekeeper", lifetime=5 * MINUTE)
class QuerySessions(Message, frozen=True, kw_only=True):
    """Who is connected? Answer: ``session.listing.v1``.

    Attributes:
        who: canonical DN, client id, or group; empty for all.
        kind: only these (``user``, ``pilot``, …); empty for all.
        limit: at most so many, those that logged in last first.
    """

    who: str = ""
    kind: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@register("session.cut.v1", Kind.COMMAND, "gatekeeper", lifetime=5 * MINUTE)
class CutSessions(Message, frozen=True, kw_only=True):
    """Close the connections of somebody now. He may log in again, unless he is suspended. Answer: ``session.ended.v1``.

    Attributes:
        who: canonical DN, or the id of one client.
        reason: told to him by the broker, and kept in the audit.
    """

    who: Name
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class SessionInfo(Value, frozen=True, kw_only=True):
    """One client that is connected.

    Attributes:
        since: its last login.
        connections: at the broker.
    """

    client: Name
    identity: str
    group: str = ""
    kind: str = ""
    since: Epoch
    connections: Count


@register("session.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class SessionListing(Message, frozen=True, kw_only=True):
    """Clients that are connected now.

    Attributes:
        total: how many there are that fit the question.
    """

    sessions: tuple[SessionInfo, ...]
    total: Count


@register("session.ended.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class SessionsEnded(Message, frozen=True, kw_only=True):
    """What was cut.

    Attributes:
        clients: that were connected.
        connections: that were closed.
        left: clients of which connections could not be closed; it is tried again if they may not be connected.
        reason: why not.
    """

    clients: Count
    connections: Count
    left: tuple[str, ...] = ()
    reason: Text = ""
