"""Other writings of what a JWS says: JSON, numbers, names, BASE64URL, signatures; envelopes and logins."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwcrypto import jwk, jws

from broker.identity import Credential
from broker.login import make_assertion
from broker.signing import b64url, sign_bytes, unb64url
from tests.support.jose import (
    CLIENT,
    EC_KEY,
    HEADER,
    ORDER,
    OTHER_KEY,
    PAYLOAD,
    SECONDS,
    THUMBPRINT,
    envelope,
    logged_in,
    opened,
    parts_of,
    raw,
    refused,
    replaced,
    sealed,
)
from tests.support.pki import USER_DN, make_pki, proxy

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
