"""A service renews its certificate while clients are logged in: they learn the new chain by themselves."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import pytest

from broker.connection import Connection, Login
from broker.identity import Authority, pem_chain, thumbprint
from broker.publisher import reply, seal
from broker.signing import Signer
from compose.local.identities import read_secret, service_dn
from consumers.store import Store, chains
from schemas.messages.service import LeasesRenewed
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


def is_told(place: Deployment, leaf: bytes) -> bool:
    """Whether a welcome names the chain of this certificate now."""
    with place.session(place.pilot(2)) as other:
        assert other.welcome is not None
        return any(pem_chain([leaf]).decode() in info.chain for info in other.welcome.services)


def test_a_client_learns_the_chain_of_a_renewed_certificate(tmp_path: Path, postgres_url: str) -> None:
    running = deployment(tmp_path / "d", services=["gatekeeper"], store_url=postgres_url)
    with running as place, place.session(place.pilot(1)) as session:
        renewed = Authority.load(place.layout.authority).issue(service_dn("job-state"))
        signer = Signer(renewed.key, thumbprint(renewed.leaf), service_dn("job-state"), "job-state")
        ends = dt.datetime.now(dt.UTC).timestamp() + 3600
        with Store.open(postgres_url) as store, store.transaction() as tx:
            chains.put(tx, signer.thumbprint, renewed.ders, signer.issuer, ends, time.time())
        wait_until(lambda: is_told(place, renewed.leaf), 10, "the gatekeeper tells the new chain")
        secret = read_secret(place.layout.services / "job-state.secret")
        with Connection(
            place.session_settings.endpoint, lambda: Login("job-state", secret), name="job-state"
        ) as connection:
            connection.start()
            answer = reply(LeasesRenewed(), session.client)
            connection.publish_and_wait([seal(answer, signer, time.time())])
        first = session.welcome
        came = []
        deadline = time.monotonic() + 20
        while not came and time.monotonic() < deadline:
            came = session.receive(8, 1.0)
        assert [incoming.verified.header.jti for incoming in came] == [answer.message_id]
        assert session.welcome is not first
