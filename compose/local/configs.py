"""The configuration files of a private stack: who may do what, and where everything is reached.

Promises: written anew at every start from the layout and the ports, so that they never disagree with what runs; no
secret stands in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.authorization import SERVICES, Property, sends

from .files import Section, private_folder, toml_key, toml_text, write_private
from .identities import service_dn, user_dn
from .ports import LOOPBACK

if TYPE_CHECKING:
    from .layout import Layout

DEPLOYMENT = "local"
SITE = "Site.Local.here"
STORAGE_ELEMENT = "SE.Local"
USERS, PILOTS = "users", "pilots"

USER_PROPERTIES = (Property.NORMAL_USER, Property.JOB_MONITOR, Property.OPERATOR)
"""The one user of a private stack may try everything."""

MAX_PILOTS = 64
"""Of one machine: each is a process or two, and offers processors."""

HEARTBEAT_SECONDS = 10.0
"""Between a pilot's heartbeats; shorter than on the grid, because on one machine they cost nothing."""

_HEADER = "Written anew by `pilotage up`; changes here are lost."


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of a running stack are reached.

    Attributes:
        broker: TLS port of RabbitMQ.
        gatekeeper: port of the gatekeeper.
        store: SQLAlchemy URL.
        management: HTTPS port of RabbitMQ's management interface.
    """

    broker: int
    gatekeeper: int
    store: str
    management: int


def write_registry(layout: Layout) -> None:
    """Write the seed of the registry."""
    users: list[Section] = [{"dn": user_dn(layout), "nickname": _nickname(layout), "groups": [USERS]}]
    services = [{"name": name, "dn": service_dn(name), "sends": list(sends(name))} for name in sorted(SERVICES)]
    tables: dict[str, Section | list[Section]] = {
        f"groups.{USERS}": {"fqan": "/local", "properties": [item.value for item in USER_PROPERTIES]},
        f"groups.{PILOTS}": {"fqan": "/local/Role=pilot", "properties": [Property.GENERIC_PILOT.value]},
        f"sites.{toml_key(SITE)}": {"usable": True},
        f"storage_elements.{toml_key(STORAGE_ELEMENT)}": {"sites": [SITE]},
        "users": users,
        "services": [dict(service) for service in services],
    }
    write_private(layout.registry, toml_text(tables, _HEADER))


def write_server_config(layout: Layout, addresses: Addresses) -> None:
    """Write the configuration of the services."""
    tables: dict[str, Section] = {
        "deployment": {"name": DEPLOYMENT},
        "broker": _broker(layout, addresses),
        "store": {"url": addresses.store},
        "trust": {"ca_dir": str(layout.trust)},
        "registry": {"file": str(layout.registry)},
        "services": {"credentials": str(layout.services), "master_keys": [str(layout.master_key)]},
        "pilots": {"authority": str(layout.pilot_authority)},
        "gatekeeper": {
            "host": LOOPBACK,
            "port": addresses.gatekeeper,
            "cert_file": str(layout.tls / "gatekeeper.pem"),
            "key_file": str(layout.tls / "gatekeeper.key"),
            "management_port": addresses.management,
        },
    }
    write_private(layout.server_config, toml_text(tables, _HEADER))


def write_client_config(layout: Layout, addresses: Addresses) -> None:
    """Write the configuration of the users' tools."""
    tables: dict[str, Section] = {
        "broker": {**_broker(layout, addresses), **_deployment()},
        "trust": {"ca_dir": str(layout.trust)},
        "user": {"cert": str(layout.user_certificate), "key": str(layout.user_key), "group": USERS},
    }
    write_private(layout.client_config, toml_text(tables, _HEADER))


def write_pilot_config(layout: Layout, addresses: Addresses, number: int, slots: int) -> None:
    """Write the configuration of a pilot, and make its folders. Its enrolment secret comes by a pipe."""
    private_folder(layout.pilot_work(number))
    private_folder(layout.storage)
    tables: dict[str, Section] = {
        "broker": {**_broker(layout, addresses), **_deployment()},
        "trust": {"ca_dir": str(layout.trust)},
        "pilot": {
            "enrolment": "-",
            "site": SITE,
            "work_dir": str(layout.pilot_work(number)),
            "slots": slots,
            "idle_seconds": 0,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
        },
        "stores": {STORAGE_ELEMENT: str(layout.storage)},
    }
    write_private(layout.pilot_config(number), toml_text(tables, _HEADER))


def default_slots(pilots: int) -> int:
    """Processors for each pilot, so that together they have the machine's, and at least one each."""
    processors = len(os.sched_getaffinity(0))
    return max(1, -(-processors // max(1, pilots)))


def _broker(layout: Layout, addresses: Addresses) -> Section:
    # By name, not by address: a certificate for localhost is what TLS libraries check in every setting.
    ca_file = str(layout.tls / "ca.pem")
    return {"host": LOOPBACK, "port": addresses.broker, "ca_file": ca_file, "server_name": "localhost"}


def _deployment() -> Section:
    return {"name": DEPLOYMENT, "gatekeeper": service_dn("gatekeeper")}


def _nickname(layout: Layout) -> str:
    return user_dn(layout).rpartition("=")[2]
