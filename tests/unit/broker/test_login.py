"""Logins: an assertion is worth one login, of one client, at one broker, now."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.identity import Credential, IdentityError, VerifiedChain, new_key, verify_chain
from broker.login import ASSERTION_SECONDS, MAX_ASSERTION_BYTES, MAX_CHAIN, check_assertion, make_assertion
from broker.refusal import RefusalError
from broker.signing import b64url, sign_bytes, unb64url
from schemas.envelope import CLOCK_SKEW
from schemas.identity import make_client_id
from tests.support.pki import NOW, USER_DN, Pki, make_pki, proxy

SECONDS = NOW.timestamp()
CLIENT = make_client_id(USER_DN, "abc123")
BROKER = "production"
DEEP = f"{b64url(b'[' * 20_000)}.e30.AAAA"

Verify = Callable[[list[bytes]], VerifiedChain]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def alice(pki: Pki) -> Credential:
    return proxy(pki.user)


@pytest.fixture
def verify(pki: Pki) -> Verify:
    return lambda ders: verify_chain(ders, pki.trust, None, NOW)


def assertion(credential: Credential, **changes: Any) -> str:
    values = {"client": CLIENT, "audience": BROKER, "group": "users", "now": SECONDS} | changes
    return make_assertion(credential, **values)


def check(text: str, verify: Verify, **changes: Any) -> tuple[Any, VerifiedChain]:
    values = {"client": CLIENT, "audience": BROKER, "now": SECONDS} | changes
    return check_assertion(text, verify=verify, **values)


def refused(text: str, verify: Verify, **changes: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        check(text, verify, **changes)
    return caught.value.code


def changed(text: str, part: int, **fields: object) -> str:
    """The same assertion, with fields of its header (0) or claims (1) changed after it was signed."""
    parts = text.split(".")
    parts[part] = b64url(json.dumps(json.loads(unb64url(parts[part])) | fields).encode())
    return ".".join(parts)


def signed(credential: Credential, header: dict[str, object], claims: dict[str, object]) -> str:
    start = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{start}.{b64url(sign_bytes(credential.key, start.encode()))}"


def parts_of(text: str) -> tuple[dict[str, object], dict[str, object]]:
    header, claims, _ = text.split(".")
    return json.loads(unb64url(header)), json.loads(unb64url(claims))


def test_a_fresh_assertion_is_good(alice: Credential, verify: Verify) -> None:
    claims, chain = check(assertion(alice), verify)
    assert (claims.sub, claims.aud, claims.grp) == (CLIENT, BROKER, "users")
    assert chain.identity == USER_DN


def test_an_rsa_key_does_as_well(pki: Pki, verify: Verify) -> None:
    credential = proxy(pki.user, key=new_key(rsa_bits=2048))
    assert parts_of(assertion(credential))[0]["alg"] == "PS256"
    assert check(assertion(credential), verify)[1].identity == USER_DN


@pytest.mark.parametrize(
    ("shift", "good"),
    [
        (0, True),
        (ASSERTION_SECONDS + CLOCK_SKEW - 1, True),
        (ASSERTION_SECONDS + CLOCK_SKEW + 1, False),
        (1 - CLOCK_SKEW, True),
        (-CLOCK_SKEW - 1, False),
    ],
)
def test_it_is_good_for_its_minute_and_the_skew_of_clocks(
    alice: Credential, verify: Verify, shift: float, good: bool
) -> None:
    if good:
        check(assertion(alice), verify, now=SECONDS + shift)
    else:
        assert refused(assertion(alice), verify, now=SECONDS + shift) == "expired"


def test_nobody_signs_himself_a_longer_one(alice: Credential, verify: Verify) -> None:
    header, claims = parts_of(assertion(alice))
    assert refused(signed(alice, header, claims | {"exp": SECONDS + 3600}), verify) == "expired"


def test_another_broker_does_not_take_it(alice: Credential, verify: Verify) -> None:
    assert refused(assertion(alice), verify, audience="elsewhere") == "misaddressed"
    assert refused(assertion(alice, audience="elsewhere"), verify) == "misaddressed"


def test_another_client_id_does_not_take_it(alice: Credential, verify: Verify) -> None:
    assert refused(assertion(alice), verify, client=make_client_id(USER_DN, "other")) == "misaddressed"


@pytest.mark.parametrize(
    "client",
    [
        make_client_id("/CN=Somebody Else", "abc123"),
        CLIENT.partition(".")[0],
        CLIENT.partition(".")[0] + ".",
        CLIENT + ".x",
        CLIENT + "-",
        CLIENT.upper(),
        CLIENT + "é",
        CLIENT + "²",
        CLIENT + "a" * 40,
        "x" + CLIENT,
        "job-manager",
        "",
    ],
)
def test_a_client_id_that_is_not_ones_own_is_forged(alice: Credential, verify: Verify, client: str) -> None:
    assert refused(assertion(alice, client=client), verify, client=client) == "forged"


def test_another_key_does_not_speak_for_the_chain(alice: Credential, verify: Verify) -> None:
    thief = Credential(ec.generate_private_key(ec.SECP256R1()), alice.ders)
    assert refused(assertion(thief), verify) == "forged"


def test_the_algorithm_is_the_keys(alice: Credential, verify: Verify) -> None:
    header, claims = parts_of(assertion(alice))
    for algorithm in ("none", "HS256", "PS256", "ES384", ""):
        assert refused(signed(alice, header | {"alg": algorithm}, claims), verify) == "invalid"


def test_a_message_is_no_login(alice: Credential, verify: Verify) -> None:
    header, claims = parts_of(assertion(alice))
    assert refused(signed(alice, header | {"typ": "job.submit.v1"}, claims), verify) == "invalid"


@pytest.mark.parametrize("fields", [{"grp": "admins"}, {"exp": SECONDS + 59}, {"jti": "x"}, {"more": 1}])
def test_changed_claims_are_noticed(alice: Credential, verify: Verify, fields: dict[str, object]) -> None:
    assert refused(changed(assertion(alice), 1, **fields), verify) == "forged"


def test_every_changed_character_is_noticed(alice: Credential, verify: Verify) -> None:
    text = assertion(alice)
    start, end = text.index(".") - 20, len(text)
    for position in range(start, end, 3):
        other = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises((RefusalError, IdentityError)):
            check(other, verify)


def test_an_unknown_authority_is_not_believed(verify: Verify, tmp_path: Path) -> None:
    stranger = proxy(make_pki(tmp_path).user)
    with pytest.raises(IdentityError):
        check(assertion(stranger), verify)


def test_an_expired_proxy_logs_nobody_in(pki: Pki, verify: Verify) -> None:
    old = proxy(pki.user, begin=NOW - dt.timedelta(hours=2), end=NOW - dt.timedelta(hours=1))
    with pytest.raises(IdentityError):
        check(assertion(old), verify)


def test_sizes_are_bounded_before_anything_is_read(alice: Credential, verify: Verify) -> None:
    assert refused("A" * (MAX_ASSERTION_BYTES + 1), verify) == "invalid"
    header, claims = parts_of(assertion(alice))
    one = base64.b64encode(alice.leaf).decode()
    assert refused(signed(alice, header | {"x5c": [one] * (MAX_CHAIN + 1)}, claims), verify) == "invalid"
    assert refused(signed(alice, header | {"x5c": []}, claims), verify) == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        "\0",
        "{}.{}.{}",
        "e30.e30.AAAA",
        "W10.W10.",
        "." * 1000,
        "A" * 5000,
        DEEP,
    ],
)
def test_garbage_is_refused(verify: Verify, text: str) -> None:
    assert refused(text, verify) == "invalid"


def test_garbage_as_certificates_is_refused(alice: Credential, verify: Verify) -> None:
    header, claims = parts_of(assertion(alice))
    with pytest.raises((RefusalError, IdentityError)):
        check(signed(alice, header | {"x5c": ["AAAA"]}, claims), verify)
    assert refused(signed(alice, header | {"x5c": ["*"]}, claims), verify) == "invalid"
