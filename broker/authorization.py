"""Who may do what: one table, deny by default.

Used by the subscriber before any handler, by the gatekeeper for the broker's rights, and by clients, which accept an
answer only from a service that the table lets send it. A message type without a row may be sent by nobody; a test
counts the rows. Ownership of jobs is decided by :func:`may_touch_job` (DIRAC's JobPolicy). Beside the table stand
operators' rules (:mod:`.rules`), carried by each principal: a denial wins; a grant replaces a missing property and
nothing else, so it opens no other door, lifts no demand for a full proxy, and never gives what only services may send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.access import ANYTHING, AccessRule, Effect

from .refusal import RefusalError
from .rules import EVENTS_READ, OPERATIONS, PAYLOAD_RUN, denial, is_granted, refusal, select


class Property(StrEnum):
    """What a group may do (DIRAC's properties)."""

    NORMAL_USER = "NormalUser"
    """Submit jobs and act on one's own."""
    JOB_SHARING = "JobSharing"
    """Act on the jobs of one's own group."""
    JOB_MONITOR = "JobMonitor"
    """See all jobs and the monitoring stream."""
    JOB_ADMINISTRATOR = "JobAdministrator"
    """Act on all jobs."""
    GENERIC_PILOT = "GenericPilot"
    """Be a pilot."""
    PRIVATE_PILOT = "PrivatePilot"
    """Be a pilot for jobs of one's own and for nobody else's. For a group that has no other property."""
    DATA_MANAGER = "DataManager"
    """Register replicas."""
    OPERATOR = "Operator"
    """Operate the system: dead letters and the like."""
    AUDITOR = "Auditor"
    """Read the audit and the monitoring stream, and change nothing: for those who look at what operators did."""


class Door(StrEnum):
    """Which exchange a sender's message enters by."""

    USERS = "pilotage.users"
    PILOTS = "pilotage.pilots"
    ADMIN = "pilotage.admin"
    EVENTS = "pilotage.events"
    REPLIES = "pilotage.replies"
    QUEUE = ""
    """Straight into a queue by the default exchange: services only."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        doors: by which exchanges the message may come.
        properties: a user or pilot needs one of these.
        services: services that may send it.
        full_proxy: a limited proxy does not do (it is for payloads on worker nodes).
    """

    doors: tuple[Door, ...]
    properties: frozenset[Property] = frozenset()
    services: frozenset[str] = frozenset()
    full_proxy: bool = False


_P = Property
_USERS = (Door.USERS,)
_PILOTS = (Door.PILOTS,)
_ACT = frozenset({_P.NORMAL_USER, _P.JOB_SHARING, _P.JOB_ADMINISTRATOR})
_SEE = frozenset({_P.NORMAL_USER, _P.JOB_SHARING, _P.JOB_ADMINISTRATOR, _P.JOB_MONITOR, _P.OPERATOR})
_PILOT = frozenset({_P.GENERIC_PILOT, _P.PRIVATE_PILOT})
_OPERATE = frozenset({_P.OPERATOR})
_SIGHT = frozenset({_P.JOB_MONITOR, _P.OPERATOR, _P.AUDITOR})
_AUDIT = frozenset({_P.OPERATOR, _P.AUDITOR})


def _user(*properties: Property, full_proxy: bool = False) -> Rule:
    return Rule(_USERS, frozenset(properties), full_proxy=full_proxy)


def _answer(*services: str) -> Rule:
    return Rule((Door.REPLIES,), services=frozenset(services))


def _event(*services: str) -> Rule:
    return Rule((Door.EVENTS,), services=frozenset(services))


_EVERY_SERVICE = (
    "auditor",
    "gatekeeper",
    "job-manager",
    "job-monitor",
    "job-state",
    "matcher",
    "optimizer",
    "pilot-authority",
    "proxy-manager",
    "registry",
    "replica-catalog",
    "sandbox-store",
    "dead-letters",
    "relay",
)
SERVICES = frozenset(_EVERY_SERVICE)
"""The logical names of our services; each is a broker user and an audience."""

_ON_BEHALF = "relay"
"""The relay publishes what a crashed service had committed: it may send whatever any service may."""

TABLE: Mapping[str, Rule] = {
    # users
    "job.submit.v1": _user(_P.NORMAL_USER, _P.JOB_ADMINISTRATOR, full_proxy=True),
    "job.kill.v1": Rule(_USERS, _ACT, full_proxy=True),
    "job.delete.v1": Rule(_USERS, _ACT, full_proxy=True),
    "job.reschedule.v1": Rule(_USERS, _ACT, full_proxy=True),
    "job.query.v1": Rule(_USERS, _SEE),
    "job.inspect.v1": Rule(_USERS, _SEE),
    "job.follow.v1": Rule(_USERS, _SEE),
    "job.explain.v1": Rule(_USERS, _SEE),
    "job.weigh.v1": _user(_P.NORMAL_USER, _P.JOB_ADMINISTRATOR),
    "queue.query.v1": Rule(_USERS, _SEE),
    "queue.inspect.v1": Rule(_USERS, _SEE),
    "delegation.request.v1": _user(_P.NORMAL_USER, _P.JOB_ADMINISTRATOR, full_proxy=True),
    "delegation.put.v1": _user(_P.NORMAL_USER, _P.JOB_ADMINISTRATOR, full_proxy=True),
    "replica.register.v1": _user(_P.NORMAL_USER, _P.DATA_MANAGER, full_proxy=True),
    "replica.query.v1": Rule(_USERS, _SEE),
    # users and pilots
    "sandbox.put.v1": Rule((Door.USERS, Door.PILOTS), _PILOT | {_P.NORMAL_USER}),
    "sandbox.get.v1": Rule((Door.USERS, Door.PILOTS), _SEE | _PILOT),
    # pilots
    "match.request.v1": Rule(_PILOTS, _PILOT),
    "job.accept.v1": Rule(_PILOTS, _PILOT),
    "job.report.v1": Rule(_PILOTS, _PILOT),
    "pilot.heartbeat.v1": Rule(_PILOTS, _PILOT),
    "pilot.goodbye.v1": Rule(_PILOTS, _PILOT),
    "control.done.v1": Rule(_PILOTS, _PILOT),
    "proxy.request.v1": Rule(_PILOTS, _PILOT),
    "pilot.renew.v1": Rule(_PILOTS, frozenset({_P.GENERIC_PILOT})),
    # operators; nothing of theirs is for worker nodes, where payloads hold limited proxies of their owners
    "dead.query.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "dead.replay.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "dead.discard.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "repository.query.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "repository.reencrypt.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "repository.delete.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "registry.query.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "registry.history.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "registry.change.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "registry.sync.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "enrolment.query.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "enrolment.create.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "enrolment.revoke.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    # operators and auditors
    "audit.query.v1": Rule((Door.ADMIN,), _AUDIT, full_proxy=True),
    "audit.walk.v1": Rule((Door.ADMIN,), _AUDIT, full_proxy=True),
    "audit.trace.v1": Rule((Door.ADMIN,), _AUDIT, full_proxy=True),
    "session.query.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    "session.cut.v1": Rule((Door.ADMIN,), _OPERATE, full_proxy=True),
    # services to clients
    "session.welcome.v1": _answer("gatekeeper"),
    "session.listing.v1": _answer("gatekeeper"),
    "session.ended.v1": _answer("gatekeeper"),
    "chain.unknown.v1": _answer(*_EVERY_SERVICE),
    "request.refused.v1": _answer(*_EVERY_SERVICE),
    "job.submitted.v1": _answer("job-manager", _ON_BEHALF),
    "job.commanded.v1": _answer("job-manager", _ON_BEHALF),
    "job.listing.v1": _answer("job-monitor", _ON_BEHALF),
    "job.detail.v1": _answer("job-monitor", _ON_BEHALF),
    "job.progress.v1": _answer("job-monitor", _ON_BEHALF),
    "job.explained.v1": _answer("job-monitor", _ON_BEHALF),
    "job.weighed.v1": _answer("job-monitor", _ON_BEHALF),
    "queue.listing.v1": _answer("job-monitor", _ON_BEHALF),
    "queue.detail.v1": _answer("job-monitor", _ON_BEHALF),
    "delegation.csr.v1": _answer("proxy-manager", _ON_BEHALF),
    "delegation.stored.v1": _answer("proxy-manager", _ON_BEHALF),
    "sandbox.stored.v1": _answer("sandbox-store", _ON_BEHALF),
    "sandbox.chunk.v1": _answer("sandbox-store", _ON_BEHALF),
    "replica.listing.v1": _answer("replica-catalog", _ON_BEHALF),
    "match.response.v1": _answer("matcher", _ON_BEHALF),
    "proxy.issued.v1": _answer("proxy-manager", _ON_BEHALF),
    "repository.listing.v1": _answer("proxy-manager", _ON_BEHALF),
    "repository.reencrypted.v1": _answer("proxy-manager", _ON_BEHALF),
    "repository.deleted.v1": _answer("proxy-manager", _ON_BEHALF),
    "lease.renewed.v1": _answer("job-state", _ON_BEHALF),
    "job.control.v1": _answer("job-manager", "job-state", _ON_BEHALF),
    "dead.listing.v1": _answer("dead-letters", _ON_BEHALF),
    "registry.listing.v1": _answer("registry", _ON_BEHALF),
    "registry.past.v1": _answer("registry", _ON_BEHALF),
    "registry.applied.v1": _answer("registry", _ON_BEHALF),
    "registry.synced.v1": _answer("registry", _ON_BEHALF),
    "audit.page.v1": _answer("auditor", _ON_BEHALF),
    "audit.links.v1": _answer("auditor", _ON_BEHALF),
    "audit.trail.v1": _answer("auditor", _ON_BEHALF),
    "enrolment.listing.v1": _answer("pilot-authority", _ON_BEHALF),
    "pilot.enrolled.v1": _answer("pilot-authority", _ON_BEHALF),
    # facts
    "job.changed.v1": _event("job-manager", "job-state", "matcher", "optimizer", _ON_BEHALF),
    "work.waiting.v1": _event("job-manager", "job-state", "matcher", "optimizer", _ON_BEHALF),
    "lease.ended.v1": _event("job-manager", "job-state", "matcher", _ON_BEHALF),
    "jobs.received.v1": _event("job-manager", "job-state", "optimizer", _ON_BEHALF),
    "proxy.wanted.v1": _event("matcher", _ON_BEHALF),
    "proxy.expiring.v1": _event("proxy-manager", _ON_BEHALF),
    "proxy.renewal.v1": _event("proxy-manager", _ON_BEHALF),
    "proxy.alarm.v1": _event("proxy-manager", _ON_BEHALF),
    "pilot.changed.v1": _event("gatekeeper", "job-state", "matcher", _ON_BEHALF),
    "pilot.enrolling.v1": _event("gatekeeper"),
    "registry.changed.v1": _event("registry", _ON_BEHALF),
    "registry.stale.v1": _event("registry", _ON_BEHALF),
    "identity.blocked.v1": _event("registry", "pilot-authority", _ON_BEHALF),
    "message.refused.v1": _event(*_EVERY_SERVICE),
    "audit.sealed.v1": _event("auditor", _ON_BEHALF),
    # between services
    "message.readmit.v1": Rule((Door.QUEUE,), services=SERVICES),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as the registry knows it.

    Attributes:
        identity: canonical DN.
        group: group acted for (empty for services).
        properties: of that group.
        service: logical service name; empty for users and pilots.
        limited: signed with a limited proxy.
        rules: operators' rules that concern this identity in this group; services have none.
        site: the site to which a pilot was enrolled; empty for all others.
        voms: the FQAN that its proxy must carry, proven, to act for this group; empty: none.
        renewed_until: until then its certificate is renewed again and again; None: it ends with its chain.
    """

    identity: str
    group: str = ""
    properties: frozenset[str] = frozenset()
    service: str = ""
    limited: bool = False
    rules: tuple[AccessRule, ...] = ()
    site: str = ""
    voms: str = ""
    renewed_until: float | None = None


def why_not(principal: Principal, name: str) -> str | None:
    """Why this principal may not send this message type; None if it may."""
    rule = TABLE.get(name)
    if rule is None:
        return f"there is no rule for {name!r}"
    if principal.service:
        return None if principal.service in rule.services else f"{principal.service} may not send {name}"
    if not rule.properties:
        return f"only services may send {name}"
    forbidden = denial(principal.rules, name)
    if forbidden is not None:
        return refusal(forbidden, name)
    if not principal.properties & rule.properties and not _is_given(principal, name, rule):
        wanted = " or ".join(sorted(rule.properties))
        return f"{name} needs the property {wanted}; group {principal.group!r} has it not"
    if rule.full_proxy and principal.limited:
        return f"{name} needs a full proxy; yours is limited"
    if principal.limited and is_private_pilot(principal.properties):
        return "a private pilot needs its owner's full proxy: payloads hold limited ones, and are no pilots"
    return None


def _is_given(principal: Principal, name: str, rule: Rule) -> bool:
    """Whether a grant replaces the property: only where the principal's own kind of door leads."""
    return any(_may_enter(principal, door) for door in rule.doors) and is_granted(principal.rules, name)


def authorize(principal: Principal, name: str) -> None:
    """Let through or refuse.

    Raises:
        RefusalError: code ``denied``.
    """
    reason = why_not(principal, name)
    if reason is not None:
        raise RefusalError("denied", reason, proven=True)


def is_pilot(properties: frozenset[str]) -> bool:
    """Whether who has these properties is a pilot, of whichever kind."""
    return bool(properties & _PILOT)


def is_private_pilot(properties: frozenset[str]) -> bool:
    """Whether it is a pilot for jobs of its own identity only: the narrower counts, should a group have both."""
    return Property.PRIVATE_PILOT in properties


def may_serve(principal: Principal, owner: str) -> bool:
    """Whether a pilot may have anything of this owner's: jobs, proxies, files."""
    return is_pilot(principal.properties) and (
        owner == principal.identity or not is_private_pilot(principal.properties)
    )


def may_touch_job(principal: Principal, owner: str, group: str) -> bool:
    """Whether a user may act on a job: his own, his group's with JobSharing, all with JobAdministrator."""
    properties = principal.properties
    if Property.JOB_ADMINISTRATOR in properties:
        return True
    if owner == principal.identity and group == principal.group:
        return Property.NORMAL_USER in properties or Property.JOB_SHARING in properties
    return Property.JOB_SHARING in properties and group == principal.group


def may_see_job(principal: Principal, owner: str, group: str) -> bool:
    """Whether a user may see a job: whoever may touch it, its owner in any group, and monitors and operators."""
    seers = {Property.JOB_MONITOR, Property.OPERATOR}
    return bool(principal.properties & seers) or owner == principal.identity or may_touch_job(principal, owner, group)


def may_read_events(principal: Principal) -> bool:
    """Whether a client may read the monitoring stream: it tells of everybody's jobs."""
    if principal.service or denial(principal.rules, EVENTS_READ) is not None:
        return False
    return bool(principal.properties & _SIGHT) or is_granted(principal.rules, EVENTS_READ)


def may_run_payload(owner: Principal, site: str, rules: Iterable[AccessRule]) -> str | None:
    """Why no job of this owner may run at a site; None if it may.

    Args:
        owner: identity and group of the job, with the group's properties.
        site: where.
        rules: all of the registry, or those that concern the owner.
    """
    concerning = select(rules, owner.identity, owner.group, owner.properties)
    forbidden = denial(concerning, PAYLOAD_RUN, site)
    return None if forbidden is None else refusal(forbidden, PAYLOAD_RUN, site)


def payload_rules(rules: Iterable[AccessRule]) -> tuple[AccessRule, ...]:
    """Of all rules those that :func:`may_run_payload` looks at: none in most deployments."""
    return tuple(rule for rule in rules if rule.effect is Effect.DENY and rule.what in {ANYTHING, PAYLOAD_RUN})


def why_void(rule: AccessRule) -> str | None:
    """Why a rule could never do what it says; None if it can. For whoever lets operators write rules."""
    kind, _, who = rule.who.partition(":")
    if rule.who != ANYTHING and (kind not in {"dn", "group", "property"} or not who):
        return f"{rule.who!r} names nobody: it must be dn:<DN>, group:<name>, property:<name> or {ANYTHING}"
    if kind == "property" and who not in set(Property):
        return f"there is no property {who!r}"
    if rule.what == ANYTHING:
        return "a grant must name what it grants" if rule.effect is Effect.ALLOW else None
    if rule.what not in TABLE and rule.what not in OPERATIONS:
        return f"there is no message and no operation {rule.what!r}"
    if rule.what in TABLE and not TABLE[rule.what].properties:
        return f"only services may send {rule.what}"
    if rule.what == PAYLOAD_RUN:
        return "everybody may run jobs everywhere, but for denials" if rule.effect is Effect.ALLOW else None
    if rule.site != ANYTHING:
        return f"{rule.what} is nothing that is done at a site"
    return None


def door_for(properties: frozenset[str], name: str, group: str = "", rules: tuple[AccessRule, ...] = ()) -> Door:
    """The exchange by which a client with these properties sends a message type.

    Raises:
        RefusalError: it may not send it at all.
    """
    principal = Principal("", group, properties, rules=rules)
    reason = why_not(principal, name)
    if reason is not None:
        raise RefusalError("denied", reason)
    doors = [door for door in TABLE[name].doors if _may_enter(principal, door)]
    return Door.PILOTS if Door.PILOTS in doors else doors[0]


def sends(service: str) -> tuple[str, ...]:
    """Message types that a service may send."""
    return tuple(name for name, rule in TABLE.items() if service in rule.services)


def _may_enter(principal: Principal, door: str) -> bool:
    """Pilots come by the pilots' door only, and nobody else does; what both may send does not open the other's."""
    if door == Door.PILOTS:
        return is_pilot(principal.properties)
    return not principal.properties or not principal.properties <= _PILOT


def may_send_by(principal: Principal, door: str, name: str) -> bool:
    """The broker's question: may this client publish that routing key to that exchange?"""
    rule = TABLE.get(name)
    return rule is not None and door in rule.doors and _may_enter(principal, door) and why_not(principal, name) is None


def writable_doors(principal: Principal) -> frozenset[str]:
    """Exchanges to which a client may write at all."""
    client_doors = (Door.USERS, Door.PILOTS, Door.ADMIN)
    return frozenset(door for door in client_doors if any(may_send_by(principal, door, name) for name in TABLE))
