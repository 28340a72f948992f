"""A one-time secret and what is signed with it: good for one key, one client, one deployment, now."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from broker import enrolment as module
from broker.enrolment import (
    MAX_ASSERTION_BYTES,
    Applicant,
    Enrolling,
    EnrolmentSecret,
    EnrolmentSecretError,
    NoSignerError,
    check_enrolment,
    enrolment_id,
    is_enrolment,
    load_public_key,
)
from broker.identity import make_csr, new_key
from broker.identity.keys import public_bytes
from broker.login import ASSERTION_SECONDS
from broker.refusal import RefusalError
from broker.signing import b64url, sign_bytes, unb64url
from schemas.envelope import CLOCK_SKEW
from schemas.errors import InvalidInputError

NOW = 1_800_000_000.0
BROKER, SITE = "production", "Site.Example.org"
SECRET = EnrolmentSecret.create()
APPLICANT = Applicant(SECRET, SITE, 3600.0)


def assertion(applicant: Applicant = APPLICANT, now: float = NOW, login: str = "login-1") -> str:
    return applicant.password(audience=BROKER, group="", now=now, login=login)


def check(text: str, **changes: Any) -> Enrolling:
    values = {"audience": BROKER, "now": NOW, "find": {SECRET.id: SECRET.public_key}.get, "client": APPLICANT.client}
    return check_enrolment(text, **(values | changes))


def refused(text: str, **changes: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        check(text, **changes)
    return caught.value.code


def signed(header: dict[str, object], claims: dict[str, object], key: ec.EllipticCurvePrivateKey = SECRET.key) -> str:
    """Signed by the genuine secret, whatever it says."""
    start = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{start}.{b64url(sign_bytes(key, start.encode()))}"


def parts_of(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = text.split(".")
    return json.loads(unb64url(header)), json.loads(unb64url(claims))


# -- the secret ---------------------------------------------------------------------------------------------------


def test_a_secret_survives_its_text_and_says_little_else() -> None:
    text = SECRET.text()
    assert EnrolmentSecret.parse(f"  {text}\n").public_key == SECRET.public_key
    assert text.startswith(f"pilotage-enrol-1.{SECRET.id}.")
    scalar = text.rpartition(".")[2]
    assert scalar not in repr(SECRET)
    assert scalar not in str(SECRET)
    with pytest.raises(TypeError):
        pickle.dumps(SECRET)


def test_ids_are_fingerprints() -> None:
    assert SECRET.id == enrolment_id(SECRET.public_key)
    assert len({EnrolmentSecret.create().id for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "text",
    ["", "x", "pilotage-enrol-1", "pilotage-enrol-1..", "pilotage-enrol-2." + SECRET.text().partition(".")[2],
     SECRET.text()[:-1], SECRET.text() + "A", SECRET.text()[:-2] + "AA", "a" * 100_000, "é" * 50,
     f"pilotage-enrol-1.{SECRET.id}.{b64url(bytes(32))}", f"pilotage-enrol-1.{SECRET.id}.{b64url(bytes([255] * 32))}",
     f"pilotage-enrol-1.{EnrolmentSecret.create().id}.{SECRET.text().rpartition('.')[2]}"],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(EnrolmentSecretError) as caught:
        EnrolmentSecret.parse(text)
    assert len(str(caught.value)) < 80
    assert SECRET.text().rpartition(".")[2][:10] not in str(caught.value)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_secret_or_refused(text: str) -> None:
    with pytest.raises(EnrolmentSecretError):
        EnrolmentSecret.parse(text)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(public_exponent=65537, key_size=2048)],
    ids=["P-384", "RSA"],
)
def test_only_one_kind_of_key_enrols(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(InvalidInputError):
        load_public_key(public_bytes(key.public_key()))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_public_key_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        load_public_key(data)


def test_a_public_key_has_one_form() -> None:
    assert public_bytes(load_public_key(SECRET.public_key)) == SECRET.public_key
    with pytest.raises(InvalidInputError):
        load_public_key(SECRET.public_key + b"\0")


# -- the assertion ------------------------------------------------------------------------------------------------


def test_a_fresh_assertion_is_good() -> None:
    wish = check(assertion())
    assert wish.enrolment == SECRET.id
    assert public_bytes(wish.key) == public_bytes(APPLICANT.key.public_key())
    assert (wish.claims.site, wish.claims.life, wish.claims.jti) == (SITE, 3600.0, "login-1")
    assert is_enrolment(assertion())


def test_no_secret_travels() -> None:
    text = assertion()
    scalar = SECRET.text().rpartition(".")[2]
    own = APPLICANT.key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]  # P-256
    raw = b"".join(unb64url(part) for part in text.split("."))
    assert scalar not in text
    assert b64url(own) not in text
    assert own not in raw
    assert own not in unb64url(parts_of(text)[1]["csr"])


def test_each_applicant_has_a_key_of_its_own() -> None:
    one, other = (check(assertion(one), client="") for one in (Applicant(SECRET, SITE), Applicant(SECRET, SITE)))
    assert one.key_hash != other.key_hash
    assert check(assertion()).key_hash == check(assertion(now=NOW + 5, login="2")).key_hash


def test_it_is_for_this_client_and_this_deployment() -> None:
    assert refused(assertion(), audience="other") == "misaddressed"
    assert refused(assertion(), client=f"{SECRET.id}.other") == "misaddressed"
    header, claims = parts_of(assertion())
    foreign = signed(header, claims | {"sub": "a" * 20 + ".x"})
    assert refused(foreign, client="a" * 20 + ".x") == "forged"


@pytest.mark.parametrize("offset", [-CLOCK_SKEW - 1, ASSERTION_SECONDS + CLOCK_SKEW + 1])
def test_it_is_for_now(offset: float) -> None:
    assert refused(assertion(), now=NOW + offset) == "expired"
    assert check(assertion(), now=NOW + offset * 0.9)


def test_it_cannot_give_itself_more_time() -> None:
    header, claims = parts_of(assertion())
    assert refused(signed(header, claims | {"exp": NOW + 10 * ASSERTION_SECONDS})) == "expired"


def test_an_unknown_enrolment_is_refused() -> None:
    assert refused(assertion(), find={}.get) == "denied"


def test_another_secret_signs_for_itself_only() -> None:
    header, claims = parts_of(assertion())
    assert refused(signed(header, claims, EnrolmentSecret.create().key)) == "forged"


@pytest.mark.parametrize("field", ["sub", "aud", "site", "csr", "iat", "exp", "jti", "life"])
def test_nothing_in_it_can_be_changed(field: str) -> None:
    text = assertion()
    start, claims, signature = text.split(".")
    fields = json.loads(unb64url(claims))
    fields[field] = fields[field] + 1 if isinstance(fields[field], float) else fields[field][:-1]
    changed = f"{start}.{b64url(json.dumps(fields).encode())}.{signature}"
    assert refused(changed, client="") in {"forged", "misaddressed", "expired", "invalid"}


def test_other_algorithms_are_refused() -> None:
    header, claims = parts_of(assertion())
    for algorithm in ("none", "HS256", "ES384", "PS256", ""):
        assert refused(signed(header | {"alg": algorithm}, claims)) == "invalid"
    assert refused(signed(header | {"typ": "pilotage-login+jwt"}, claims)) == "invalid"


def test_the_pilots_key_is_proven_its_own_and_fit_to_sign() -> None:
    header, claims = parts_of(assertion())
    csr = unb64url(claims["csr"])
    broken = csr[:-1] + bytes([csr[-1] ^ 1])
    strong = make_csr(ec.generate_private_key(ec.SECP384R1()))
    own = make_csr(SECRET.key)
    for bad in (broken, b"", b"\x30\x00", strong, own, b"\0" * 9000):
        assert refused(signed(header, claims | {"csr": b64url(bad)})) == "invalid", bad[:8]
    assert refused(signed(header, claims | {"csr": "%"})) == "invalid"
    assert check(signed(header, claims | {"csr": b64url(make_csr(new_key(rsa_bits=2048)))}))


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "e30.e30.AAAA", "x" * (MAX_ASSERTION_BYTES + 1), f"{b64url(b'[' * 9000)}.e30.AA"]
)
def test_garbage_is_refused(text: str) -> None:
    assert refused(text) == "invalid"
    assert not is_enrolment(text)


@given(st.text(max_size=400) | st.text(alphabet="eyJ0.A-_", max_size=400))
def test_any_text_is_refused_in_order(text: str) -> None:
    is_enrolment(text)
    with pytest.raises(RefusalError):
        check(text)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, flip: int) -> None:
    data = bytearray(assertion().encode())
    data[place % len(data)] ^= flip
    with pytest.raises(RefusalError):
        check(data.decode("latin-1"))


def test_who_is_not_enrolled_signs_nothing() -> None:
    with pytest.raises(NoSignerError):
        APPLICANT.signer("")
    assert APPLICANT.identity == ""
    assert APPLICANT.client.startswith(f"{SECRET.id}.")


def test_a_login_assertion_is_none() -> None:
    header = {"alg": "ES256", "typ": "pilotage-login+jwt", "x5c": ["AAAA"]}
    assert not is_enrolment(f"{b64url(json.dumps(header).encode())}.e30.AAAA")
    assert module.TYPE != "pilotage-login+jwt"
