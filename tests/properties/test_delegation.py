"""What we issue always verifies and never exceeds its issuer: rights, life, depth."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import (
    Credential,
    IdentityError,
    VerifiedChain,
    create_proxy,
    make_csr,
    new_key,
    parse_certificate,
    sign_csr,
    split_chain,
    verify_chain,
)
from broker.identity.certificate import OID_PROXY_CERT_INFO
from broker.identity.proxy_info import INDEPENDENT, INHERIT_ALL, LIMITED, ProxyCertInfo
from tests.support.effort import effort
from tests.support.pki import NOW, Extra, Pki, make_pki, pci, proxy, usage

MINUTE = dt.timedelta(minutes=1)
KEYS = [new_key() for _ in range(4)]
ALLOWED = ("keyUsage", "path length", "expired", "not yet valid", "lifetime", "key of its own", "negative", "policy")
"""Why nothing is issued; anything else would be a surprise."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@dataclass(frozen=True)
class Issuer:
    """One proxy of the issuer's chain, minutes from now."""

    language: str
    length: int | None
    begin: int
    end: int
    may_sign: bool


issuers = st.lists(
    st.builds(
        Issuer,
        st.sampled_from([INHERIT_ALL, INHERIT_ALL, LIMITED, INDEPENDENT, "1.2.3.4"]),
        st.none() | st.none() | st.integers(0, 4),
        st.integers(-90, 5),
        st.integers(6, 120),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=3,
)


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    lifetime: dt.timedelta
    limited: bool
    path_length: int | None
    key: int
    by_request: bool


lifetimes = (
    st.timedeltas(dt.timedelta(seconds=-5), dt.timedelta(hours=3))
    | st.timedeltas(dt.timedelta(0), dt.timedelta(seconds=2))
    | st.sampled_from([dt.timedelta.max, dt.timedelta.min, dt.timedelta(days=365_000)])
)
wishes = st.builds(
    Wish, lifetimes, st.booleans(), st.none() | st.integers(-1, 3), st.integers(0, len(KEYS) - 1), st.booleans()
)
moments = st.integers(-95, 125).map(lambda minutes: NOW + minutes * MINUTE) | st.datetimes(
    (NOW - 10 * MINUTE).replace(tzinfo=None), (NOW + 10 * MINUTE).replace(tzinfo=None), timezones=st.just(dt.UTC)
)


def issuer_of(pki: Pki, chain: list[Issuer]) -> Credential:
    credential = pki.user
    for number, item in enumerate(chain):
        extensions: list[Extra] = [pci(ProxyCertInfo(item.language, item.length).encode())]
        extensions.append(usage(digital_signature=item.may_sign, key_encipherment=True))
        begin, end = NOW + item.begin * MINUTE, NOW + item.end * MINUTE
        credential = proxy(
            credential, str(number), extensions=extensions, begin=begin, end=end, key=KEYS[number], serial=number + 1
        )
    return credential


def issued(issuer: Credential, wish: Wish, now: dt.datetime) -> tuple[bytes, ...]:
    key = KEYS[wish.key]
    if wish.by_request:
        pem = sign_csr(
            make_csr(key), issuer.ders, issuer.key, lifetime=wish.lifetime, limited=wish.limited, now=now,
            path_length=wish.path_length,
        )  # fmt: skip
        return tuple(split_chain(pem))
    return create_proxy(
        issuer.ders, issuer.key, lifetime=wish.lifetime, limited=wish.limited, now=now, key=key,
        path_length=wish.path_length,
    ).ders  # fmt: skip


def verdict(pki: Pki, ders: tuple[bytes, ...], now: dt.datetime) -> VerifiedChain | None:
    try:
        return verify_chain(ders, pki.trust, None, now)
    except IdentityError:
        return None


@given(issuers, wishes, moments)
@effort(300)
def test_what_is_issued_verifies_and_is_less_than_its_issuer(
    pki: Pki, chain: list[Issuer], wish: Wish, now: dt.datetime
) -> None:
    issuer = issuer_of(pki, chain)
    parent = verdict(pki, issuer.ders, now)
    try:
        ders = issued(issuer, wish, now)
    except IdentityError as error:
        refusal = error.reason
    else:
        refusal = ""
    if refusal:
        assert any(word in refusal for word in ALLOWED), refusal
        return
    child = verdict(pki, ders, now)
    if parent is None:
        assert child is None  # an issuer that is not valid makes nothing valid
        return
    assert child is not None
    assert child.limited == (wish.limited or parent.limited)
    assert child.depth == parent.depth + 1
    assert parent.not_before <= child.not_before <= now < child.not_after <= parent.not_after
    assert child.not_after - now <= wish.lifetime
    assert child.identity == parent.identity or INDEPENDENT in {item.language for item in chain}
    assert child.ders[1:] == parent.ders
    info = ProxyCertInfo.decode(parse_certificate(child.leaf).extensions[OID_PROXY_CERT_INFO].value)
    assert info.path_length == wish.path_length


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3) | st.none(), st.booleans()), min_size=1, max_size=6))
@effort(60)
def test_chains_of_delegations_keep_all_bounds(pki: Pki, links: list[tuple[bool, int | None, bool]]) -> None:
    """One link after the other, as they come: each is refused, or the whole is valid."""
    credential, allowed, limited = pki.user, 100, False
    for number, (ask_limited, length, by_request) in enumerate(links):
        wish = Wish(10 * MINUTE, ask_limited, length, 0, by_request)
        key = new_key()
        KEYS[0] = key
        if allowed == 0:
            with pytest.raises(IdentityError, match="path length"):
                issued(credential, wish, NOW)
            return
        credential = Credential(key, issued(credential, wish, NOW))
        allowed = allowed - 1 if length is None else min(allowed - 1, length)
        limited = limited or ask_limited
        chain = verify_chain(credential.ders, pki.trust, None, NOW)
        assert (chain.depth, chain.limited) == (number + 1, limited)
