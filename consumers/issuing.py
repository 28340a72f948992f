"""Limited proxies for pilots: what matched jobs need, and what running ones ask for.

Promises: a pilot gets limited proxies only, only of the owner of a job whose live lease it holds, never of a pilots'
group or with another group's role, and no longer than the job needs; every issue is audited, with the thumbprint of the
certificate, and so is every refusal, but for a count of those that one pilot asks for in a loop; unusual numbers raise
an alarm.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from broker.authorization import is_pilot, may_serve
from broker.identity import (
    CredentialError,
    IdentityError,
    PrivateKey,
    load_private_key,
    parse_certificate,
    sign_csr,
    split_chain,
    thumbprint,
)
from broker.subscriber import Admitted
from schemas.jdl.attributes import DEFAULT_CPU_TIME
from schemas.job import LEASED
from schemas.messages.event import ProxyWanted
from schemas.messages.proxies import ProxyAlarm, RequestProxy
from schemas.messages.service import ProxyIssued

from .batch import Batch
from .delegating import unfit_for
from .directory import Directory
from .domain.proxy_rules import IssueBounds, issue_seconds
from .per_minute import PerMinute
from .store import audit, jobs, proxies, sessions, submission_proxies
from .store.proxies import Issue, Proxy
from .store.rows import JobRow
from .store.submission_proxies import SubmissionProxy
from .vault import Vault, VaultError

SHORTEST = 60.0
"""A pilot is given none that ends sooner: it is of no use."""

UNUSUAL_FOR_PILOT = 200
"""Issues to one pilot within an hour that are worth a look: it needs one per owner, and another every few hours."""

MOST_FOR_PILOT = 2_000
"""Requests of one pilot within an hour beyond which it gets nothing more: no honest pilot comes near it, and signing
and auditing cost us more than asking costs it."""

UNUSUAL_OF_OWNER = 5_000
"""Issues of one owner's within an hour that are worth a look: as many pilots that all take up his jobs in that hour are
a large production already."""

REFUSED_PER_MINUTE = 60
"""Refusals of what one pilot identity asks for that are audited one by one."""

RATE_SECONDS = 3600.0

Stored = Proxy | SubmissionProxy

log = structlog.get_logger(__name__)


class _NotIssuedError(Exception):
    """No proxy for this pilot; the text says why."""


class _Need(msgspec.Struct, frozen=True, rename={"cpu_time": "CPUTime"}):
    """What of a job's description says how long it runs."""

    cpu_time: float = DEFAULT_CPU_TIME


@dataclass(frozen=True, slots=True)
class _Order:
    """One wanted proxy.

    Attributes:
        asked: the pilot's own request; None for what the matcher ordered.
    """

    client: str
    job: int
    attempt: int
    owner: str
    group: str
    csr: bytes
    asked: Admitted | None = None


class Issuing:
    """Limited proxies for the pilots of one batch.

    Args:
        batch: the batch.
        directory: registry.
        vault: decrypts private keys.
        bounds: of lifetimes.
        refusals: quota of refusals that are audited, for each pilot identity.
    """

    def __init__(
        self, batch: Batch, directory: Directory, vault: Vault, bounds: IssueBounds, refusals: PerMinute
    ) -> None:
        self._batch = batch
        self._directory = directory
        self._vault = vault
        self._bounds = bounds
        self._refusals = refusals
        self._keys: dict[str, PrivateKey] = {}
        self._counts: Counter[str] = Counter()
        self._issued: list[Issue] = []
        self._lines: list[tuple[float, str, str, str, Mapping[str, object]]] = []

    def issue(self, wanted: Sequence[ProxyWanted], asked: Sequence[Admitted]) -> None:
        """Answer each with a proxy or a reason.

        Args:
            wanted: what the matcher ordered: the account's proxy.
            asked: what pilots ask for (``proxy.request``): a submission's own proxy where it has one.
        """
        requests = [(one, message) for one in asked if isinstance(message := one.message, RequestProxy)]
        ids = {order.job for order in wanted} | {message.job for _, message in requests}
        rows = jobs.load(self._batch.tx, ids, for_update=False)
        orders = [_Order(one.client, one.job, one.attempt, one.owner, one.group, one.csr) for one in wanted]
        orders += [order for one, message in requests if (order := self._accept(one, message, rows)) is not None]
        stored: Mapping[tuple[str, str], Proxy] = proxies.get(
            self._batch.tx, {(order.owner, order.group) for order in orders}
        )
        own = self._own([order for order in orders if order.asked is not None], rows)
        needs = self._needs({order.job for order in orders if order.job in rows})
        for order in orders:
            try:
                row = self._check(order, rows.get(order.job))
                proxy = self._proxy(order, row, stored, own)
                chain, issue = self._sign(order, proxy, needs.get(order.job, DEFAULT_CPU_TIME))
            except _NotIssuedError as refusal:
                self._tell(order, reason=str(refusal))
                self._refuse(order, str(refusal))
            else:
                self._tell(order, chain=chain, not_after=issue.not_after)
                self._issued.append(issue)
        proxies.record_issues(self._batch.tx, self._issued)
        self._watch_rates()
        audit.append_many(self._batch.tx, self._lines)

    def _accept(self, message: Admitted, asked: RequestProxy, rows: Mapping[int, JobRow]) -> _Order | None:
        """A pilot's own request as an order; refused at once if it does not hold the job."""
        row = rows.get(asked.job)
        if row is None or not _holds(row, asked.attempt, message.client):
            reason = "the pilot does not hold the live lease of that job"
            who = message.principal.identity
            if self._refusals.take(who, self._batch.now):
                detail = {"job": asked.job, "attempt": asked.attempt, "reason": reason, **self._left_out(who)}
                self._lines.append((self._batch.now, "proxy.refused", who, message.client, detail))
            self._batch.refuse(message, "denied", reason)
            return None
        if message.client not in self._counts:
            since = self._batch.now - RATE_SECONDS
            self._counts[message.client] = proxies.issues_since(self._batch.tx, since, client=message.client)
        self._counts[message.client] += 1
        if self._counts[message.client] > MOST_FOR_PILOT:
            reason = f"{MOST_FOR_PILOT} proxies within an hour are enough for any pilot: try again later"
            self._batch.refuse(message, "limit", reason)
            return None
        return _Order(message.client, asked.job, asked.attempt, row.owner, row.grp, asked.csr, message)

    def _own(self, orders: Sequence[_Order], rows: Mapping[int, JobRow]) -> dict[int, SubmissionProxy]:
        return submission_proxies.of_submissions(self._batch.tx, {rows[order.job].submission for order in orders})

    def _needs(self, ids: Collection[int]) -> dict[int, float]:
        found = jobs.details(self._batch.tx, ids)
        return {job: msgspec.json.decode(one.description, type=_Need).cpu_time for job, one in found.items()}

    def _check(self, order: _Order, row: JobRow | None) -> JobRow:
        if row is None or not _holds(row, order.attempt, order.client):
            raise _NotIssuedError("the pilot does not hold the live lease of that job")
        if (row.owner, row.grp) != (order.owner, order.group):
            raise _NotIssuedError("the job is another owner's")
        group = self._directory.registry().groups.get(order.group)
        if group is None or is_pilot(frozenset(group.properties)):
            raise _NotIssuedError("no payload runs with a proxy of that group")
        if self._directory.principal(order.owner, order.group, order.client) is None:
            raise _NotIssuedError("the owner is suspended, or not in that group any more")
        session = sessions.get(self._batch.tx, order.client)
        if session is None:
            raise _NotIssuedError("the pilot's login is not known any more: it must log in anew")
        pilot = self._directory.principal(session.identity, session.grp, order.client)
        if pilot is None:
            raise _NotIssuedError("the pilot is suspended, or not known any more")
        if not may_serve(pilot, order.owner):
            raise _NotIssuedError("the pilot may not serve this owner")
        return row

    def _proxy(
        self,
        order: _Order,
        row: JobRow,
        stored: Mapping[tuple[str, str], Proxy],
        own: Mapping[int, SubmissionProxy],
    ) -> Stored:
        """The stored proxy that serves this order."""
        account = stored.get((order.owner, order.group))
        mine = own.get(row.submission) if order.asked is not None else None
        proxy: Stored | None = account if mine is None else mine
        if proxy is None or proxy.not_after < self._batch.now + SHORTEST:
            raise _NotIssuedError("the owner's delegated proxy is missing or has expired")
        if (proxy.dn, proxy.grp) != (order.owner, order.group):
            raise _NotIssuedError("the stored proxy is another owner's")
        return proxy

    def _sign(self, order: _Order, proxy: Stored, cpu_time: float) -> tuple[str, Issue]:
        now = self._batch.now
        try:
            key = self._key(proxy)
            pem = sign_csr(
                order.csr,
                proxy.chain,
                key,
                lifetime=dt.timedelta(seconds=issue_seconds(cpu_time, proxy.not_after - now, self._bounds)),
                limited=True,
                now=dt.datetime.fromtimestamp(now, dt.UTC),
            )
        except IdentityError as error:
            raise _NotIssuedError(f"no proxy could be made: {error}") from None
        except (VaultError, CredentialError):
            # Without the traceback: it could quote what was read.
            log.error("proxy.key_unreadable", owner=proxy.dn, group=proxy.grp)  # noqa: TRY400
            raise _NotIssuedError("the repository cannot read the owner's proxy; he must delegate a new one") from None
        leaf, parent, *_ = split_chain(pem)
        certificate = parse_certificate(leaf)
        end = certificate.x509.not_valid_after_utc.timestamp()
        mark = thumbprint(leaf)
        facts = {
            "not_after": end,
            "seconds": round(end - now),
            "serial": f"{certificate.serial:x}",
            "thumbprint": mark,
            "parent": thumbprint(parent),
            "own": isinstance(proxy, SubmissionProxy),
            "again": order.asked is not None,
        }
        self._note("proxy.issued", order, facts)
        return pem.decode("ascii"), Issue(
            order.client, order.owner, order.group, end, order.job, order.attempt, now, mark
        )

    def _key(self, proxy: Stored) -> PrivateKey:
        """The key of a stored proxy, decrypted once a batch; in memory only."""
        if proxy.place not in self._keys:
            unfit = unfit_for(self._directory, proxy.grp, tuple(split_chain(proxy.chain)))
            if unfit:
                raise _NotIssuedError(f"the owner's proxy serves no payload: {unfit}")
            self._keys[proxy.place] = load_private_key(self._vault.decrypt(proxy.key, proxy.place))
        return self._keys[proxy.place]

    def _tell(self, order: _Order, *, chain: str = "", not_after: float = 0.0, reason: str = "") -> None:
        answer = ProxyIssued(
            owner=order.owner,
            group=order.group,
            csr_sha256=hashlib.sha256(order.csr).hexdigest(),
            chain=chain,
            not_after=not_after,
            reason=reason[:4096],
        )
        if order.asked is None:
            self._batch.tell(order.client, answer)
        else:
            self._batch.answer(order.asked, answer)

    def _note(self, event: str, order: _Order, detail: Mapping[str, object]) -> None:
        facts = {"group": order.group, "job": order.job, "attempt": order.attempt, **detail}
        self._lines.append((self._batch.now, event, order.owner, order.client, facts))

    def _refuse(self, order: _Order, reason: str) -> None:
        """Write down that an order was refused; the matcher's are as many as there are matches."""
        if order.asked is None:
            self._note("proxy.refused", order, {"reason": reason})
        elif self._refusals.take(who := order.asked.principal.identity, self._batch.now):
            self._note("proxy.refused", order, {"reason": reason, **self._left_out(who)})

    def _left_out(self, who: str) -> dict[str, object]:
        left_out = self._refusals.owed(who)
        return {"unrecorded": left_out} if left_out else {}

    def _watch_rates(self) -> None:
        """A pilot that gets very many proxies, or an owner of whom very many are made, is worth a look."""
        for client in {issue.client for issue in self._issued}:
            self._watch("pilot", UNUSUAL_FOR_PILOT, client=client)
        for owner in {issue.owner for issue in self._issued}:
            self._watch("owner", UNUSUAL_OF_OWNER, owner=owner)

    def _watch(self, about: str, limit: int, *, client: str = "", owner: str = "") -> None:
        """Raise the alarm when the limit is passed with this batch."""
        now = self._batch.now
        mine = sum(issue.client == client if client else issue.owner == owner for issue in self._issued)
        count = proxies.issues_since(self._batch.tx, now - RATE_SECONDS, client=client, owner=owner)
        if count >= limit > count - mine:
            log.warning("proxy.unusual_rate", about=about, client=client, owner=owner, issues=count)
            self._lines.append((now, "proxy.unusual-rate", owner, client, {"about": about, "issues": count}))
            alarm = ProxyAlarm(time=now, about=about, client=client, owner=owner, issues=count, seconds=RATE_SECONDS)
            self._batch.publish(alarm)


def _holds(row: JobRow, attempt: int, client: str) -> bool:
    return row.status in LEASED and (row.attempt, row.pilot) == (attempt, client)
