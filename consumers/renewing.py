"""Renewal of stored proxies through MyProxy, and VOMS attributes for those that have none.

Promises: renewed is only what still lives, whose owner still may, and for which jobs are active; by the service's host
certificate and with the old proxy as proof. A proxy never gets a longer life by an attribute. The conversations happen
in threads of their own with bounded times; what comes back is verified like everything else; each failure is audited,
told as an event and tried again later. Keys are in memory only while they serve.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from broker.authorization import is_pilot
from broker.grid import myproxy
from broker.grid.errors import GridRefusedError
from broker.grid.voms_client import VomsEntry, Vomses, load_vomses, request_ac
from broker.identity import (
    Credential,
    IdentityError,
    VerifiedChain,
    create_proxy,
    key_pem,
    load_credential,
    load_private_key,
    pem_chain,
    split_chain,
    thumbprint,
)
from schemas.errors import InvalidInputError, PilotageError
from schemas.identity import Fqan
from schemas.messages.proxies import ProxyRenewal

from .batch import Batch
from .delegating import SLACK, unfit_for
from .directory import Directory
from .domain.proxy_rules import attribute_due, has_attribute, next_try, renewal_due
from .errands import Errands
from .settings import RenewalSettings
from .store import audit, proxies, proxy_care
from .store.proxies import Account, Proxy, Term
from .store.proxy_care import Care
from .vault import Vault

CLAIM_SECONDS = 180.0
"""How long an account's errand is this process's: longer than its conversations together may take."""

LEAST_GAIN = 600.0
"""A renewed proxy that ends so little later than the old one is none: the long one with MyProxy is about to end."""

AT_ONCE = 200
"""Errands begun at one look."""

VOMSES_SECONDS = 300.0
"""How long the list of VOMS servers is kept: reading it happens inside a transaction."""

PROXY, ATTRIBUTE = "proxy", "attribute"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one errand.

    Attributes:
        what: ``proxy`` or ``attribute``: what was wanted.
        old: what was stored.
        new: what is to be stored, if anything.
        trouble: what went wrong; a renewed proxy may lack its attribute.
    """

    what: str
    old: Proxy
    new: Proxy | None
    trouble: str = ""


class Renewing:
    """Keeps stored proxies alive and attributed.

    Args:
        directory: registry, and verification of chains.
        vault: keys at rest.
        settings: servers and credentials.
        longest: of a stored proxy, seconds.
        clock: server time.
    """

    def __init__(
        self, directory: Directory, vault: Vault, settings: RenewalSettings, longest: float, clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._vault = vault
        self._settings = settings
        self._longest = longest
        self._clock = clock
        self._errands: Errands[Result] = Errands("renewal")
        self._known_servers = Vomses()
        self._vomses_again = float("-inf")
        self._attribute_ends: dict[tuple[str, str, float, float], float | None] = {}

    @property
    def has_results(self) -> bool:
        """Whether :meth:`settle` has something to do."""
        return bool(self._errands.done)

    # -- inside a transaction -----------------------------------------------------------------------------------

    def plan(
        self, batch: Batch, terms: Collection[Term], active: Collection[Account], care: Mapping[Account, Care]
    ) -> None:
        """Begin what is due."""
        vomses = self._vomses()
        begun = 0
        for term in terms:
            known = care.get(term.account, Care(term.dn, term.grp))
            if begun >= AT_ONCE or (known.not_before is not None and known.not_before > batch.now):
                continue
            what = self._due(batch, term, vomses, is_active=term.account in active)
            if what and proxy_care.claim(batch.tx, known, batch.now, batch.now + CLAIM_SECONDS):
                begun += 1
                for proxy in proxies.get(batch.tx, [term.account]).values():
                    batch.commits.append(partial(self._errands.run, partial(self._do, what, proxy, vomses)))

    def _due(self, batch: Batch, term: Term, vomses: Vomses, *, is_active: bool) -> str:
        group = self._directory.registry().groups.get(term.grp)
        if group is None or is_pilot(frozenset(group.properties)):
            return ""
        if self._directory.principal(term.dn, term.grp, "") is None:
            return ""  # suspended or gone: nobody renews for him
        renews = self._settings.myproxy is not None and is_active
        if renews and renewal_due(term.stored, term.not_after, batch.now):
            return PROXY
        if self._servers(vomses, group.fqan):
            ends = self._attribute_end(batch, term, group.fqan)
            if attribute_due(term.stored, term.not_after, ends, batch.now):
                return ATTRIBUTE
        return ""

    def _attribute_end(self, batch: Batch, term: Term, fqan: str) -> float | None:
        """When the group's attribute in a stored chain ends; looked up once per chain."""
        key = (term.dn, term.grp, term.stored, term.not_after)
        if key not in self._attribute_ends or self._attribute_ends[key] is None:
            if len(self._attribute_ends) > 10_000:
                self._attribute_ends.clear()
            stored = proxies.get(batch.tx, [term.account]).get(term.account)
            self._attribute_ends[key] = None if stored is None else self._end_in(stored.chain, fqan)
        return self._attribute_ends[key]

    def _end_in(self, chain: str, fqan: str) -> float | None:
        try:
            return _attribute_end(self._directory.verify(split_chain(chain)), fqan)
        except IdentityError:
            return None

    def settle(self, batch: Batch) -> None:
        """Store what came back, and tell what did not."""
        results = self._errands.done
        care = proxy_care.load(batch.tx) if results else {}
        for result in results:
            account = (result.old.dn, result.old.grp)
            if result.new is not None:
                proxies.put(batch.tx, result.new)
                if result.what == ATTRIBUTE and account in care:
                    # It ends when it ended before: who was warned is not warned again.
                    known = care[account]
                    proxy_care.put(batch.tx, [Care(*account, idle_since=known.idle_since, warned=known.warned)])
                self._say(batch, result, renewed=True, not_after=result.new.not_after)
            if result.trouble:
                failures = care[account].failures + 1 if account in care and result.new is None else 1
                later = next_try(failures, batch.now)
                kept = care.get(account, Care(*account)) if result.new is None else Care(*account)
                trouble = result.trouble[:1000]
                proxy_care.put(
                    batch.tx,
                    [msgspec.structs.replace(kept, not_before=later, failures=failures, trouble=trouble)],
                )
                self._say(batch, result, renewed=False, not_after=result.old.not_after, later=later)
        batch.commits.append(partial(self._errands.drop, len(results)))

    @staticmethod
    def _say(batch: Batch, result: Result, *, renewed: bool, not_after: float, later: float | None = None) -> None:
        what = result.what if renewed or result.new is None else ATTRIBUTE
        reason = "" if renewed else result.trouble[:1000]
        event = f"proxy.{'renewed' if what == PROXY else 'attributed'}" if renewed else f"proxy.{what}-failed"
        detail: dict[str, object] = {"group": result.old.grp, "not_after": not_after}
        if reason:
            detail["reason"] = reason
        if renewed and result.new is not None:
            detail |= {"thumbprint": _mark(result.new.chain), "previous": _mark(result.old.chain)}
        audit.append(batch.tx, batch.now, event, identity=result.old.dn, detail=detail)
        fact = ProxyRenewal(
            time=batch.now,
            owner=result.old.dn,
            group=result.old.grp,
            what=what,
            renewed=renewed,
            not_after=not_after,
            reason=reason,
            next_try=later,
        )
        batch.publish(fact)

    # -- in a thread of its own ---------------------------------------------------------------------------------

    def _do(self, what: str, old: Proxy, vomses: Vomses) -> Result:
        """One errand; whatever happens is a result, and no key is in it."""
        try:
            key = load_private_key(self._vault.decrypt(old.key, old.place))
            credential = Credential(key, tuple(split_chain(old.chain)))
            group = self._directory.registry().groups.get(old.grp)
            fqan = "" if group is None else group.fqan
            if what == ATTRIBUTE:
                attributed = self._attributed(credential, old.not_after, fqan, vomses)
                return Result(what, old, self._sealed(old, attributed, stored=old.stored))
            fresh = self._renewed(credential, old)
        except PilotageError as error:
            return Result(what, old, None, str(error))
        except OSError as error:
            return Result(what, old, None, f"cannot be reached: {error.strerror}")
        trouble = ""
        if self._servers(vomses, fqan):
            try:
                fresh = self._attributed(fresh, self._clock() + self._longest + SLACK, fqan, vomses)
            except (PilotageError, OSError) as error:
                trouble = str(error)  # the renewed one serves without, too
        try:
            return Result(what, old, self._sealed(old, fresh, stored=self._clock()), trouble)
        except PilotageError as error:
            return Result(what, old, None, str(error))

    def _renewed(self, credential: Credential, old: Proxy) -> Credential:
        """A new proxy from MyProxy, verified.

        Raises:
            PilotageError: why not.
        """
        where = self._settings.myproxy
        if where is None:
            raise GridRefusedError("no MyProxy server is configured")
        server = myproxy.Server(where.host, self._settings.trust_dir, where.port, where.server)
        fresh = myproxy.renew(
            server,
            load_credential(where.credential),
            old.dn,
            credential,
            lifetime=dt.timedelta(seconds=self._longest),
            name=myproxy.CREDENTIAL_NAME,
        )
        chain = self._checked(old, fresh)
        end, now = chain.not_after.timestamp(), self._clock()
        if end > now + self._longest + SLACK:
            raise GridRefusedError(f"MyProxy gave a proxy of more than {self._longest / 3600:.0f} h")
        if end < old.not_after + LEAST_GAIN:
            raise GridRefusedError("the long proxy with MyProxy is about to end: its owner must leave a new one there")
        return fresh

    def _attributed(self, credential: Credential, until: float, fqan: str, vomses: Vomses) -> Credential:
        """The same proxy one link longer, with the group's attribute; it ends no later.

        Raises:
            PilotageError: no server gave the attribute, or what it gave does not count here.
        """
        left = dt.timedelta(seconds=max(1.0, until - self._clock()))
        problem: PilotageError = GridRefusedError(f"no VOMS server is known for {fqan}")
        for server in self._servers(vomses, fqan):
            try:
                wanted = [Fqan.parse(fqan)]
                answer = request_ac(server, credential, self._settings.trust_dir, wanted, lifetime=left)
            except PilotageError as error:
                problem = error
                continue
            now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
            made = create_proxy(
                credential.ders, credential.key, lifetime=left, limited=False, now=now, acs=[answer.der]
            )
            if _attribute_end(self._directory.verify(list(made.ders)), fqan) is None:
                raise GridRefusedError(f"the attribute {fqan} of {server.host} does not count here")
            return made
        raise problem

    def _checked(self, old: Proxy, fresh: Credential) -> VerifiedChain:
        """Verify what came, as if a stranger had sent it.

        Raises:
            PilotageError: it is not what was asked for.
        """
        chain = self._directory.verify(list(fresh.ders))
        if chain.identity != old.dn:
            raise GridRefusedError(f"MyProxy gave a proxy of {chain.identity}")
        if chain.limited:
            raise GridRefusedError("MyProxy gave a limited proxy")
        unfit = unfit_for(self._directory, old.grp, chain.ders)
        if unfit:
            raise GridRefusedError(f"the renewed proxy is refused: {unfit}")
        return chain

    def _sealed(self, old: Proxy, fresh: Credential, *, stored: float) -> Proxy:
        chain = self._checked(old, fresh)
        key = self._vault.encrypt(key_pem(fresh.key), old.place)
        pem = pem_chain(chain.ders).decode("ascii")
        return Proxy(old.dn, old.grp, pem, key, chain.not_after.timestamp(), stored)

    # -- VOMS servers -------------------------------------------------------------------------------------------

    def _vomses(self) -> Vomses:
        """Read anew from time to time: a few small files, and nobody must restart for them."""
        if self._settings.vomses is not None and self._clock() >= self._vomses_again:
            self._known_servers = load_vomses([self._settings.vomses])
            self._vomses_again = self._clock() + VOMSES_SECONDS
        return self._known_servers

    @staticmethod
    def _servers(vomses: Vomses, fqan: str) -> tuple[VomsEntry, ...]:
        """The servers of an FQAN's VO; none where attributes are not wanted."""
        if not vomses.entries or not fqan:
            return ()
        try:
            vo = Fqan.parse(fqan).vo
        except InvalidInputError:
            return ()
        return tuple(entry for entry in vomses.entries if entry.vo == vo)


def _attribute_end(chain: VerifiedChain, fqan: str) -> float | None:
    """When the last valid attribute certificate that names an FQAN ends; None if there is none."""
    ends = [ac.not_after.timestamp() for ac in chain.acs if ac.valid and ac.not_after and has_attribute(ac.fqans, fqan)]
    return max(ends, default=None)


def _mark(chain: str) -> str:
    """Thumbprint of a kept proxy's own certificate."""
    return thumbprint(split_chain(chain)[0])
