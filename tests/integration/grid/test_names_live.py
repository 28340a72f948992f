"""Names of every kind: what the grid's tools print of our proxies is, once read, the very identity that we prove."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import pytest

from broker.identity import (
    Credential,
    VomsDir,
    create_proxy,
    make_csr,
    new_key,
    pem_chain,
    save_credential,
    sign_csr,
    split_chain,
    verify_chain,
)
from broker.identity.vomsdir import parse_lsc
from schemas.identity import canonical_dn
from tests.support.grid_servers import CA_DN, NAMESPACE, GridCa, GridUser
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration

HOUR = dt.timedelta(hours=1)
NAMES = {
    "plain": "/CN=Ada Example",
    "ends in a number": "/CN=Ada Example/CN=12345",
    "beyond ASCII": "/OU=Größe/CN=Zoë Übel",
    "beyond the basic plane": "/CN=Ada 𝔄",
    "UID": "/UID=ada/CN=Ada Example",
    "address": "/CN=Ada Example/emailAddress=ada@example.org",
    "serial number": "/serialNumber=4711/CN=Ada Example/SN=Example/GN=Ada",
    "rare types": "/organizationIdentifier=VATDE-1/jurisdictionC=DE/telephoneNumber=+49/houseIdentifier=h/CN=Ada",
    "type without a name": "/1.2.3.4=x/CN=Ada",
    "several in one": "/CN=Ada+UID=ada",
    "host": "/CN=host/ce.example.org",
    "poses as two": "/CN=Ada\\/CN=Bob",
    "poses as several in one": "/CN=Ada\\+CN=Bob",
    "equals and quotes": '/CN=a=b + c, "d" <e>; #f',
    "control characters": "/CN=a\\u{a}b\\u{1b}[2J",
}
KINDS = {
    "rsa": (2048, 2048, 2048),
    "ec": (None, None, None),
    "ec on rsa": (2048, None, 2048),
    "rsa on ec": (None, 2048, None),
}


def make_user(ca: GridCa, dn: str, bits: int | None) -> GridUser:
    home = Path(tempfile.mkdtemp(prefix="name-", dir=ca.folder))
    return GridUser(dn, ca.authority.issue(dn, key=new_key(rsa_bits=bits)), home, ca.trust_dir, ca.vomsdir)


def delegated(user: Credential, first: int | None, second: int | None) -> Credential:
    """A proxy of his own, and one of that by request."""
    now = dt.datetime.now(dt.UTC)
    own = create_proxy(user.ders, user.key, lifetime=HOUR, limited=False, now=now, key=new_key(rsa_bits=first))
    key = new_key(rsa_bits=second)
    signed = sign_csr(make_csr(key), own.ders, own.key, lifetime=HOUR, limited=True, now=now)
    return Credential(key, tuple(split_chain(signed)))


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_the_same_everywhere(grid_ca: GridCa, name: str, kind: str) -> None:
    first, *rest = KINDS[kind]
    user = make_user(grid_ca, NAMESPACE + NAMES[name], first)
    chain = delegated(user.credential, *rest)
    save_credential(chain, user.proxy)
    proven = verify_chain(chain.ders, grid_ca.trust(), VomsDir.load(grid_ca.vomsdir), dt.datetime.now(dt.UTC))
    assert (proven.identity, proven.limited) == (user.dn, True)

    flags = ["-allow_proxy_certs", "-crl_check_all", "-x509_strict", "-CApath", grid_ca.trust_dir]
    run_tool("openssl", "verify", *flags, "-untrusted", user.proxy, user.proxy, environment={})
    user.certificate.write_bytes(pem_chain(user.credential.ders[:1]))
    wanted = ["-noout", "-subject", "-nameopt", "compat", "-in", user.certificate]
    openssl = run_tool("openssl", "x509", *wanted, environment={}).stdout
    assert canonical_dn(openssl.removeprefix("subject=").strip("\n")) == user.dn

    environment = user.environment()
    run_tool("grid-proxy-info", "-exists", environment=environment)
    globus = run_tool("grid-proxy-info", "-identity", environment=environment).stdout.strip("\n")
    assert canonical_dn(globus) == user.dn
    # VOMS's names the leaf's issuer, the first proxy: its owner and one CN more.
    voms = run_tool("voms-proxy-info", "-identity", environment=environment).stdout.strip("\n")
    assert canonical_dn(voms).rpartition("/CN=")[0] == user.dn


def test_an_lsc_file_as_the_tools_would_write_it() -> None:
    (chain,) = parse_lsc(f"/O=Universit\\xC3\\xA4t/CN=host\\/voms.example.org\n{CA_DN}\n")
    assert chain == ("/O=Universität/CN=host/voms.example.org", CA_DN)
