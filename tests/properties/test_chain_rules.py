"""What must hold for any chain: who it is, how long, how deep, how limited, and what comes along with it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import Authority, Credential, IdentityError, VerifiedChain, new_key, pem_chain, verify_chain
from broker.identity.proxy_info import INHERIT_ALL, LIMITED, ProxyCertInfo
from tests.support.attribute_certificates import FQANS, Voms, make_ac, make_voms, with_acs
from tests.support.effort import effort
from tests.support.pki import CA_DN, NOW, USER_DN, Pki, craft, make_pki, pci, proxy, usage

MINUTE = dt.timedelta(minutes=1)
KEY = new_key()
"""One for all proxies here: making keys would take longer than everything else."""

languages = st.sampled_from([INHERIT_ALL, LIMITED])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


@dataclass(frozen=True)
class Step:
    """One proxy: what it says of itself, and when it lives (minutes from now)."""

    language: str = INHERIT_ALL
    length: int | None = None
    begin: int = -60
    end: int = 60


steps = st.builds(
    Step, languages, st.none() | st.integers(0, 4), st.integers(-90, -1), st.integers(1, 120)
)  # fmt: skip


def made(pki: Pki, chain: list[Step]) -> Credential:
    credential = pki.user
    for number, step in enumerate(chain):
        extensions = [pci(ProxyCertInfo(step.language, step.length).encode()), usage(digital_signature=True)]
        begin, end = NOW + step.begin * MINUTE, NOW + step.end * MINUTE
        credential = proxy(credential, str(number), extensions=extensions, begin=begin, end=end, key=KEY)
    return credential


def verified(pki: Pki, credential: Credential, now: dt.datetime = NOW) -> VerifiedChain:
    return verify_chain(credential.ders, pki.trust, None, now)


@given(st.lists(st.tuples(languages, st.none() | st.integers(0, 4)), min_size=1, max_size=5))
@effort(60)
def test_path_length_is_never_exceeded(pki: Pki, pairs: list[tuple[str, int | None]]) -> None:
    """Against the definition: proxy i may have at most `length` proxies below it."""
    credential = made(pki, [Step(*pair) for pair in pairs])
    below = range(len(pairs) - 1, -1, -1)
    if all(length is None or count <= length for (_, length), count in zip(pairs, below, strict=True)):
        assert verified(pki, credential).depth == len(pairs)
    else:
        with pytest.raises(IdentityError, match="path length exceeded"):
            verified(pki, credential)


@given(st.lists(steps.filter(lambda step: step.length is None) | st.builds(Step, languages), min_size=1, max_size=5))
@effort(60)
def test_limits_are_never_lost_and_names_and_times_are_the_chains(pki: Pki, chain: list[Step]) -> None:
    found = verified(pki, made(pki, chain))
    assert found.limited == any(step.language == LIMITED for step in chain)
    assert (found.identity, found.depth) == (USER_DN, len(chain))
    assert found.not_before == max(NOW - 5 * MINUTE, *(NOW + step.begin * MINUTE for step in chain))
    assert found.not_after == min(NOW + step.end * MINUTE for step in chain)


@given(st.lists(st.tuples(st.integers(-90, 30), st.integers(1, 120)), min_size=1, max_size=4), st.integers(-30, 100))
@effort(60)
def test_valid_exactly_while_all_are(pki: Pki, spans: list[tuple[int, int]], at: int) -> None:
    credential = made(pki, [Step(begin=begin, end=begin + length) for begin, length in spans])
    begins = max(-5, *(begin for begin, _ in spans))
    ends = min(begin + length for begin, length in spans)
    if begins <= at <= ends:
        chain = verified(pki, credential, NOW + at * MINUTE)
        assert (chain.not_before, chain.not_after) == (NOW + begins * MINUTE, NOW + ends * MINUTE)
    else:
        with pytest.raises(IdentityError, match=r"expired|not yet valid|CRL"):
            verified(pki, credential, NOW + at * MINUTE)


@given(st.lists(steps, max_size=4), st.data())
@effort(60)
def test_order_and_repetition_in_a_file_mean_nothing(pki: Pki, chain: list[Step], data: st.DataObject) -> None:
    credential = made(pki, chain)
    shuffled = data.draw(st.permutations(credential.ders))
    shuffled += data.draw(st.lists(st.sampled_from(credential.ders), max_size=3))
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    try:
        wanted = verified(pki, credential)
    except IdentityError as error:
        reason = error.reason
        for source in (shuffled, pem_chain(shuffled)):
            with pytest.raises(IdentityError) as caught:
                verify_chain(source, pki.trust, None, NOW)
            assert caught.value.reason == reason
        return
    assert verify_chain(shuffled, pki.trust, None, NOW) == wanted
    assert verify_chain(pem_chain(shuffled) + key, pki.trust, None, NOW) == wanted


@pytest.fixture(scope="module")
def foreign(pki: Pki, voms: Voms) -> list[bytes]:
    """Certificates that somebody might put beside a chain: others' users, proxies and authorities, true and false."""
    bob = pki.authority.issue("/DC=org/DC=example/OU=People/CN=Bob", now=NOW)
    namesake = Authority.create(CA_DN, now=NOW)  # the same name, another key
    ada_again = pki.authority.issue(USER_DN, now=NOW)
    false_ada = namesake.issue(USER_DN, now=NOW)
    stranger = Authority.create("/DC=net/DC=example/CN=Other CA", now=NOW)
    ac = with_acs(make_ac(voms, fqans=["/lhcb/Role=production"]))
    full = [pci(), usage(digital_signature=True), ac]
    below_user = proxy(pki.user, "7")
    return [
        item.leaf
        for item in (
            bob, ada_again, false_ada, voms.server, proxy(bob, "1"), proxy(ada_again, "1"), proxy(false_ada, "1"),
            below_user, proxy(below_user, "8"), proxy(pki.user, "0", extensions=full), craft(pki.user, "not a proxy"),
            stranger.credential, namesake.credential, pki.authority.credential,
        )
    ]  # fmt: skip


@given(st.lists(steps, max_size=3), st.data())
@effort(80)
def test_foreign_certificates_never_make_it_somebody_else(
    pki: Pki, voms: Voms, foreign: list[bytes], chain: list[Step], data: st.DataObject
) -> None:
    """With others' certificates beside it, a chain is refused, or it is what it was."""
    credential = made(pki, chain)
    added = data.draw(st.lists(st.sampled_from(foreign), min_size=1, max_size=4))
    together = data.draw(st.permutations([*credential.ders, *added]))
    try:
        found = verify_chain(together, pki.trust, voms.vomsdir, NOW)
    except IdentityError:
        return
    assert found.identity == USER_DN
    if found.leaf != credential.leaf:
        # A proxy that is none of this chain was put below it: it is the same person's only if he signed it.
        assert found.depth > len(chain)
        assert found.leaf in added
        return
    wanted = verify_chain(credential.ders, pki.trust, voms.vomsdir, NOW)
    assert found == wanted


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.data())
@effort(30)
def test_attributes_count_wherever_they_sit(pki: Pki, voms: Voms, places: list[bool], data: st.DataObject) -> None:
    credential = pki.user
    ac = with_acs(make_ac(voms))
    for number, carries in enumerate(places):
        language = data.draw(languages)
        extensions = [pci(ProxyCertInfo(language).encode()), usage(digital_signature=True), *([ac] if carries else [])]
        credential = proxy(credential, str(number), extensions=extensions, key=KEY)
    chain = verify_chain(credential.ders, pki.trust, voms.vomsdir, NOW)
    assert chain.fqans == (FQANS if any(places) else ())
    assert len(chain.acs) == sum(places)
