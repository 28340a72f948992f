"""Exchanges, queues and bindings: the one literal of what is carried where.

The broker's own boundary is the exchange and the queue (before RabbitMQ 4.0 CC/BCC headers slip past topic
permissions), so each kind of sender has its own exchange; the routing key is the message name. Queues are cut by
urgency, so that nothing urgent waits behind bulk. Clients declare nothing. ``definitions`` renders it for RabbitMQ's
``load_definitions``; the reference page and the AsyncAPI document are generated from it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .authorization import Door

DELIVERY_LIMIT = 20
"""Deliveries of one message before the broker gives up on it and dead-letters it; a poisoned message is found by
handling it alone at its first redelivery, so this is only the last fence."""

DEAD_EXCHANGE = "pilotage.dead"
DEAD_QUEUE = "dead"
MONITORING = "monitoring"

REPLY_EXPIRES = 3600_000
"""Milliseconds that an unused reply queue lives: longer than any pilot's reconnect back-off, far shorter than a day."""

REPLY_TTL = 600_000
"""Milliseconds that an unread reply lives: as long as a match response may be admitted."""

SECOND = 1000
MINUTE = 60 * SECOND


class QueueType(StrEnum):
    """RabbitMQ queue types."""

    QUORUM = "quorum"
    CLASSIC = "classic"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue.

    Attributes:
        consumer: logical service that reads it.
        bindings: (exchange, routing key) pairs.
        ttl: milliseconds a message may wait; 0 for ever.
        max_length: bound where outsiders fill it; 0 for none.
        overflow: what happens above it.
        purpose: for the reference page.
    """

    name: str
    consumer: str
    bindings: tuple[tuple[str, str], ...]
    purpose: str
    type: QueueType = QueueType.QUORUM
    ttl: int = 0
    max_length: int = 0
    overflow: str = "reject-publish"

    def arguments(self) -> dict[str, str | int]:
        """Declaration arguments."""
        arguments: dict[str, str | int] = {"x-queue-type": self.type.value}
        if self.type is QueueType.QUORUM:
            arguments["x-delivery-limit"] = DELIVERY_LIMIT
            if self.name != DEAD_QUEUE:
                arguments["x-dead-letter-exchange"] = DEAD_EXCHANGE
        if self.ttl:
            arguments["x-message-ttl"] = self.ttl
        if self.max_length:
            arguments["x-max-length"] = self.max_length
            arguments["x-overflow"] = self.overflow
        return arguments


EXCHANGES: Mapping[str, str] = {
    Door.USERS.value: "topic",
    Door.PILOTS.value: "topic",
    Door.ADMIN.value: "topic",
    Door.EVENTS.value: "topic",
    Door.REPLIES.value: "direct",
    DEAD_EXCHANGE: "fanout",
}


def _from(door: Door, *names: str) -> tuple[tuple[str, str], ...]:
    return tuple((door.value, name) for name in names)


QUEUES: tuple[Queue, ...] = (
    Queue(
        "control",
        "job-manager",
        _from(Door.USERS, "job.kill.v1", "job.delete.v1", "job.reschedule.v1"),
        "users' commands on jobs: never behind submissions",
        max_length=100_000,
    ),
    Queue(
        "heartbeats",
        "job-state",
        _from(Door.PILOTS, "pilot.heartbeat.v1"),
        "heartbeats: only the newest are worth anything",
        ttl=10 * MINUTE,
        max_length=200_000,
        overflow="drop-head",
    ),
    Queue(
        "match-requests",
        "matcher",
        _from(Door.PILOTS, "match.request.v1"),
        "pilots that ask for work",
        ttl=10 * MINUTE,
        max_length=200_000,
    ),
    Queue(
        "reports",
        "job-state",
        _from(Door.PILOTS, "job.accept.v1", "job.report.v1", "pilot.goodbye.v1", "control.done.v1"),
        "what happened to jobs: nothing of it may be lost",
        max_length=1_000_000,
    ),
    Queue(
        "job-blocks",
        "job-state",
        _from(Door.EVENTS, "identity.blocked.v1"),
        "who lost his rights: his jobs are dealt with",
    ),
    Queue("submissions", "job-manager", _from(Door.USERS, "job.submit.v1"), "new jobs", max_length=20_000),
    Queue(
        "queries",
        "job-monitor",
        _from(
            Door.USERS,
            "job.query.v1",
            "job.inspect.v1",
            "job.follow.v1",
            "job.explain.v1",
            "job.weigh.v1",
            "queue.query.v1",
            "queue.inspect.v1",
        ),
        "questions, answered from the read side",
        ttl=5 * MINUTE,
        max_length=20_000,
    ),
    Queue(
        "delegations",
        "proxy-manager",
        _from(Door.USERS, "delegation.request.v1", "delegation.put.v1"),
        "users' proxies on their way into the repository",
        max_length=20_000,
    ),
    Queue(
        "sandboxes",
        "sandbox-store",
        _from(Door.USERS, "sandbox.put.v1", "sandbox.get.v1") + _from(Door.PILOTS, "sandbox.put.v1", "sandbox.get.v1"),
        "sandbox files in chunks",
        max_length=5_000,
    ),
    Queue(
        "replicas",
        "replica-catalog",
        _from(Door.USERS, "replica.register.v1", "replica.query.v1"),
        "the replica catalog",
        max_length=20_000,
    ),
    Queue(
        "audits",
        "auditor",
        _from(Door.ADMIN, "audit.query.v1", "audit.walk.v1", "audit.trace.v1"),
        "questions about the audit",
        ttl=5 * MINUTE,
        max_length=10_000,
    ),
    Queue(
        "admin",
        "dead-letters",
        _from(Door.ADMIN, "dead.query.v1", "dead.replay.v1", "dead.discard.v1"),
        "operators' commands",
        max_length=10_000,
    ),
    Queue(
        "registry-changes",
        "registry",
        _from(Door.ADMIN, "registry.query.v1", "registry.history.v1", "registry.change.v1", "registry.sync.v1"),
        "operators' questions about the registry, and their changes to it",
        max_length=10_000,
    ),
    Queue(
        "enrolments",
        "pilot-authority",
        _from(Door.ADMIN, "enrolment.query.v1", "enrolment.create.v1", "enrolment.revoke.v1"),
        "operators' commands on enrolments of pilots",
        max_length=10_000,
    ),
    Queue(
        "pilot-identities",
        "pilot-authority",
        _from(Door.PILOTS, "pilot.renew.v1") + _from(Door.EVENTS, "pilot.enrolling.v1"),
        "pilots that wait for a certificate",
        max_length=100_000,
    ),
    Queue(
        "sessions",
        "gatekeeper",
        _from(Door.ADMIN, "session.query.v1", "session.cut.v1"),
        "operators look at who is connected, and cut connections",
        max_length=10_000,
    ),
    Queue(
        "optimizations",
        "optimizer",
        _from(Door.EVENTS, "jobs.received.v1"),
        "jobs that need more than a look at their description",
    ),
    Queue(
        "repository",
        "proxy-manager",
        _from(Door.ADMIN, "repository.query.v1", "repository.reencrypt.v1", "repository.delete.v1"),
        "operators' commands on the proxy repository",
        max_length=10_000,
    ),
    Queue(
        "proxy-requests",
        "proxy-manager",
        _from(Door.PILOTS, "proxy.request.v1"),
        "proxies that running jobs want; apart from those that matched pilots wait for",
        ttl=10 * MINUTE,
        max_length=100_000,
    ),
    Queue(
        "proxy-orders", "proxy-manager", _from(Door.EVENTS, "proxy.wanted.v1"), "proxies that matched pilots wait for"
    ),
    Queue(
        "matcher-hints",
        "matcher",
        _from(Door.EVENTS, "work.waiting.v1", "lease.ended.v1"),
        "task queues that have new jobs, leases that have ended; only hints",
        type=QueueType.CLASSIC,
        ttl=MINUTE,
        max_length=10_000,
        overflow="drop-head",
    ),
    Queue(DEAD_QUEUE, "dead-letters", ((DEAD_EXCHANGE, ""),), "what the broker itself gave up on"),
    Queue(
        MONITORING,
        "",
        ((Door.EVENTS.value, "#"),),
        "every event, replayable: dashboards and `pilotage watch`",
        type=QueueType.STREAM,
    ),
)

_BY_NAME = {queue.name: queue for queue in QUEUES}

STREAM_RETENTION: Mapping[str, str | int] = {
    "max-age": "30D",
    "max-length-bytes": 2_000_000_000,
    "stream-max-segment-size-bytes": 50_000_000,
}
"""Policy of the monitoring stream: retention works by whole segments, so these are small enough to matter."""

FOLLOWERS_PREFIX = "followers."
"""Each job-monitor process declares one such queue and hears every job.changed event."""

FOLLOWERS_ARGUMENTS: Mapping[str, str | int] = {"x-expires": 60_000, "x-message-ttl": 60_000, "x-max-length": 100_000}

CUTS_PREFIX = "cuts."
"""Each gatekeeper declares one such queue and hears of everybody who lost his rights."""

CUTS_ARGUMENTS: Mapping[str, str | int] = {"x-expires": 60_000, "x-message-ttl": 60_000, "x-max-length": 100_000}

REPLY_ARGUMENTS: Mapping[str, str | int] = {"x-expires": REPLY_EXPIRES, "x-message-ttl": REPLY_TTL}


def queues_of(service: str) -> tuple[Queue, ...]:
    """Queues that a service reads."""
    return tuple(queue for queue in QUEUES if queue.consumer == service)


def queue_named(name: str) -> Queue:
    """A queue by name.

    Raises:
        KeyError: no such queue.
    """
    return _BY_NAME[name]


@dataclass(frozen=True, slots=True)
class BrokerRights:
    """Regular expressions of RabbitMQ permissions."""

    configure: str = "^$"
    write: str = "^$"
    read: str = "^$"


def rights_of(service: str) -> BrokerRights:
    """The least rights with which a service can do its work.

    Every service answers clients and publishes facts. The gatekeeper makes and deletes reply queues, and its own queue
    of blocked identities; job-monitor makes its followers' queue; dead-letters puts messages back where they came from.
    """
    reads = [queue.name for queue in queues_of(service)]
    writes = [Door.EVENTS.value, Door.REPLIES.value]
    configure = "^$"
    if service == "gatekeeper":
        own = r"^(reply|cuts)\..+$"
        return BrokerRights(own, _any(writes) + "|" + own, _any([*reads, *writes]) + r"|^cuts\..+$")
    if service == "job-monitor":
        configure = r"^followers\..+$"
        return BrokerRights(
            configure, _any(writes) + r"|^followers\..+$", _any([*reads, Door.EVENTS.value]) + r"|^followers\..+$"
        )
    if service in {"dead-letters", "relay"}:
        return BrokerRights(configure, _any([*writes, "amq.default"]), _any(reads))
    return BrokerRights(configure, _any(writes), _any(reads))


def _any(names: list[str]) -> str:
    return "^(" + "|".join(name.replace(".", r"\.") for name in sorted(names)) + ")$" if names else "^$"


@dataclass(frozen=True, slots=True)
class InternalUser:
    """A service's broker login in a deployment without client certificates. The secret is a generated one."""

    service: str
    secret: str = field(repr=False)


def definitions(users: list[InternalUser], *, virtual_host: str = "/") -> dict[str, object]:
    """Everything that a fresh broker loads (RabbitMQ definitions, JSON-ready)."""
    return {
        "users": [
            {
                "name": user.service,
                "password_hash": password_hash(user.secret),
                "hashing_algorithm": "rabbit_password_hashing_sha512",
                "tags": "",
            }
            for user in users
        ],
        "vhosts": [{"name": virtual_host}],
        "permissions": [
            {
                "user": user.service,
                "vhost": virtual_host,
                "configure": rights_of(user.service).configure,
                "write": rights_of(user.service).write,
                "read": rights_of(user.service).read,
            }
            for user in users
        ],
        "topic_permissions": [],
        "policies": [
            {
                "name": "monitoring",
                "vhost": virtual_host,
                "pattern": f"^{MONITORING}$",
                "apply-to": "queues",
                "priority": 0,
                "definition": dict(STREAM_RETENTION),
            }
        ],
        "exchanges": [
            {
                "name": name,
                "vhost": virtual_host,
                "type": kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for name, kind in EXCHANGES.items()
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": queue.arguments(),
            }
            for queue in QUEUES
        ],
        "bindings": [
            {
                "source": exchange,
                "vhost": virtual_host,
                "destination": queue.name,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for queue in QUEUES
            for exchange, key in queue.bindings
        ],
    }


def password_hash(secret: str) -> str:
    """RabbitMQ's salted SHA-512 (4 bytes of salt, then the digest, base64)."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha512(salt + secret.encode()).digest()).decode()
