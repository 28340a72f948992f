"""Proxies: what pilots ask for jobs that run, what operators ask of the repository, and facts about proxies."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Attempt, Count, Epoch, JobId, Name, Text, Value
from .event import EVENTS
from .service import CLIENT

LISTING_BYTES = 4 << 20
"""A thousand stored proxies at half a kilobyte, twice over."""

Dn = Annotated[str, Meta(max_length=4096)]
Group = Annotated[str, Meta(max_length=256)]
KeyId = Annotated[str, Meta(max_length=64)]


@register("proxy.request.v1", Kind.COMMAND, "proxy-manager", lifetime=10 * MINUTE)
class RequestProxy(Message, frozen=True, kw_only=True):
    """A job of mine goes on for longer than its owner's proxy. Answer: ``proxy.issued.v1`` or ``request.refused.v1``.

    Also the way to the proxy of a job that has one of its own (``own_proxy`` of its match).

    Attributes:
        csr: certificate request (DER) with a fresh key.
    """

    job: JobId
    attempt: Attempt
    csr: Annotated[bytes, Meta(min_length=1, max_length=4096)]


# -- operators ------------------------------------------------------------------------------------------------------


@register("repository.query.v1", Kind.QUERY, "proxy-manager", lifetime=5 * MINUTE)
class QueryRepository(Message, frozen=True, kw_only=True):
    """Whose proxies are stored, and with which master keys? Answer: ``repository.listing.v1``.

    Attributes:
        owner: only of this DN; empty for all.
        offset: so many are skipped: the next page.
    """

    owner: Dn = ""
    offset: Count = 0
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100


@register("repository.reencrypt.v1", Kind.COMMAND, "proxy-manager", lifetime=HOUR)
class ReencryptRepository(Message, frozen=True, kw_only=True):
    """Read the master keys' files anew and encrypt everything with the first. Answer: ``repository.reencrypted.v1``."""


@register("repository.delete.v1", Kind.COMMAND, "proxy-manager", lifetime=HOUR)
class DeleteProxies(Message, frozen=True, kw_only=True):
    """Forget the stored proxies of somebody, with their keys. Answer: ``repository.deleted.v1``.

    Attributes:
        group: only of this group; empty for all of them.
    """

    owner: Annotated[str, Meta(min_length=1, max_length=4096)]
    group: Group = ""
    reason: Text = ""


class StoredProxy(Value, frozen=True, kw_only=True):
    """One stored proxy; never its key.

    Attributes:
        submission: whose jobs alone it serves; 0 for the account's.
        jobs: active jobs that it serves.
        key: id of the master key that its key is encrypted with; empty for those of the first release.
        trouble: why it could not be renewed at the last try.
    """

    owner: str
    group: str
    submission: int = 0
    not_after: Epoch
    stored: Epoch
    jobs: int = 0
    key: KeyId = ""
    trouble: Text = ""


class MasterKey(Value, frozen=True, kw_only=True):
    """A master key, by its id.

    Attributes:
        id: hash; empty for rows of the first release, which do not name theirs.
        rows: private keys that are encrypted with it.
        at_hand: the service has it.
        newest: new rows are encrypted with it.
    """

    id: KeyId
    rows: int = 0
    at_hand: bool = False
    newest: bool = False


@register("repository.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=LISTING_BYTES)
class RepositoryListing(Message, frozen=True, kw_only=True):
    """What the repository holds.

    Attributes:
        more: another page follows.
        renews: MyProxy is configured.
        adds_attributes: VOMS servers are configured.
    """

    proxies: tuple[StoredProxy, ...] = ()
    more: bool = False
    keys: tuple[MasterKey, ...] = ()
    renews: bool = False
    adds_attributes: bool = False


@register("repository.reencrypted.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class RepositoryReencrypted(Message, frozen=True, kw_only=True):
    """What was done.

    Attributes:
        done: private keys that were encrypted anew.
        unreadable: those that no master key at hand decrypts; they stay as they are until they end.
        left: those for another go; ask again.
    """

    done: int
    unreadable: int = 0
    left: int = 0
    keys: tuple[MasterKey, ...] = ()


@register("repository.deleted.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class RepositoryDeleted(Message, frozen=True, kw_only=True):
    """How many proxies are gone."""

    count: int


# -- facts ----------------------------------------------------------------------------------------------------------


@register("proxy.expiring.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class ProxyExpiring(Message, frozen=True, kw_only=True):
    """A stored proxy ends soon and jobs need it; told once at each threshold.

    Attributes:
        seconds: the threshold: it ends within so long.
        jobs: active jobs that need it.
        submission: whose jobs alone it serves; 0 for the account's.
        renewable: the service can still renew it; otherwise the owner must delegate a new one.
        reason: why not, or why the last try failed.
    """

    time: Epoch
    owner: Name
    group: Name
    not_after: Epoch
    seconds: float
    jobs: int
    submission: int = 0
    renewable: bool = False
    reason: Text = ""


@register("proxy.renewal.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class ProxyRenewal(Message, frozen=True, kw_only=True):
    """A stored proxy was renewed or got a VOMS attribute; or could not, and why.

    Attributes:
        what: ``proxy`` or ``attribute``.
        renewed: whether it worked.
        not_after: end of what is stored now.
        reason: why not.
        next_try: earliest time of the next one.
    """

    time: Epoch
    owner: Name
    group: Name
    what: Annotated[str, Meta(pattern="^(proxy|attribute)$")]
    renewed: bool
    not_after: Epoch = 0.0
    reason: Text = ""
    next_try: Epoch | None = None


@register("proxy.alarm.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class ProxyAlarm(Message, frozen=True, kw_only=True):
    """Unusually many proxies went to one pilot, or of one owner's: worth a look.

    Attributes:
        about: ``pilot`` or ``owner``.
        client: the pilot.
        owner: the owner.
        issues: so many within ``seconds``.
    """

    time: Epoch
    about: Annotated[str, Meta(pattern="^(pilot|owner)$")]
    client: str = ""
    owner: str = ""
    issues: int
    seconds: float
