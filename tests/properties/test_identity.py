"""What must hold for any name, any chain and any damage."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.identity import Credential, IdentityError, create_proxy, der, make_csr, new_key, sign_csr, verify_chain
from broker.identity.proxy_info import INHERIT_ALL, LIMITED, ProxyCertInfo
from schemas.errors import InvalidInputError
from schemas.identity import ATTRIBUTE_NAMES, Fqan, format_dn, parse_dn
from tests.support.pki import NOW, USER_DN, Pki, make_pki, pci, proxy, usage

# Certificates are slow to make; a few dozen examples find what they find.
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

kinds = st.sampled_from([*ATTRIBUTE_NAMES.values(), "1.2.3.4"])
values = st.text(max_size=12) | st.text(alphabet="/+=\\CNO1.u{}", max_size=12)
names = st.lists(st.lists(st.tuples(kinds, values), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5).map(
    tuple
)


@given(names)
@example(((("CN", "a/"),), (("CN", "b"),)))
def test_names_round_trip(name: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    text = format_dn(name)
    assert parse_dn(text) == name


@given(names, names)
def test_different_names_look_different(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]  # as above
    assert (format_dn(one) == format_dn(other)) == (one == other)


@given(st.text(max_size=40) | st.text(alphabet="/CN=O\\+u{}1.", max_size=20).map(lambda text: "/CN=" + text))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse_dn(text)
    except InvalidInputError:
        return
    assert parse_dn(format_dn(name)) == name


@given(st.text(alphabet="/lhcbRole=NULCapity. ", max_size=40))
def test_any_text_is_an_fqan_or_refused(text: str) -> None:
    try:
        fqan = Fqan.parse(text)
    except InvalidInputError:
        return
    assert Fqan.parse(str(fqan)) == fqan
    assert fqan.belongs_to(fqan.vo)


@given(st.binary(max_size=200))
def test_any_bytes_are_der_or_refused(data: bytes) -> None:
    for read in (der.read_all, lambda item: der.read_exactly(item, der.SEQUENCE).children(), ProxyCertInfo.decode):
        try:
            read(data)
        except IdentityError:
            continue


@given(st.integers(min_value=0, max_value=2**70))
def test_integers_round_trip(value: int) -> None:
    assert der.integer(der.read_exactly(der.encode_integer(value), der.INTEGER)) == value


@functools.cache
def pki() -> Pki:
    folder = Path(tempfile.mkdtemp(prefix="pilotage-trust-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_pki(folder)


@functools.cache
def sample() -> Credential:
    return proxy(proxy(pki().user, "1"), "2")


@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_is_refused(which: int, position: int, change: int) -> None:
    ders = [bytearray(item) for item in sample().ders]
    ders[which][position % len(ders[which])] ^= change
    with pytest.raises(IdentityError):
        verify_chain([bytes(item) for item in ders], pki().trust, None, NOW)


@given(st.integers(0, 2), st.integers(0, 10_000), st.binary(max_size=3))
@few
def test_any_cut_or_inserted_bytes_are_refused(which: int, position: int, insert: bytes) -> None:
    ders = list(sample().ders)
    position %= len(ders[which])
    changed = ders[which][:position] + insert + ders[which][position + 1 :]
    if changed == ders[which]:
        return
    ders[which] = changed
    with pytest.raises(IdentityError):
        verify_chain(ders, pki().trust, None, NOW)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 600)), min_size=1, max_size=4))
@few
def test_limits_and_lifetimes_are_never_lost(steps: list[tuple[bool, bool, int]]) -> None:
    credential, limited = pki().user, False
    for by_request, ask_limited, minutes in steps:
        lifetime = dt.timedelta(minutes=minutes)
        limited = limited or ask_limited
        if by_request:
            key = new_key()
            pem = sign_csr(
                make_csr(key), credential.ders, credential.key, lifetime=lifetime, limited=ask_limited, now=NOW
            )
            credential = Credential(key, verify_chain(pem, pki().trust, None, NOW).ders)
        else:
            credential = create_proxy(credential.ders, credential.key, lifetime=lifetime, limited=ask_limited, now=NOW)
    chain = verify_chain(credential.ders, pki().trust, None, NOW)
    assert (chain.identity, chain.depth, chain.limited) == (USER_DN, len(steps), limited)
    assert chain.not_after == NOW + dt.timedelta(minutes=min(minutes for _, _, minutes in steps))


@given(
    st.lists(st.tuples(st.sampled_from([INHERIT_ALL, LIMITED]), st.none() | st.integers(0, 4)), min_size=1, max_size=5)
)
@few
def test_path_length_is_never_exceeded(steps: list[tuple[str, int | None]]) -> None:
    """Against the definition: proxy i may have at most `length` proxies below it."""
    credential = pki().user
    for language, length in steps:
        extensions = [pci(ProxyCertInfo(language, length).encode()), usage(digital_signature=True)]
        credential = proxy(credential, extensions=extensions)
    below = range(len(steps) - 1, -1, -1)
    allowed = all(length is None or count <= length for (_, length), count in zip(steps, below, strict=True))
    if allowed:
        chain = verify_chain(credential.ders, pki().trust, None, NOW)
        assert chain.limited == any(language == LIMITED for language, _ in steps)
    else:
        with pytest.raises(IdentityError, match="path length exceeded"):
            verify_chain(credential.ders, pki().trust, None, NOW)


@given(st.lists(st.tuples(st.integers(-90, 30), st.integers(1, 120)), min_size=1, max_size=4), st.integers(-30, 100))
@few
def test_valid_exactly_while_all_are(spans: list[tuple[int, int]], at: int) -> None:
    credential, minute = pki().user, dt.timedelta(minutes=1)
    for begin, length in spans:
        credential = proxy(credential, begin=NOW + begin * minute, end=NOW + (begin + length) * minute)
    now = NOW + at * minute
    begins = max(-5, *(begin for begin, _ in spans))
    ends = min(begin + length for begin, length in spans)
    if begins <= at <= ends:
        chain = verify_chain(credential.ders, pki().trust, None, now)
        assert (chain.not_before, chain.not_after) == (NOW + begins * minute, NOW + ends * minute)
    else:
        with pytest.raises(IdentityError, match=r"expired|not yet valid|CRL"):
            verify_chain(credential.ders, pki().trust, None, now)
