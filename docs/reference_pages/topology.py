"""Exchanges, queues and rights at the broker."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

from broker import topology
from broker.authorization import SERVICES, Door
from broker.topology import EXCHANGES, QUEUES, STREAM_RETENTION, Queue, rights_of

from . import docstrings
from .markdown import codes, generated, table

_WHAT = {
    Door.USERS: "what users' tools send",
    Door.PILOTS: "what pilots send",
    Door.ADMIN: "what operators send",
    Door.EVENTS: "facts; only services write",
    Door.REPLIES: "answers; only services write, the key is the reply queue",
    topology.DEAD_EXCHANGE: "what the broker gave up on",
}

_HEAD = """\
# Exchanges, queues, rights

{generated}

The routing key of a message is its name. Clients declare and bind nothing.

## Exchanges
"""

_CLIENTS = """
## Queues made while it runs

| Queue | Made by | Arguments | For |
| --- | --- | --- | --- |
| `reply.<client id>` | gatekeeper, at login | {reply} | everything that services answer to one client |
| `followers.<random>` | each `job-monitor` | {followers} | changes of jobs, for those who follow them |

## Rights of clients

RabbitMQ asks the gatekeeper at each first use of an exchange or queue, and for each routing key:

| May | What |
| --- | --- |
| write | the exchanges through which its group may send something, and there only the names that it may send ([table](authorization.md)) |
| read | its own reply queue; the stream `monitoring` with the property `JobMonitor`, `Operator` or `Auditor` |
| configure | nothing |
"""


def render() -> str:
    """The page."""
    texts = docstrings.constants(topology)
    return "\n".join(
        [
            _HEAD.format(generated=generated("broker/topology.py")),
            table(("Exchange", "Type", "Carries"), ((f"`{n}`", kind, _WHAT[n]) for n, kind in EXCHANGES.items())),
            "\n## Queues\n",
            table(("Queue", "Read by", "Carries", "Arguments"), map(_queue, QUEUES)),
            f"\nDelivery limit: {texts['DELIVERY_LIMIT']}",
            f"\nRetention of `monitoring`, set by policy: {_pairs(STREAM_RETENTION)}. {texts['STREAM_RETENTION']}",
            "\n## Bindings\n",
            table(
                ("Exchange", "Routing key", "Queue"),
                ((f"`{exchange}`", f"`{key}`" if key else "(any)", f"`{queue.name}`")
                 for queue in QUEUES for exchange, key in queue.bindings),
            ),
            _CLIENTS.format(reply=_pairs(topology.REPLY_ARGUMENTS), followers=_pairs(topology.FOLLOWERS_ARGUMENTS)),
            "## Rights of services\n\nRegular expressions, as RabbitMQ takes them.\n",
            table(
                ("Service", "Configure", "Write", "Read"),
                ((f"`{name}`", *(f"`{getattr(rights_of(name), what)}`" for what in ("configure", "write", "read")))
                 for name in sorted(SERVICES)),
            ),
            "",
        ]
    )  # fmt: skip


def _queue(queue: Queue) -> tuple[str, str, str, str]:
    reader = f"`{queue.consumer}`" if queue.consumer else "whoever may see everything"
    return f"`{queue.name}`", reader, queue.purpose, _pairs(queue.arguments())


def _pairs(arguments: object) -> str:
    return codes(f"{name}={value}" for name, value in dict(arguments).items())  # type: ignore[call-overload]
