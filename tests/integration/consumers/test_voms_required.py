"""A group that asks for its VOMS attribute: membership in the registry is needed, and the VO's word in the proxy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from broker.authorization import Property
from broker.connection import Connection
from broker.identity import Credential, create_proxy, thumbprint, verify_chain
from broker.login import make_assertion
from broker.publisher import request, seal
from broker.refusal import RefusalError
from broker.signing import Signer, facts_of
from broker.subscriber import Gate
from broker.transport import Delivery, Outgoing, Tag
from consumers.directory import Directory
from consumers.gatekeeper import Gatekeeper
from consumers.store import Store, chains, registry
from consumers.store.seed import parse_seed
from schemas.errors import PilotageError
from schemas.identity import make_client_id
from schemas.messages.user import KillJobs
from tests.support.attribute_certificates import Voms, make_ac, make_voms
from tests.support.pki import HOUR, NOW, USER_DN, Pki

pytestmark = pytest.mark.integration

CLIENT = make_client_id(USER_DN, "a")
PRODUCTION = "/lhcb/Role=production"


class NoBroker:
    """Takes whatever the gatekeeper prepares."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments, **_named: None


@pytest.fixture
def voms(authority: Pki, tmp_path: Path) -> Voms:
    return make_voms(authority, tmp_path / "vomsdir")


@pytest.fixture
def known(store: Store, voms: Voms) -> Directory:
    """The user is a member of both groups; one of them asks for its attribute."""
    groups = {
        "lhcb_user": {"fqan": "/lhcb", "properties": ["NormalUser"]},
        "lhcb_prod": {"fqan": f"{PRODUCTION}/Capability=NULL", "properties": ["NormalUser"], "voms_required": True},
    }
    with store.transaction() as tx:
        registry.seed(tx, {"groups": groups, "users": [{"dn": USER_DN, "groups": ["lhcb_user", "lhcb_prod"]}]})
    return Directory(store, voms.pki.trust, voms.vomsdir, clock=lambda: NOW.timestamp())


def proxy_with(voms: Voms, *acs: bytes) -> Credential:
    user = voms.pki.user
    return create_proxy(user.ders, user.key, lifetime=HOUR, limited=False, now=NOW, acs=acs)


def logs_in(known: Directory, store: Store, credential: Credential, group: str) -> bool:
    signer = Signer(known_key(), "none", "/O=x/CN=gatekeeper", "gatekeeper")
    keeper = Gatekeeper(
        store=store,
        directory=known,
        connection=cast("Connection", NoBroker()),
        signer=signer,
        broker="test",
        clock=lambda: NOW.timestamp(),
    )
    password = make_assertion(credential, client=CLIENT, audience="test", group=group, now=NOW.timestamp())
    return keeper.user({"username": CLIENT, "password": password})


def known_key() -> Any:
    from broker.identity import new_key

    return new_key()


def speaks(known: Directory, store: Store, credential: Credential, group: str) -> None:
    """Send a message whose chain is known from a login, whichever group that was for."""
    mark = thumbprint(credential.leaf)
    with store.transaction() as tx:
        chains.put(tx, mark, credential.ders, USER_DN, time.time() + 3600, NOW.timestamp())
    signer = Signer(credential.key, mark, USER_DN, CLIENT, group)
    out = seal(request(KillJobs(jobs=(1,)), frozenset({Property.NORMAL_USER}), group), signer, NOW.timestamp())
    Gate({"job-manager"}, known, known).admit(delivered(out), NOW.timestamp())


def delivered(out: Outgoing) -> Delivery:
    return Delivery(
        queue="control",
        exchange=out.exchange,
        routing_key=out.routing_key,
        body=out.body,
        headers=dict(out.headers),
        redelivered=False,
        tag=Tag(1, 1, 1),
        user_id=out.user_id,
    )


def test_with_the_attribute_he_acts_for_the_group(known: Directory, store: Store, voms: Voms) -> None:
    credential = proxy_with(voms, make_ac(voms, fqans=["/lhcb", PRODUCTION]))
    assert logs_in(known, store, credential, "lhcb_prod")
    speaks(known, store, credential, "lhcb_prod")
    assert facts_of(verify_chain(credential.ders, voms.pki.trust, voms.vomsdir, NOW)).fqans == ("/lhcb", PRODUCTION)


def wrong_acs(voms: Voms) -> dict[str, Sequence[bytes]]:
    return {
        "none": (),
        "another group": (make_ac(voms, fqans=["/lhcb", "/lhcb/production", "/lhcb/Role=production2"]),),
        "a role below": (make_ac(voms, fqans=["/lhcb/sub/Role=production"]),),
        "another vo": (make_ac(voms, vo="lhcb2", fqans=["/lhcb2/Role=production"]),),
        "expired": (make_ac(voms, fqans=[PRODUCTION], end=NOW - HOUR / 2),),
        "forged": (make_ac(voms, fqans=[PRODUCTION], spoil=True),),
        "of a stranger's server": (
            make_ac(voms, fqans=[PRODUCTION], server=voms.pki.authority.issue("/DC=org/DC=example/CN=M", now=NOW)),
        ),
    }


@pytest.mark.parametrize(
    "how", ["none", "another group", "a role below", "another vo", "expired", "forged", "of a stranger's server"]
)
def test_without_it_he_may_neither_log_in_nor_speak_for_the_group(
    known: Directory, store: Store, voms: Voms, how: str
) -> None:
    credential = proxy_with(voms, *wrong_acs(voms)[how])
    assert not logs_in(known, store, credential, "lhcb_prod")
    with pytest.raises(RefusalError, match=f"asks for a proxy with the VOMS attribute {PRODUCTION}") as caught:
        speaks(known, store, credential, "lhcb_prod")
    assert (caught.value.code, caught.value.proven) == ("denied", True)


def test_a_login_for_another_group_is_no_way_round(known: Directory, store: Store, voms: Voms) -> None:
    credential = proxy_with(voms)
    assert logs_in(known, store, credential, "lhcb_user")
    speaks(known, store, credential, "lhcb_user")
    with pytest.raises(RefusalError, match="asks for a proxy"):
        speaks(known, store, credential, "lhcb_prod")


def test_the_attribute_alone_gives_nothing(known: Directory, store: Store, voms: Voms) -> None:
    """Who is no member in the registry stays outside, whatever his proxy carries."""
    with store.transaction() as tx:
        registry.seed(tx, {"groups": {"lhcb_prod": {"fqan": PRODUCTION, "voms_required": True}}, "users": []})
    known.forget()
    credential = proxy_with(voms, make_ac(voms, fqans=[PRODUCTION]))
    assert not logs_in(known, store, credential, "lhcb_prod")
    with pytest.raises(RefusalError, match="not known, or not in group"):
        speaks(known, store, credential, "lhcb_prod")


def test_services_without_lsc_files_believe_nobody(known: Directory, store: Store, voms: Voms) -> None:
    blind = Directory(store, voms.pki.trust, None, clock=lambda: NOW.timestamp())
    credential = proxy_with(voms, make_ac(voms, fqans=[PRODUCTION]))
    assert not logs_in(blind, store, credential, "lhcb_prod")


def test_a_group_without_a_name_in_voms_cannot_ask_for_it() -> None:
    for group in ({"voms_required": True}, {"voms_required": True, "fqan": ""}):
        with pytest.raises(PilotageError, match="it has none"):
            parse_seed({"groups": {"g": {"properties": [], **group}}})
