"""VOMS's own client as second opinion on attribute certificates made by hand: never do we believe what it refuses.

A scripted server hands them to voms-proxy-init, which verifies what it gets before it says that all is well. `STRICTER`
says where it believes what we refuse.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable

import pytest
from cryptography import x509

from broker.identity import Authority, Credential, create_proxy, der, inspect_ac, new_key, verify_chain
from broker.identity.errors import IdentityError
from tests.support.attribute_certificates import (
    Voms,
    extension,
    general_name,
    key_identifier,
    make_ac,
)
from tests.support.grid_servers import CA_DN, HOST_DN, NAMESPACE, GridCa, GridUser
from tests.support.grid_tools import run_tool
from tests.support.pki import Pki
from tests.support.scripted_server import scripted_server

pytestmark = pytest.mark.integration

MINUTE = dt.timedelta(minutes=1)
NO_REVOCATION = extension("2.5.29.56", b"\x05\x00")

# What we refuse and VOMS's client believes, and why we are right to.
STRICTER = {
    "FQAN outside VO": "GFD.182: an authority speaks for its own VO only; the client leaves that to others",
    "with a malformed FQAN": "GFD.182 gives the form; what is of another one could be read in two ways",
    "critical extension that is not understood": "RFC 5755 §4.3: MUST be rejected",
    "not version 2": "RFC 5755 §4.1: version 1 is another structure",
}


@pytest.fixture(scope="module")
def voms(grid_ca: GridCa) -> Voms:
    """A VOMS server of the VO `lhcb`; the LSC file is named for the host that `make_ac` writes."""
    (grid_ca.vomsdir / "lhcb").mkdir()
    (grid_ca.vomsdir / "lhcb" / "voms.example.org.lsc").write_text(f"{HOST_DN}\n{CA_DN}\n")
    user = grid_ca.user("Ada Judged")
    pki = Pki(grid_ca.authority, grid_ca.trust_dir, grid_ca.trust(), user.credential)
    return Voms(pki, grid_ca.host(), grid_ca.voms_trust())


@pytest.fixture(scope="module")
def user(grid_ca: GridCa, voms: Voms) -> GridUser:
    """The same person for the tools."""
    made = grid_ca.user("Ada Judged")
    user = GridUser(made.dn, voms.pki.user, made.home, grid_ca.trust_dir, grid_ca.vomsdir)
    user.certificate.write_bytes(voms.pki.user.chain_pem)
    user.key.write_bytes(voms.pki.user.key_pem)
    return user


def made(voms: Voms, **options: object) -> bytes:
    moment = dt.datetime.now(dt.UTC)
    options = {"begin": moment - MINUTE, "end": moment + 60 * MINUTE} | options
    return make_ac(voms, **options)  # type: ignore[arg-type]  # handed through


def holder(voms: Voms, name: Callable[[x509.Certificate], x509.Name], number: int = 0) -> bytes:
    user = x509.load_der_x509_certificate(voms.pki.user.leaf)
    base = der.encode(0xA0, general_name(name(user)), der.encode_integer(user.serial_number + number))
    return der.encode(der.SEQUENCE, base)


def ours(voms: Voms, ac: bytes) -> str:
    """Why we refuse it; empty: we believe it."""
    moment = dt.datetime.now(dt.UTC)
    user = voms.pki.user
    try:
        inspect_ac(ac, user.ders)
        proxy = create_proxy(user.ders, user.key, lifetime=60 * MINUTE, limited=False, now=moment, acs=[ac])
    except IdentityError as error:
        return error.reason
    (found,) = verify_chain(proxy.ders, voms.pki.trust, voms.vomsdir, moment).acs
    return found.reason


def theirs(voms: Voms, user: GridUser, ac: bytes) -> str:
    """What voms-proxy-init objects to; empty: nothing."""
    answer = b"<vomsans><version>3</version><ac>" + base64.encodebytes(ac) + b"</ac></vomsans>"
    with scripted_server(voms.server, voms.pki.directory, [answer]) as (port, _said):
        vomses = user.home / "vomses"
        vomses.write_text(f'"lhcb" "localhost" "{port}" "{HOST_DN}" "lhcb"\n')
        ask = ["--rfc", "--bits", "1024", "--voms", "lhcb", "--vomses", vomses]
        result = run_tool("voms-proxy-init", *ask, environment=user.environment(), check=False)
    return "" if result.returncode == 0 else result.stderr.strip().rpartition("\n")[2] or "it crashed"


def test_both_believe_what_is_right(voms: Voms, user: GridUser) -> None:
    """Else no refusal below would prove anything."""
    for ac in (made(voms), made(voms, old_holder=True), made(voms, extensions=[extension("1.2.3.4", b"\x05\x00")])):
        assert (ours(voms, ac), theirs(voms, user, ac)) == ("", "")


WRONG: dict[str, Callable[[Voms], bytes]] = {
    "signature": lambda voms: made(voms, spoil=True),
    "expired": lambda voms: made(voms, begin=minutes_ago(60), end=minutes_ago(10)),
    "early": lambda voms: made(voms, begin=minutes_ago(-30)),
    "another VO's group": lambda voms: made(voms, fqans=["/lhcb", "/atlas/Role=admin"]),
    "no FQAN": lambda voms: made(voms, fqans=["lhcb"]),
    "another VO": lambda voms: made(voms, vo="atlas", fqans=["/atlas"]),
    "critical extension": lambda voms: made(voms, extensions=[extension("1.2.3.4", b"\x05\x00", critical=True)]),
    "other serial number": lambda voms: made(voms, holder=holder(voms, lambda user: user.issuer, 1)),
    "other serial number, old form": lambda voms: made(voms, holder=holder(voms, lambda user: user.subject, 1)),
    "other holder": lambda voms: made(
        voms, holder=holder(voms, lambda _user: x509.Name.from_rfc4514_string("CN=Mallory"))
    ),
    "no noRevAvail": lambda voms: made(voms, usual=[extension("2.5.29.35", key_identifier(cert(voms.server)))]),
    "no key identifier": lambda voms: made(voms, usual=[NO_REVOCATION]),
    "other key identifier": lambda voms: made(
        voms, usual=[NO_REVOCATION, extension("2.5.29.35", key_identifier(cert(voms.pki.user)))]
    ),
    "no certificates": lambda voms: made(voms, certificates=[]),
    "other host": lambda voms: made(voms, server=host(voms.pki.authority, "other.example.org")),
    "the user himself": lambda voms: made(voms, server=voms.pki.user),
    "foreign authority": lambda voms: made(voms, server=host(foreign(), "localhost")),
    "foreign key below the server's certificate": lambda voms: made(
        voms, server=Credential(voms.pki.user.key, voms.server.ders)
    ),
    "version 1": lambda voms: made(voms, version=0),
    "cut off": lambda voms: made(voms)[:-10],
}


def minutes_ago(minutes: int) -> dt.datetime:
    """The client forgives clocks that differ by five."""
    return dt.datetime.now(dt.UTC) - minutes * MINUTE


def cert(credential: Credential) -> x509.Certificate:
    return x509.load_der_x509_certificate(credential.leaf)


def host(authority: Authority, name: str) -> Credential:
    return authority.issue(f"{NAMESPACE}/OU=Hosts/CN={name}", "server", [name], key=new_key(rsa_bits=2048))


def foreign() -> Authority:
    return Authority.create(CA_DN, key=new_key(rsa_bits=2048))


@pytest.mark.parametrize("how", sorted(WRONG))
def test_what_is_wrong(voms: Voms, user: GridUser, how: str) -> None:
    ac = WRONG[how](voms)
    mine, others = ours(voms, ac), theirs(voms, user, ac)
    assert mine, f"we believe it; VOMS says: {others}"
    if not others:
        assert any(reason in mine for reason in STRICTER), f"VOMS believes what we refuse for no listed reason: {mine}"
