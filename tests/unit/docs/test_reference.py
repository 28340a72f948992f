"""The generated reference tells what the code says, and the AsyncAPI document holds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from reference_pages import PAGES, configuration, docstrings

import schemas.messages
from broker.authorization import TABLE, Door
from broker.topology import EXCHANGES, QUEUES
from compose import server_settings, settings
from consumers.domain.shares import Policy
from consumers.settings import LeaseSettings, ProxySettings
from pilot import settings as pilot_settings
from schemas.envelope import Header
from schemas.job import JobStatus
from schemas.registry import registered

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted(PAGES))
def test_no_page_has_drifted(path: str) -> None:
    assert (ROOT / path).read_text("utf-8") == PAGES[path](), "run: make docs"


@pytest.mark.parametrize("path", sorted(PAGES))
def test_pages_do_not_change_by_themselves(path: str) -> None:
    assert PAGES[path]() == PAGES[path]()


# -- AsyncAPI ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "schemas" / "asyncapi.yaml").read_text("utf-8"))
    return loaded


def test_every_message_is_there_with_its_payload(document: dict[str, Any]) -> None:
    messages, payloads = document["components"]["messages"], document["components"]["schemas"]
    assert set(messages) == set(registered())
    for name, row in registered().items():
        assert messages[name]["payload"] == {"$ref": f"#/components/schemas/{row.struct.__name__}"}
        fields = {field.encode_name for field in msgspec.structs.fields(row.struct)}
        assert set(payloads[row.struct.__name__]["properties"]) == fields


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [value for key, value in _leaves(document) if key == "$ref"]
    assert len(references) > len(registered())
    for reference in references:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_every_message_has_its_operations_by_each_of_its_doors(document: dict[str, Any]) -> None:
    found = {
        (message["$ref"].rpartition("/")[2], operation["channel"]["$ref"])
        for operation in document["operations"].values()
        for message in operation["messages"]
    }
    channels = {door.value: f"#/channels/{door.name.lower()}" for door in Door if door is not Door.QUEUE} | {
        "": "#/channels/direct"
    }
    assert found == {(name, channels[door.value]) for name, rule in TABLE.items() for door in rule.doors}


def test_what_services_receive_is_what_others_send(document: dict[str, Any]) -> None:
    for name, operation in document["operations"].items():
        message = operation["messages"][0]["$ref"].rpartition("/")[2]
        assert operation["action"] == ("send" if TABLE[message].services else "receive")
        assert name.startswith(f"{operation['action']}.{message}")
        assert ("reply" in operation) == bool(TABLE[message].properties)


def test_channels_are_the_exchanges(document: dict[str, Any]) -> None:
    exchanges = {channel["bindings"]["amqp"]["exchange"]["name"] for channel in document["channels"].values()}
    assert exchanges == set(EXCHANGES) - {"pilotage.dead"} | {""}
    assert document["channels"]["direct"]["parameters"]["queue"]["enum"] == [queue.name for queue in QUEUES]


def test_the_signed_header_is_described_in_full(document: dict[str, Any]) -> None:
    described = document["components"]["schemas"]["Header"]
    assert set(described["properties"]) == {field.encode_name for field in msgspec.structs.fields(Header)}
    assert {"b64", "crit", "alg", "jti"} <= set(described["required"])
    trait = document["components"]["messageTraits"]["signed"]["headers"]
    assert trait["required"] == ["jws"]
    assert all("traits" in message for message in document["components"]["messages"].values())


def test_only_the_keys_that_asyncapi_knows(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert set(document) == {
        "asyncapi",
        "info",
        "defaultContentType",
        "servers",
        "channels",
        "operations",
        "components",
    }
    message_keys = {"name", "title", "summary", "contentType", "traits", "payload"}
    for message in document["components"]["messages"].values():
        assert {key for key in message if not key.startswith("x-")} == message_keys
    operation_keys = {"action", "channel", "summary", "description", "messages", "reply"}
    assert all(set(operation) <= operation_keys for operation in document["operations"].values())


def _leaves(node: Any) -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _leaves(value)
        else:
            yield str(key), value


# -- what the pages leave nothing out of -------------------------------------------------------------------------------


def test_every_message_and_every_value_has_its_words() -> None:
    for row in registered().values():
        assert docstrings.summary(row.struct), row.name


def test_every_property_has_its_words() -> None:
    assert "| `Operator` | Operate the system" in PAGES["docs/reference/authorization.md"]()


def test_every_queue_is_on_the_page() -> None:
    page = PAGES["docs/reference/topology.md"]()
    assert all(f"| `{queue.name}` |" in page for queue in QUEUES)


def test_words_of_literals_are_found() -> None:
    assert docstrings.fields(JobStatus)["WAITING"] == "In a task queue."
    assert docstrings.fields(Header)["exp"].startswith("Last moment of admission")
    assert docstrings.fields(schemas.messages.user.SubmitJobs)["key"].startswith("idempotency key")


# -- configuration -----------------------------------------------------------------------------------------------------


class Recorder(dict[str, Any]):
    """A section that remembers which of its keys were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def recorded(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Recorder]:
    return {name: Recorder(values) for name, values in sections.items()}


def keys_asked(sections: Mapping[str, Recorder]) -> set[tuple[str, str]]:
    return {(name, key) for name, section in sections.items() for key in section.asked}


BROKER = {"host": "h", "port": 1, "ca_file": "ca.pem", "name": "n", "gatekeeper": "/CN=g"}


def test_keys_of_the_users_file() -> None:
    known = {(section, key) for section, keys in settings._SECTIONS.items() for key in keys}
    assert set(configuration.CLIENT) == known


def test_keys_of_the_services_file() -> None:
    sections = recorded(
        {
            "deployment": {"name": "n"},
            "broker": BROKER,
            "store": {"url": "sqlite://"},
            "trust": {"ca_dir": "ca"},
            "registry": {"file": "r"},
            "services": {"credentials": "c", "master_keys": ["k"]},
            "gatekeeper": {"port": 1, "cert_file": "c", "key_file": "k", "management_port": 2},
            "leases": {},
            "shares": {},
            "proxies": {},
            "myproxy": {"host": "h", "credential": "wms.pem"},
            "voms": {},
            "pilots": {},
        }
    )
    server_settings._Reader(Path("server.toml"), sections).settings()
    assert set(configuration.SERVER) == keys_asked(sections)
    page = configuration.render()
    known = {**LeaseSettings.__dataclass_fields__, **Policy.__dataclass_fields__, **ProxySettings.__dataclass_fields__}
    assert all(f"| `{name}` |" in page for name in known)


def test_keys_of_the_pilots_file() -> None:
    sections = recorded(
        {
            "broker": BROKER,
            "trust": {"ca_dir": "ca"},
            "pilot": {"credential": "p.pem", "site": "S", "work_dir": "w"},
            "stores": {},
        }
    )
    pilot_settings._Reader(Path("pilot.toml"), sections).settings()
    assert set(configuration.PILOT) - {("stores", "<SE>")} == keys_asked(sections)
