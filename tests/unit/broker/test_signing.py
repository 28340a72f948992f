"""Envelopes: ours verify with a standard JWS library and the other way round; every change is refused."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwcrypto import jwk, jws

from broker.identity import thumbprint
from broker.refusal import RefusalError
from broker.signing import (
    ChainFacts,
    Signer,
    Verified,
    b64url,
    open_envelope,
    sign_bytes,
    unb64url,
    uuid7,
)
from schemas.envelope import CLOCK_SKEW
from schemas.identity import make_client_id
from schemas.messages.user import KillJobs
from schemas.registry import encode, type_of

NOW = 1_800_000_000.0
DN = "/O=Test/CN=Alice"
CLIENT = make_client_id(DN, "abc123")
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {"ES256": EC_KEY, "PS256": RSA_KEY}
MESSAGE = KillJobs(jobs=(1, 2, 3))
PAYLOAD = encode(MESSAGE)
THUMB = thumbprint(b"certificate")


def signer(key=EC_KEY, **changes) -> Signer:
    values = {"key": key, "thumbprint": THUMB, "issuer": DN, "client": CLIENT, "group": "users"} | changes
    return Signer(**values)


def signed(payload=PAYLOAD, by=None, **changes) -> str:
    values = {"audience": "job-manager", "now": NOW, "message_id": uuid7(NOW), "with_reply": True} | changes
    return (by or signer()).sign(type_of(KillJobs), payload, **values)


def opened(envelope, payload=PAYLOAD, key=EC_KEY, **changes):
    facts = ChainFacts(DN, False, NOW - 1000, NOW + 1000, key.public_key())
    values = {
        "resolve": lambda asked: facts if asked == THUMB else None,
        "audiences": {"job-manager"},
        "now": NOW,
        "user_id": CLIENT,
    } | changes
    return open_envelope(envelope, payload, **values)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_what_we_sign_we_accept(algorithm):
    key = KEYS[algorithm]
    verified = opened(signed(by=signer(key)), key=key)
    assert verified.message == MESSAGE
    assert verified.header.alg == algorithm
    assert verified.issuer == DN


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_a_standard_library_verifies_ours(algorithm):
    key = KEYS[algorithm]
    token = jws.JWS()
    token.allowed_algs = ["ES256", "PS256"]
    token.deserialize(signed(by=signer(key)))
    token.verify(jwk.JWK.from_pyca(key.public_key()), detached_payload=PAYLOAD)
    with pytest.raises(jws.InvalidJWSSignature):
        token.verify(jwk.JWK.from_pyca(key.public_key()), detached_payload=PAYLOAD + b" ")


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_we_verify_a_standard_librarys(algorithm):
    key = KEYS[algorithm]
    header = json.loads(unb64url(signed(by=signer(key)).partition("..")[0]))
    token = jws.JWS(PAYLOAD)
    token.allowed_algs = ["ES256", "PS256"]
    token.add_signature(jwk.JWK.from_pyca(key), alg=algorithm, protected=json.dumps(header))
    token.detach_payload()
    assert opened(token.serialize(compact=True), key=key).message == MESSAGE


def refusal(envelope, payload=PAYLOAD, **changes) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        opened(envelope, payload, **changes)
    return caught.value


def test_every_changed_bit_of_the_payload_is_refused():
    envelope = signed()
    for position in range(len(PAYLOAD)):
        changed = bytearray(PAYLOAD)
        changed[position] ^= 1
        assert refusal(envelope, bytes(changed)).code == "forged"


def test_every_changed_character_of_the_envelope_is_refused():
    envelope = signed()
    for position, character in enumerate(envelope):
        changed = envelope[:position] + ("A" if character != "A" else "B") + envelope[position + 1 :]
        assert refusal(changed).code in {"forged", "invalid", "chain-unknown"}


def edited(**changes) -> str:
    """An envelope with other header fields, signed with the right key."""
    header = json.loads(unb64url(signed().partition("..")[0])) | changes
    header = {name: value for name, value in header.items() if value is not None}
    protected = b64url(json.dumps(header).encode())
    return f"{protected}..{b64url(sign_bytes(EC_KEY, protected.encode() + b'.' + PAYLOAD))}"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"alg": "none"}, "invalid"),
        ({"alg": "HS256"}, "invalid"),
        ({"alg": "PS256"}, "invalid"),
        ({"b64": True}, "invalid"),
        ({"b64": None}, "invalid"),
        ({"crit": ["b64", "x"]}, "invalid"),
        ({"crit": None}, "invalid"),
        ({"typ": "job.kill.v9"}, "invalid"),
        ({"typ": "job.delete.v1", "aud": "job-manager"}, None),
        ({"iss": "/O=Test/CN=Bob"}, "forged"),
        ({"cli": make_client_id("/O=Test/CN=Bob", "abc123")}, "forged"),
        ({"cli": "job-manager"}, "forged"),
        ({"rpl": "reply.somebody"}, "forged"),
        ({"aud": "matcher"}, "misaddressed"),
        ({"exp": NOW - 1}, "expired"),
        ({"iat": NOW + CLOCK_SKEW + 1, "exp": NOW + 1000}, "expired"),
        ({"exp": NOW + 10 * 86400}, "expired"),
        ({"iat": NOW - 2000, "exp": NOW + 10}, "expired"),
        ({"x5t#S256": "unknown"}, "chain-unknown"),
        ({"jti": 7}, "invalid"),
    ],
)
def test_a_header_that_says_something_else(changes, code):
    envelope = edited(**changes)
    if code is None:  # a legal header: the type is bound by the signature, so nobody else can change it
        assert opened(envelope).type.name == "job.delete.v1"
    else:
        assert refusal(envelope).code == code


def test_the_identity_is_proven_only_after_the_signature():
    assert refusal(edited(aud="matcher")).proven
    assert not refusal(edited(iss="/O=Test/CN=Bob")).proven
    assert not refusal("x..y").proven


@pytest.mark.parametrize("envelope", ["", "..", "a..b", "é..é", None, 7, b"\xff..", "." * 100, "A" * 100_000, "{}..{}"])
def test_garbage_is_refused(envelope):
    assert refusal(envelope).code == "invalid"


def test_deeply_nested_json_is_refused():
    protected = b64url(b'{"alg":' + b"[" * 20_000)
    assert refusal(f"{protected}..AAAA").code == "invalid"
    deep = b'{"jobs":' + b"[" * 20_000
    assert refusal(signed(deep), deep).code == "invalid"


def test_a_payload_above_its_bound_is_refused_before_the_signature_is_checked():
    large = b" " * (type_of(KillJobs).max_bytes + 1)
    assert "at most" in str(refusal(signed(), large))


def test_a_readmission_is_not_checked_for_time_again():
    assert opened(signed(), now=NOW + 10**7, admitted_before=True).message == MESSAGE


def test_nobody_else_makes_a_verified_message():
    with pytest.raises(TypeError):
        Verified(MESSAGE, None, None, False, (), b"", 0.0, object())


def test_the_signer_shows_no_key():
    assert "key" not in repr(signer())


def test_uuid7_sorts_by_time():
    assert uuid7(1000.0) < uuid7(1000.5) < uuid7(2000.0)
    assert uuid7()[14] == "7"


def test_base64url_is_strict():
    assert unb64url(b64url(b"\xff\xfe")) == b"\xff\xfe"
    for text in ("a", "QQ==", "Q+/_", "Q Q", base64.b64encode(b"\xff\xff").decode()):
        with pytest.raises(ValueError, match="base64url"):
            unb64url(text)
