"""OpenSSL as second opinion on proxy chains, sound and spoiled: never do we take what it refuses, but for `LAXER`.

Where it takes what we refuse, `STRICTER` says why. OpenSSL knows nothing of limited proxies, policies, signing policies
or VOMS: those it cannot judge.
"""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import (
    Authority,
    Credential,
    IdentityError,
    TrustStore,
    create_proxy,
    new_key,
    parse_certificate,
    verify_chain,
)
from broker.identity.proxy_info import INDEPENDENT, INHERIT_ALL, LIMITED, ProxyCertInfo
from tests.support.effort import effort
from tests.support.pki import CA_DN, HOUR, NOW, USER_DN, Extra, Pki, craft, make_pki, pci, rdn, unknown, usage

KEYS = [new_key() for _ in range(5)]

# What we refuse and OpenSSL takes, and why we are right to.
STRICTER = {
    "negative path length": "§3.8: INTEGER (0..MAX)",
    "proxyCertInfo is not critical": "RFC 3820 §3.8: MUST be critical, else a verifier that knows no proxies takes it",
    "policy language not understood": "§4.1.4 step b: OpenSSL leaves policies to its caller",
    "policy field beside": "§3.8.2: MUST NOT be present with these two languages",
    "weak or unsupported key": "a curve that no grid tool agrees on",
    "alternative name in a proxy": "§3.5: OpenSSL looks at the subject's, not at the issuer's alternative name",
    "the extendedKeyUsage of": "RFC 5280 §4.2.1.12: asked for no purpose, OpenSSL does not look",
    "the signing policy of": "a grid rule: OpenSSL does not know it",
    "two proxies of the same issuer": "what is no part of the path is an attack or a mistake; OpenSSL picks what fits",
    "a proxy whose issuer is missing": "as above",
    "more than one end entity": "as above",
}

# What we take and OpenSSL refuses: a proxy with a larger path length than its issuer has left. RFC 3820 §4.1.4 lets
# the smaller one count; OpenSSL, which goes from the leaf upwards, takes the leaf's number for the depth that it needs.
# What we issue says no more than what is left, so both agree on it.
LAXER = "proxy path length constraint exceeded"


def with_name(change: Callable[[list[x509.RelativeDistinguishedName]], None]) -> Callable[[x509.Name], x509.Name]:
    """A subject made from the issuer's by a change of its parts."""

    def make(issuer: x509.Name) -> x509.Name:
        parts = list(issuer.rdns)
        change(parts)
        return x509.Name(parts)

    return make


def cn(text: str = "9") -> x509.RelativeDistinguishedName:
    return rdn((NameOID.COMMON_NAME, text))


APPENDED = with_name(lambda parts: parts.append(cn()))


@dataclass(frozen=True)
class Proxy:
    """How one proxy is made; the default is sound."""

    info: tuple[Extra, ...] = (pci(),)
    more: tuple[Extra, ...] = (usage(digital_signature=True),)
    subject: Callable[[x509.Name], x509.Name] = APPENDED
    signer: bool = True
    begin: dt.datetime = NOW - HOUR
    end: dt.datetime = NOW + HOUR
    key: int | None = None


def proxy_with(language: str = INHERIT_ALL, length: int | None = None) -> Proxy:
    return Proxy(info=(pci(ProxyCertInfo(language, length).encode()),))


def more(*extensions: Extra) -> Proxy:
    return Proxy(more=(usage(digital_signature=True), *extensions))


_ALT = x509.SubjectAlternativeName([x509.DNSName("x.example.org")])
_ISSUER_ALT = x509.IssuerAlternativeName([x509.DNSName("x.example.org")])
_TLS_SERVER = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])

SOUND = [
    Proxy(),
    proxy_with(LIMITED),
    proxy_with(INDEPENDENT),
    proxy_with(length=0),
    proxy_with(length=1),
    proxy_with(LIMITED, length=2),
    more(unknown("1.2.3.4", critical=False)),
    Proxy(more=()),
    Proxy(more=(usage(digital_signature=True, key_encipherment=True),)),
    Proxy(end=NOW + 100 * HOUR),
]
SPOILED = {
    "legacy": Proxy(info=()),
    "draft": Proxy(info=(unknown("1.3.6.1.4.1.3536.1.222", pci()[0].value, critical=True),)),  # type: ignore[attr-defined]
    "not critical": Proxy(info=(pci(critical=False),)),
    "garbage info": Proxy(info=(pci(b"\x30\x00"),)),
    "negative length": Proxy(info=(pci(bytes.fromhex("300f0201ff300a06082b06010505071501")),)),
    "unknown language": proxy_with("1.2.3.4"),
    "policy beside inheritAll": Proxy(info=(pci(bytes.fromhex("3011300f06082b060105050715010403616263")),)),
    "expired": Proxy(end=NOW - HOUR / 2),
    "early": Proxy(begin=NOW + HOUR / 2),
    "foreign key": Proxy(signer=False),
    "authority": more((x509.BasicConstraints(ca=True, path_length=None), True)),
    "subject alternative name": more((_ALT, False)),
    "issuer alternative name": more((_ISSUER_ALT, False)),
    "unknown critical": more(unknown("1.2.3.4")),
    "server only": more((_TLS_SERVER, True)),
    "issuer's name": Proxy(subject=with_name(lambda parts: None)),
    "another's name": Proxy(subject=with_name(lambda parts: parts.__setitem__(-1, cn("Mallory")))),
    "shorter": Proxy(subject=with_name(lambda parts: parts.pop())),
    "two more": Proxy(subject=with_name(lambda parts: parts.extend([cn("8"), cn("9")]))),
    "not a CN": Proxy(subject=with_name(lambda parts: parts.append(rdn((NameOID.ORGANIZATION_NAME, "x"))))),
    "two in one": Proxy(
        subject=with_name(lambda parts: parts.append(rdn((NameOID.COMMON_NAME, "a"), (NameOID.SURNAME, "b"))))
    ),
    "other person": Proxy(subject=lambda _issuer: x509.Name([cn("Mallory"), cn("9")])),
}
MUTE = Proxy(more=(usage(key_encipherment=True),))
"""A sound leaf that may issue nothing."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chains")


def build(user: Credential, links: list[Proxy]) -> Credential:
    chain = user
    for number, link in enumerate(links):
        issuer = x509.load_der_x509_certificate(chain.leaf)
        chain = craft(
            chain,
            link.subject(issuer.subject),
            extensions=[*link.info, *link.more],
            key=KEYS[number % len(KEYS)] if link.key is None else KEYS[link.key],
            signer=None if link.signer else new_key(),
            begin=link.begin,
            end=link.end,
            serial=number + 1,
        )
    return chain


def openssl(pki: Pki, folder: Path, chain: Credential) -> str:
    """What OpenSSL objects to; empty: nothing."""
    file = folder / "chain.pem"
    file.write_bytes(chain.chain_pem)
    command = ["openssl", "verify", "-allow_proxy_certs", "-crl_check_all", "-CApath", pki.directory]
    result = subprocess.run([*command, "-untrusted", file, file], capture_output=True, text=True, timeout=30)
    return "" if result.returncode == 0 else result.stderr.partition("error ")[2].partition("\n")[0]


def ours(pki: Pki, chain: Credential) -> str:
    try:
        verify_chain(chain.ders, pki.trust, None, NOW)
    except IdentityError as error:
        return error.reason
    return ""


def boasts(links: Sequence[Proxy]) -> bool:
    """Whether some link promises more than is left to it, and is sound all the same."""
    left = 100
    for link in links:
        length = length_of(link)
        left -= 1
        if length is not None and length > left:
            return True
        left = left if length is None else min(left, length)
    return False


def length_of(link: Proxy) -> int | None:
    try:
        return ProxyCertInfo.decode(link.info[0][0].value).path_length  # type: ignore[attr-defined]
    except (IndexError, IdentityError):
        return None


def compare(pki: Pki, folder: Path, chain: Credential, links: Sequence[Proxy] = ()) -> None:
    mine, theirs = ours(pki, chain), openssl(pki, folder, chain)
    if theirs:
        assert mine or (LAXER in theirs and boasts(links)), f"we take what OpenSSL refuses: {theirs}"
    elif mine:
        assert any(reason in mine for reason in STRICTER), f"OpenSSL takes what we refuse for no listed reason: {mine}"


@given(st.lists(st.sampled_from(SOUND), min_size=1, max_size=5))
@effort(40)
def test_sound_links_in_any_order(pki: Pki, folder: Path, links: list[Proxy]) -> None:
    """A path length may make the whole unsound, for both."""
    chain = build(pki.user, links)
    assert ours(pki, chain) in {"", "path length exceeded"}
    compare(pki, folder, chain, links)


@given(st.lists(st.tuples(st.none() | st.integers(0, 5), st.booleans()), min_size=1, max_size=5))
@effort(40)
def test_of_what_we_issue_there_are_no_two_opinions(
    pki: Pki, folder: Path, links: list[tuple[int | None, bool]]
) -> None:
    chain = pki.user
    left = 100
    for number, (length, limited) in enumerate(links):
        key = KEYS[number]
        if left == 0:
            with pytest.raises(IdentityError, match="path length exceeded"):
                create_proxy(chain.ders, chain.key, lifetime=HOUR, limited=limited, now=NOW, key=key)
            return
        chain = create_proxy(
            chain.ders, chain.key, lifetime=HOUR, limited=limited, now=NOW, path_length=length, key=key
        )
        left = left - 1 if length is None else min(left - 1, length)
        assert (ours(pki, chain), openssl(pki, folder, chain)) == ("", "")


@given(st.lists(st.sampled_from([*SOUND, MUTE]), max_size=3), st.sampled_from(sorted(SPOILED)), st.data())
@effort(60)
def test_one_spoiled_link_anywhere(pki: Pki, folder: Path, links: list[Proxy], how: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(links)))
    chain = build(pki.user, [*links[:place], SPOILED[how], *links[place:]])
    assert ours(pki, chain)
    compare(pki, folder, chain)


@pytest.mark.parametrize("how", sorted(SPOILED))
def test_each_way_to_spoil_a_chain(pki: Pki, folder: Path, how: str) -> None:
    for links in ([SPOILED[how]], [Proxy(), SPOILED[how]], [SPOILED[how], Proxy()]):
        chain = build(pki.user, links)
        assert ours(pki, chain), how
        compare(pki, folder, chain)


def test_an_issuer_that_may_not_sign(pki: Pki, folder: Path) -> None:
    for links in ([MUTE], [MUTE, Proxy()], [Proxy(), MUTE, Proxy()]):
        compare(pki, folder, build(pki.user, links))


def test_end_entities_that_are_none(pki: Pki, folder: Path, tmp_path: Path) -> None:
    """Revoked, expired, of another authority, an authority itself, with another use: a sound proxy saves none."""
    authority = pki.authority
    revoked = authority.issue(f"{USER_DN}/CN=revoked", now=NOW)
    lists = tmp_path / "trust"
    authority.write_trust_dir(lists, revoked=[parse_certificate(revoked.leaf).serial], now=NOW)
    trusting = Pki(authority, lists, TrustStore.load(lists), pki.user)
    server_only = craft(
        authority.credential, "Server only", extensions=[usage(digital_signature=True), (_TLS_SERVER, False)]
    )
    users = {
        "revoked": revoked,
        "expired": craft(authority.credential, "Old", extensions=[usage(digital_signature=True)], end=NOW - HOUR / 2),
        "foreign": Authority.create(CA_DN, now=NOW).issue(USER_DN, now=NOW),
        "authority": authority.credential,
        "mute": craft(authority.credential, "Mute", extensions=[usage(key_agreement=True)]),
        "server only": Credential(server_only.key, server_only.ders[:1]),
        "weak curve": authority.issue(USER_DN, now=NOW, key=ec.generate_private_key(ec.SECP256K1())),
    }
    for name, user in users.items():
        chain = build(Credential(user.key, user.ders[:1]), [Proxy()])
        assert ours(trusting, chain), name
        compare(trusting, folder, chain)
    assert ours(trusting, build(pki.user, [Proxy()])) == ""


def test_leftovers_are_refused_by_us_alone(pki: Pki, folder: Path) -> None:
    first, second = build(pki.user, [Proxy()]), build(pki.user, [Proxy(key=1)])
    stranger = pki.authority.issue(f"{USER_DN}/CN=other", now=NOW)
    for more_of in ([second.leaf], [stranger.leaf], [build(stranger, [Proxy(key=2)]).leaf]):
        chain = Credential(first.key, (*first.ders, *more_of))
        assert ours(pki, chain)
        assert openssl(pki, folder, chain) == ""
