"""The tricks that are played on JWS, against envelopes: each is refused, or changes nothing.

The second library is jwcrypto: what it signs we read, what we sign it reads, and where the two must agree they do.
Other writings of JSON, BASE64URL and signatures: ``test_jose_forms``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto import jwk, jws

from broker.identity import new_key
from broker.login import make_assertion
from broker.refusal import RefusalError
from broker.signing import b64url, sign_bytes
from tests.support.jose import (
    CLIENT,
    EC_KEY,
    HEADER,
    MESSAGE,
    OTHER_KEY,
    P384_KEY,
    PAYLOAD,
    RSA_KEY,
    SECONDS,
    envelope,
    logged_in,
    opened,
    refused,
    replaced,
    sealed,
)
from tests.support.pki import USER_DN, make_pki, proxy

# -- the second library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["ES256", "PS256"])
def test_both_directions(key: Any) -> None:
    public = jwk.JWK.from_pyca(key.public_key())
    theirs = jws.JWS()
    theirs.allowed_algs = ["ES256", "PS256"]
    theirs.deserialize(envelope(key))
    theirs.verify(public, detached_payload=PAYLOAD)
    made = jws.JWS(PAYLOAD)
    made.allowed_algs = ["ES256", "PS256"]
    header = HEADER | {"alg": "ES256" if key is EC_KEY else "PS256"}
    made.add_signature(jwk.JWK.from_pyca(key), protected=json.dumps(header))
    made.detach_payload()
    assert opened(made.serialize(compact=True), key).message == MESSAGE


@pytest.mark.parametrize("kind", ["P-256", "RSA"])
def test_logins_in_both_directions(tmp_path: Path, kind: str) -> None:
    pki = make_pki(tmp_path / "trust")
    credential = proxy(pki.user, key=new_key(rsa_bits=2048) if kind == "RSA" else None)
    ours = make_assertion(credential, client=CLIENT, audience="here", group="g", now=SECONDS)
    token = jws.JWS()
    token.allowed_algs = ["ES256", "PS256"]
    token.deserialize(ours, jwk.JWK.from_pyca(credential.key.public_key()))
    theirs = jws.JWS(token.payload)
    theirs.allowed_algs = ["ES256", "PS256"]
    theirs.add_signature(jwk.JWK.from_pyca(credential.key), protected=json.dumps(dict(token.jose_header)))
    assert logged_in(pki, theirs.serialize(compact=True)) == USER_DN


# -- algorithms -----------------------------------------------------------------------------------------------------

PUBLIC_PEM = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_DER = EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_POINT = EC_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", "ES256K", "ES384", "ES512", "RS256", "PS384", "EdDSA", "A" * 5000]
)
@pytest.mark.parametrize("signature", [b"", b"\0" * 64, None], ids=["no signature", "zeros", "right"])
def test_no_other_algorithm(name: str, signature: bytes | None) -> None:
    sign = None if signature is None else lambda _: signature or b""
    assert refused(sealed(HEADER | {"alg": name}, sign)) == "invalid"


@pytest.mark.parametrize(
    "secret", [PUBLIC_PEM, PUBLIC_PEM.strip(), PUBLIC_DER, PUBLIC_POINT], ids=["pem", "pem's text", "der", "point"]
)
@pytest.mark.parametrize("name", ["HS256", "ES256"])
def test_a_public_key_is_no_secret(secret: bytes, name: str) -> None:
    text = sealed(HEADER | {"alg": name}, lambda data: hmac.new(secret, data, hashlib.sha256).digest())
    assert refused(text) in {"invalid", "forged"}
    assert refused(sealed(HEADER | {"alg": name}, lambda d: hmac.new(secret, d, hashlib.sha512).digest())) in {
        "invalid",
        "forged",
    }


def test_an_algorithm_and_a_key_of_another_kind() -> None:
    assert refused(envelope(EC_KEY), RSA_KEY) == "invalid"
    assert refused(envelope(RSA_KEY), EC_KEY) == "invalid"
    with pytest.raises(RefusalError):
        envelope(P384_KEY)

    def es384(data: bytes) -> bytes:
        return P384_KEY.sign(data, ec.ECDSA(hashes.SHA256()))

    for name in ("ES384", "ES256"):
        assert refused(sealed(HEADER | {"alg": name}, es384), P384_KEY) == "invalid"


@pytest.mark.parametrize("salt", [0, 20, 31, 33, padding.PSS.MAX_LENGTH])
def test_the_salt_of_ps256_has_its_one_length(salt: Any) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    header = HEADER | {"alg": "PS256"}
    assert refused(sealed(header, lambda data: RSA_KEY.sign(data, pss, hashes.SHA256())), RSA_KEY) == "forged"
    old = sealed(header, lambda data: RSA_KEY.sign(data, padding.PKCS1v15(), hashes.SHA256()))
    assert refused(old, RSA_KEY) == "forged"


def test_keys_in_the_header_are_not_looked_at() -> None:
    mine = json.loads(jwk.JWK.from_pyca(OTHER_KEY.public_key()).export_public())
    certificate = base64.b64encode(b"certificate").decode()
    for extra in (
        {"jwk": mine},
        {"jku": "https://x"},
        {"x5u": "https://x"},
        {"kid": "../../key"},
        {"x5c": [certificate]},
    ):
        assert refused(sealed(HEADER | extra, lambda data: sign_bytes(OTHER_KEY, data))) == "forged"
        assert opened(sealed(HEADER | extra)).message == MESSAGE  # the right key: what else it says is passed over


# -- critical fields and encodings of the payload -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"crit": "[]"},
        {"crit": '"b64"'},
        {"crit": '["b64","b64"]'},
        {"crit": '["b64","exp"]'},
        {"crit": '["exp"]'},
        {"crit": "null"},
        {"crit": '["B64"]'},
        {"crit": '[["b64"]]'},
        {"crit": '{"b64":true}'},
        {"crit": '["x"]'},
        {"b64": "true"},
        {"b64": '"false"'},
        {"b64": "0"},
        {"b64": "null"},
        {"b64": "[]"},
        {"b64": "true", "crit": "[]"},
    ],
)
def test_critical_fields_say_exactly_one_thing(changes: dict[str, str]) -> None:
    assert refused(sealed(replaced(**changes))) == "invalid"


def test_a_payload_that_was_encoded_before_it_was_signed() -> None:
    """RFC 7515's usual form (b64: true) signs other bytes: one must not pass for the other."""
    protected = b64url(json.dumps(HEADER).encode())
    signature = sign_bytes(EC_KEY, f"{protected}.{b64url(PAYLOAD)}".encode())
    assert refused(f"{protected}..{b64url(signature)}") == "forged"
    assert refused(f"{protected}..{b64url(signature)}", payload=b64url(PAYLOAD).encode()) == "invalid"


def test_other_serializations() -> None:
    protected, _, signature = envelope().partition("..")
    flattened = {"protected": protected, "signature": signature}
    for text in (
        f"{protected}.{b64url(PAYLOAD)}.{signature}",
        json.dumps(flattened | {"payload": b64url(PAYLOAD)}),
        json.dumps({"signatures": [flattened]}),
        f"{protected}..{signature}..{signature}",
        f"{protected}...{signature}",
        f"{protected}..{signature}.",
        f".{protected}..{signature}",
        f"..{signature}",
        f"{protected}..",
        f"Bearer {protected}..{signature}",
    ):
        assert refused(text) in {"invalid", "forged"}
