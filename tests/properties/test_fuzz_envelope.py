"""Signed headers and login assertions that were sound once: understood as they stand, or refused; nothing else."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import Credential, IdentityError, verify_chain
from broker.login import check_assertion, make_assertion
from broker.refusal import RefusalError
from broker.signing import ChainFacts, Verified, b64url, open_envelope, peek, sign_bytes, unb64url
from schemas.envelope import MAX_JWS_BYTES, Header
from schemas.identity import make_client_id
from schemas.registry import registered
from tests.golden.make import KEY, THUMBPRINT
from tests.golden.make import NOW as THEN
from tests.support.effort import effort
from tests.support.hostile import calmly
from tests.support.mutations import damaged_bytes, damaged_der, damaged_json, mutate_json, seeds
from tests.support.pki import NOW, USER_DN, Pki, make_pki, proxy

GOLDEN = Path(__file__).parents[1] / "golden" / "messages"
SECONDS = NOW.timestamp()
CLIENT = make_client_id(USER_DN, "abc123")
BROKER = "production"


@functools.cache
def golden() -> dict[str, tuple[str, bytes]]:
    """Every message type's example: signed header and payload."""
    return {
        name: ((GOLDEN / f"{name}.jws").read_text().strip(), (GOLDEN / f"{name}.json").read_bytes())
        for name in sorted(registered())
        if (GOLDEN / f"{name}.jws").exists()
    }


def header_of(jws: str) -> bytes:
    return unb64url(jws.partition("..")[0])


def opened(jws: str | bytes, payload: bytes, header: Header | None = None) -> Verified | RefusalError:  # type: ignore[type-arg]  # of any message
    """Open as whoever is addressed would, knowing the golden key's chain by whatever name the header gives."""
    iss = header.iss if header is not None else ""
    facts = ChainFacts(iss, False, THEN - 1000, THEN + 1000, KEY.public_key())
    audiences = {header.aud} if header is not None else {"job-manager"}
    return calmly(
        lambda: open_envelope(
            jws,
            payload,
            resolve=lambda thumbprint: facts if thumbprint == THUMBPRINT else None,
            audiences=audiences,
            now=THEN,
            user_id=header.cli if header is not None else None,
        ),
        len(jws) + len(payload),
        RefusalError,
    )


def test_the_examples_themselves_open() -> None:
    for jws, payload in golden().values():
        header, _, _ = peek(jws)
        assert isinstance(opened(jws, payload, header), Verified)


@given(st.sampled_from(sorted(golden())), st.data())
@effort(250)
def test_a_changed_header_without_a_new_signature_is_refused(name: str, data: st.DataObject) -> None:
    jws, payload = golden()[name]
    changed = f"{b64url(data.draw(damaged_json([header_of(jws)])))}..{jws.partition('..')[2]}"
    header = _read(changed)
    found = opened(changed, payload, header)
    assert isinstance(found, RefusalError) or changed == jws


@given(st.sampled_from(sorted(golden())), st.data())
@effort(250)
def test_a_changed_header_that_is_signed_is_understood_or_refused(name: str, data: st.DataObject) -> None:
    jws, payload = golden()[name]
    protected = b64url(data.draw(damaged_json([header_of(jws)])))
    changed = f"{protected}..{b64url(sign_bytes(KEY, protected.encode() + b'.' + payload))}"
    found = opened(changed, payload, _read(changed))
    if isinstance(found, Verified):
        assert (found.header.alg, found.header.b64, found.header.crit) == ("ES256", False, ("b64",))
        assert found.header.thumbprint == THUMBPRINT
        assert THEN <= found.header.exp <= found.header.iat + found.type.lifetime + 1
        assert len(found.header.iss) <= 4096


def _read(jws: str) -> Header | None:
    try:
        return peek(jws)[0]
    except RefusalError:
        return None


@given(damaged_bytes([jws.encode() for jws, _ in golden().values()], [b"..", b".", b"=", b"eyJ", b"+", b"/"]))
@effort(300)
def test_damaged_text_of_a_header(jws: bytes) -> None:
    calmly(lambda: peek(jws), len(jws), RefusalError)
    opened(jws, b"{}")


def test_nothing_above_its_bound_costs_anything() -> None:
    jws = "A" * (MAX_JWS_BYTES + 1)
    assert isinstance(calmly(lambda: peek(jws), 0, RefusalError), RefusalError)


# -- login ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def ada(pki: Pki) -> Credential:
    return proxy(pki.user, begin=NOW - dt.timedelta(minutes=5))


def parts_of(credential: Credential) -> list[bytes]:
    text = make_assertion(credential, client=CLIENT, audience=BROKER, group="g", now=SECONDS)
    return [unb64url(part) for part in text.split(".")[:2]]


def check(pki: Pki, text: str) -> object:
    """Log in; the user name is what the assertion itself says, as a hostile client would have it."""
    client = CLIENT
    try:
        said = json.loads(unb64url(text.split(".")[1]))["sub"]
        client = said if isinstance(said, str) else client
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    return calmly(
        lambda: check_assertion(
            text,
            client=client,
            audience=BROKER,
            now=SECONDS,
            verify=lambda ders: verify_chain(ders, pki.trust, None, NOW),
        ),
        len(text),
        RefusalError,
        IdentityError,
    )


def sealed(credential: Credential, header: bytes, claims: bytes) -> str:
    start = f"{b64url(header)}.{b64url(claims)}"
    return f"{start}.{b64url(sign_bytes(credential.key, start.encode()))}"


@given(seeds, st.integers(0, 1))
@effort(150)
def test_changed_assertions_that_are_signed(pki: Pki, ada: Credential, seed: int, part: int) -> None:
    parts = parts_of(ada)
    parts[part] = mutate_json(parts[part], random.Random(seed))
    found = check(pki, sealed(ada, *parts))
    if isinstance(found, tuple):
        claims, chain = found
        assert chain.identity == USER_DN
        assert (claims.aud, claims.sub.partition(".")[0]) == (BROKER, CLIENT.partition(".")[0])
        assert claims.exp <= claims.iat + 60


@given(st.data())
@effort(120)
def test_damaged_certificates_in_assertions(pki: Pki, ada: Credential, data: st.DataObject) -> None:
    header, claims = parts_of(ada)
    fields = json.loads(header)
    place = data.draw(st.integers(0, len(ada.ders) - 1))
    fields["x5c"][place] = base64.b64encode(data.draw(damaged_der([ada.ders[place]]))).decode()
    found = check(pki, sealed(ada, json.dumps(fields).encode(), claims))
    assert isinstance(found, RefusalError | IdentityError) or found[1].identity == USER_DN  # type: ignore[index]  # a tuple


@given(st.data())
@effort(200)
def test_damaged_text_of_assertions(pki: Pki, ada: Credential, data: st.DataObject) -> None:
    text = make_assertion(ada, client=CLIENT, audience=BROKER, group="g", now=SECONDS)
    damaged = data.draw(damaged_bytes([text.encode()], [b".", b"..", b"=", b"e30", b"bnVsbA"])).decode("latin-1")
    found = check(pki, damaged)
    assert damaged == text or isinstance(found, RefusalError | IdentityError)
