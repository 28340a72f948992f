"""The tricks that are played on JWS, against envelopes and logins: each is refused, or changes nothing.

The second library is jwcrypto: what it signs we read, what we sign it reads, and where the two must agree they do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto import jwk, jws

from broker.identity import Credential, new_key, verify_chain
from broker.login import check_assertion, make_assertion
from broker.refusal import RefusalError
from broker.signing import ChainFacts, Signer, Verified, b64url, open_envelope, sign_bytes, unb64url
from schemas.identity import make_client_id
from schemas.messages.user import KillJobs
from schemas.registry import encode, type_of
from tests.support.pki import NOW, USER_DN, make_pki, proxy

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


def logged_in(pki: Any, text: str) -> str:
    _, chain = check_assertion(
        text, client=CLIENT, audience="here", now=SECONDS, verify=lambda ders: verify_chain(ders, pki.trust, None, NOW)
    )
    return chain.identity


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


# -- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("alg", '"none"'),
        ("aud", '"matcher"'),
        ("iss", '"/CN=Bob"'),
        ("typ", '"job.delete.v1"'),
        ("b64", "true"),
        ("exp", "1"),
    ],
)
def test_of_a_name_that_comes_twice_the_last_counts_for_everybody(name: str, other: str) -> None:
    """RFC 7515 §4 allows that; what counts is that no two readers differ: ours, jwcrypto's and Python's agree."""
    good_last = b"{" + f'"{name}":{other},'.encode() + json.dumps(HEADER).encode()[1:]
    assert opened(sealed(good_last)).header.aud == "job-manager"
    assert json.loads(good_last)[name] == HEADER[name]
    bad_last = sealed(raw(**{name: other}))
    if name == "typ":  # another legal type: the sender may say so, and everybody reads it so
        assert opened(bad_last).type.name == "job.delete.v1"
    else:
        refused(bad_last)
    theirs = jws.JWS()
    theirs.allowed_algs = ["ES256"]
    theirs.deserialize(sealed(good_last))
    theirs.verify(jwk.JWK.from_pyca(EC_KEY.public_key()), detached_payload=PAYLOAD)


@pytest.mark.parametrize(
    "number",
    [
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        '"1"',
        "true",
        "null",
        "[]",
        "0x10",
        "01",
        "1.",
        "+1",
        "1_0",
    ],
)
@pytest.mark.parametrize("name", ["iat", "exp"])
def test_times_are_numbers(name: str, number: str) -> None:
    assert refused(sealed(replaced(**{name: number}))) == "invalid"


@pytest.mark.parametrize("number", ["1" + "0" * 308, "-1e308", "1e308", "0", "-1", "9" * 300, "5e-324", "253402300800"])
@pytest.mark.parametrize("name", ["iat", "exp"])
def test_times_far_away(name: str, number: str) -> None:
    assert refused(sealed(replaced(**{name: number}))) in {"expired", "invalid"}


def test_times_of_four_hundred_digits() -> None:
    for name in ("iat", "exp"):
        assert refused(sealed(replaced(**{name: "9" * 400}))) == "invalid"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("iss", USER_DN + "\\u0000"),
        ("iss", "\\u202e" + USER_DN),
        ("iss", USER_DN + " "),
        ("iss", USER_DN.lower()),
        ("iss", ""),
        ("cli", CLIENT + "\\u0000"),
        ("cli", CLIENT.upper()),
        ("aud", "job-manager\\u0000"),
        ("aud", "Job-Manager"),
        ("aud", "job\\u2010manager"),
        ("rpl", "reply." + CLIENT + "\\u0000"),
        ("jti", "a\\u0000"),
        ("typ", "job.kill.v1\\u0000"),
        ("iss", "\\ud800"),
        ("iss", "\\udc00\\ud800"),
        ("x5t#S256", THUMBPRINT + "="),
        ("cid", "a b"),
    ],
)
def test_names_that_look_alike(name: str, text: str) -> None:
    assert refused(sealed(replaced(**{name: f'"{text}"'}))) in {"invalid", "forged", "misaddressed", "chain-unknown"}


def test_another_writing_of_the_same_text_is_the_same() -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in USER_DN)
    text = replaced(iss=f'"{escaped}"').replace(b'"alg"', b'"\\u0061lg"')
    verified = opened(sealed(b" \n" + text + b"\t"))
    assert verified.header.iss == USER_DN


@pytest.mark.parametrize("tail", [b"{}", b"\0", b"x", b",", b"\xef\xbb\xbf", b"//x"])
def test_nothing_stands_beside_the_header(tail: bytes) -> None:
    text = json.dumps(HEADER).encode()
    assert refused(sealed(text + tail)) == "invalid"
    assert refused(sealed(tail + text)) == "invalid"


# -- signatures and BASE64URL ---------------------------------------------------------------------------------------


def parts_of(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def test_the_twin_of_a_signature_is_the_same_message() -> None:
    """Of (r, s) everybody can make (r, n - s). It opens, as ECDSA has it, and is the same message: receivers know
    messages by issuer and id, which are signed, never by their signature."""
    text = envelope()
    head, _, signature = text.partition("..")
    r, s = parts_of(unb64url(signature))
    twin = f"{head}..{b64url(r.to_bytes(32, 'big') + (ORDER - s).to_bytes(32, 'big'))}"
    assert twin != text
    one, other = opened(text), opened(twin)
    assert (one.header.iss, one.header.jti) == (other.header.iss, other.header.jti)
    assert one.header == other.header


@pytest.mark.parametrize(
    "change", ["zero r", "zero s", "both zero", "r + n", "s = n", "der", "short", "long", "swapped", "p1363 of 66"]
)
def test_malformed_signatures(change: str) -> None:
    def sign(data: bytes) -> bytes:
        signature = sign_bytes(EC_KEY, data)
        r, s = parts_of(signature)
        made = {
            "zero r": bytes(32) + signature[32:],
            "zero s": signature[:32] + bytes(32),
            "both zero": bytes(64),
            "r + n": ((r + ORDER) % 2**256).to_bytes(32, "big") + signature[32:],
            "s = n": signature[:32] + ORDER.to_bytes(32, "big"),
            "der": encode_dss_signature(r, s),
            "short": signature[:-1],
            "long": signature + b"\0",
            "swapped": signature[32:] + signature[:32],
            "p1363 of 66": r.to_bytes(33, "big") + s.to_bytes(33, "big"),
        }
        return made[change]

    assert refused(sealed(HEADER, sign)) == "forged"


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("spoil", ["=", "==", " ", "\n", "\r\n", "\t", "\0", "+", "/", "é", "\u2028", "%3D", "."])
def test_base64url_has_one_form(place: int, spoil: str) -> None:
    parts = envelope().split("..")
    for spoiled in (parts[place] + spoil, spoil + parts[place], parts[place][:9] + spoil + parts[place][9:]):
        changed = [spoiled if number == place else part for number, part in enumerate(parts)]
        assert refused("..".join(changed)) in {"invalid", "forged", "chain-unknown"}


def test_bits_behind_the_end_are_zero() -> None:
    """64 bytes leave four unused bits in the last letter: 16 texts would otherwise decode to one signature."""
    head, _, signature = envelope().partition("..")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(signature[-1])
    assert last % 16 == 0
    for more in range(1, 16):
        assert refused(f"{head}..{signature[:-1]}{alphabet[last + more]}") == "invalid"


def test_logins_play_by_the_same_rules(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "trust")
    credential = proxy(pki.user)
    text = make_assertion(credential, client=CLIENT, audience="here", group="g", now=SECONDS)
    header, claims, signature = text.split(".")
    assert logged_in(pki, text) == USER_DN
    said = json.loads(unb64url(header))

    def signed(fields: dict[str, object], key: Any = credential.key) -> str:
        start = f"{b64url(json.dumps(fields).encode())}.{claims}"
        return f"{start}.{b64url(sign_bytes(key, start.encode()))}"

    r, _ = parts_of(unb64url(signature))
    stranger = proxy(Credential(OTHER_KEY, pki.user.ders))
    for bad in (
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}..{signature}",
        text + "=",
        text + "\n",
        " " + text,
        f"{header}.{claims}.{signature}A",
        f"{header}.{claims}=.{signature}",
        text + ".",
        signed(said | {"alg": "none"}),
        signed(said | {"alg": "HS256"}),
        signed(said | {"alg": "PS256"}),
        signed(said, OTHER_KEY),
        signed(said | {"x5c": []}),
        signed(said | {"x5c": said["x5c"] + ["!"]}),
        signed(said | {"x5c": [base64.b64encode(stranger.leaf).decode()]}, stranger.key),
        f"{header}.{claims}.{b64url(r.to_bytes(32, 'big') + bytes(32))}",
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - one of two families
            logged_in(pki, bad)
        assert type(caught.value).__name__ in {"RefusalError", "IdentityError"}, bad
