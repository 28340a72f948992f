"""Envelopes of any form, rightly signed or not, for tests that play tricks on JWS."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.identity import verify_chain
from broker.login import check_assertion
from broker.refusal import RefusalError
from broker.signing import ChainFacts, Signer, Verified, b64url, open_envelope, sign_bytes, unb64url
from schemas.identity import make_client_id
from schemas.messages.user import KillJobs
from schemas.registry import encode, type_of
from tests.support.pki import NOW, USER_DN

SECONDS = NOW.timestamp()
CLIENT = make_client_id(USER_DN, "abc123")
EC_KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P384_KEY = ec.generate_private_key(ec.SECP384R1())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""
MESSAGE = KillJobs(jobs=(1, 2, 3))
PAYLOAD = encode(MESSAGE)
THUMBPRINT = "t" * 43


def envelope(key: Any = EC_KEY) -> str:
    signer = Signer(key, THUMBPRINT, USER_DN, CLIENT, "users")
    return signer.sign(
        type_of(KillJobs), PAYLOAD, audience="job-manager", now=SECONDS, message_id="m-1", with_reply=True
    )


HEADER = json.loads(unb64url(envelope().partition("..")[0]))


def opened(text: object, key: Any = EC_KEY, payload: bytes = PAYLOAD) -> Verified:  # type: ignore[type-arg]  # of any
    facts = ChainFacts(USER_DN, False, SECONDS - 1000, SECONDS + 1000, key.public_key())
    return open_envelope(
        text, payload, resolve={THUMBPRINT: facts}.get, audiences={"job-manager"}, now=SECONDS, user_id=CLIENT
    )


def refused(text: object, key: Any = EC_KEY, payload: bytes = PAYLOAD) -> str:
    with pytest.raises(RefusalError) as caught:
        opened(text, key, payload)
    return caught.value.code


def sealed(header: bytes | dict[str, object], sign: Callable[[bytes], bytes] | None = None) -> str:
    """Any header, signed rightly unless told otherwise."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    protected = b64url(text)
    data = protected.encode() + b"." + PAYLOAD
    return f"{protected}..{b64url(sign(data) if sign else sign_bytes(EC_KEY, data))}"


def raw(**changes: str) -> bytes:
    """The header with some values as raw JSON text; a name that is there already comes twice."""
    return json.dumps(HEADER).encode()[:-1] + "".join(f',"{k}":{v}' for k, v in changes.items()).encode() + b"}"


def replaced(**changes: str) -> bytes:
    """The header with some values replaced by raw JSON text."""
    rest = {name: value for name, value in HEADER.items() if name not in changes}
    return json.dumps(rest).encode()[:-1] + "".join(f',"{k}":{v}' for k, v in changes.items()).encode() + b"}"


def logged_in(pki: Any, text: str) -> str:
    _, chain = check_assertion(
        text, client=CLIENT, audience="here", now=SECONDS, verify=lambda ders: verify_chain(ders, pki.trust, None, NOW)
    )
    return chain.identity


def parts_of(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
