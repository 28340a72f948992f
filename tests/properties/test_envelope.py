"""Whatever comes in by the wire: an envelope opens or is refused; nothing else happens, within bounded memory."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.refusal import RefusalError
from broker.signing import ChainFacts, Signer, Verified, b64url, open_envelope, peek, sign_bytes, unb64url
from schemas.envelope import MAX_JWS_BYTES
from schemas.identity import make_client_id
from schemas.messages.user import KillJobs
from schemas.registry import encode, registered, type_of
from tests.support.hostile import calmly

NOW = 1_800_000_000.0
DN = "/O=Test/CN=Alice"
CLIENT = make_client_id(DN, "abc123")
KEY = ec.generate_private_key(ec.SECP256R1())
THUMB = "t"
FACTS = ChainFacts(DN, False, NOW - 1000, NOW + 1000, KEY.public_key())
PAYLOAD = encode(KillJobs(jobs=(1, 2, 3)))
ENVELOPE = Signer(KEY, THUMB, DN, CLIENT, "users").sign(
    type_of(KillJobs), PAYLOAD, audience="job-manager", now=NOW, message_id="m", with_reply=True
)
HEADER = json.loads(unb64url(ENVELOPE.partition("..")[0]))
CODES = {"invalid", "forged", "chain-unknown", "misaddressed", "expired"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def verdict(jws: object, payload: bytes) -> str:
    """Open, and tell what came of it: `opened` or the code of the refusal."""
    size = len(payload) + (len(jws) if isinstance(jws, str | bytes) else 0)
    refusal = calmly(
        lambda: open_envelope(
            jws, payload, resolve={THUMB: FACTS}.get, audiences={"job-manager"}, now=NOW, user_id=CLIENT
        ),
        size,
        RefusalError,
    )
    if not isinstance(refusal, RefusalError):
        assert isinstance(refusal, Verified)
        assert refusal.payload == payload
        return "opened"
    assert refusal.code in CODES
    assert len(str(refusal)) < 2000
    return refusal.code


def signed(header: object, payload: bytes) -> str:
    protected = b64url(json.dumps(header).encode())
    return f"{protected}..{b64url(sign_bytes(KEY, protected.encode() + b'.' + payload))}"


def test_the_one_that_is_right_opens() -> None:
    assert verdict(ENVELOPE, PAYLOAD) == "opened"
    assert verdict(ENVELOPE.encode(), PAYLOAD) == "opened"
    assert verdict(signed(HEADER, PAYLOAD), PAYLOAD) == "opened"


@given(jws=st.binary(max_size=2000) | st.text(max_size=2000) | json_values, payload=st.binary(max_size=2000))
def test_bytes_of_any_kind_are_refused(jws: object, payload: bytes) -> None:
    assert verdict(jws, payload) == "invalid"


@given(header=st.binary(max_size=1000), signature=st.binary(max_size=80), payload=st.binary(max_size=200))
def test_any_bytes_in_the_right_form_are_refused(header: bytes, signature: bytes, payload: bytes) -> None:
    assert verdict(f"{b64url(header)}..{b64url(signature)}", payload) == "invalid"


@given(header=json_values)
def test_any_json_as_header_is_refused(header: object) -> None:
    assert verdict(signed(header, PAYLOAD), PAYLOAD) == "invalid"


@given(field=st.sampled_from(sorted(HEADER)), value=json_values)
def test_a_header_with_one_field_changed_after_signing_never_opens(field: str, value: object) -> None:
    changed = HEADER | {field: value}
    jws = f"{b64url(json.dumps(changed).encode())}..{ENVELOPE.partition('..')[2]}"
    if jws != ENVELOPE:
        assert verdict(jws, PAYLOAD) != "opened"


@given(field=st.sampled_from(sorted(HEADER)), value=json_values)
def test_a_sender_may_write_what_he_likes_and_is_understood_or_refused(field: str, value: object) -> None:
    if verdict(signed(HEADER | {field: value}, PAYLOAD), PAYLOAD) == "opened" and value != HEADER[field]:
        assert field not in {"alg", "typ", "iss", "x5t#S256", "cli", "aud", "rpl", "b64", "crit"} or not value


@given(payload=st.binary(max_size=3000) | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_signature_does_not_make_a_payload_right(payload: bytes) -> None:
    assert verdict(ENVELOPE, payload) in ({"opened"} if payload == PAYLOAD else {"forged"})
    assert verdict(signed(HEADER, payload), payload) in {"opened", "invalid"}


@given(name=st.sampled_from(sorted(registered())), payload=json_values.map(lambda value: json.dumps(value).encode()))
def test_every_type_takes_any_json_calmly(name: str, payload: bytes) -> None:
    row = registered()[name]
    header = HEADER | {"typ": name, "aud": "job-manager", "exp": NOW + min(row.lifetime, 60)}
    assert verdict(signed(header, payload), payload) in {"opened", "invalid"}


@given(st.sampled_from(["[", '{"a":', '"', "\\u0000", "9", "A", "=", "\x00"]), st.sampled_from([1000, 30_000, 500_000]))
def test_large_and_deep_input_is_refused_quickly(piece: str, count: int) -> None:
    text = piece * count
    assert verdict(text, PAYLOAD) == "invalid"
    assert verdict(f"{b64url(text.encode())}..AAAA", PAYLOAD) == "invalid"
    assert verdict(signed(HEADER, text.encode()), text.encode()) == "invalid"


@given(st.integers(min_value=1, max_value=5))
def test_nothing_above_the_bound_is_looked_at(more: int) -> None:
    with pytest.raises(RefusalError, match="too large"):
        peek("A" * (MAX_JWS_BYTES + more))


@pytest.mark.parametrize("jti", ["", "x" * 65, "x" * 10_000, "a\0b", "a b", "\u00e9", "../x"])
def test_an_id_is_short_and_plain_since_receivers_keep_it_as_a_key(jti: str) -> None:
    assert verdict(signed(HEADER | {"jti": jti}, PAYLOAD), PAYLOAD) == "invalid"
    assert verdict(signed(HEADER | {"cid": jti or " "}, PAYLOAD), PAYLOAD) == "invalid"
