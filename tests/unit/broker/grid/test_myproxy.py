"""What a MyProxy server may answer, and what it may not: nothing of it crashes, hangs or fills the memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.grid import myproxy
from broker.grid.errors import GridRefusedError, GridUnavailableError
from broker.grid.tls import MAX_READ, RECORD
from broker.identity import Authority, Credential, IdentityError, create_proxy, make_csr, new_key, sign_csr, split_chain
from schemas.errors import PilotageError

OK = b"VERSION=MYPROXYv2\nRESPONSE=0\n\0"
NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)
Use = Callable[["FakeLink"], "FakeLink"]
SERVER = myproxy.Server("localhost", Path())


class FakeLink:
    """Says what the test wrote down; remembers what it was told."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.told: list[bytes] = []
        self.closed = False

    def send(self, data: bytes) -> None:
        self.told.append(data)

    def receive(self) -> bytes:
        return self.answers.pop(0) if self.answers else b""

    def __exit__(self, *_exception: object) -> None:
        self.closed = True


class Signing(FakeLink):
    """A server that signs the certificate request it gets."""

    def __init__(self, issuer: Credential, *before: bytes, other_key: bool = False) -> None:
        super().__init__(*before)
        self.issuer, self.other_key = issuer, other_key

    def send(self, data: bytes) -> None:
        super().send(data)
        if data[:1] == b"\x30" and len(data) > 1:  # also the letter of "no delegation"
            csr = make_csr(new_key()) if self.other_key else data
            pem = sign_csr(csr, self.issuer.ders, self.issuer.key, lifetime=HOUR, limited=False, now=NOW)
            ders = split_chain(pem)
            whole = bytes([len(ders)]) + b"".join(ders) + OK
            # In pieces that fit nothing, as a network gives them.
            self.answers += [whole[start : start + 100] for start in range(0, len(whole), 100)]


@pytest.fixture(scope="module")
def user() -> Credential:
    # Of the time of NOW: in a whole run this comes minutes after the module was read.
    return Authority.create("/DC=org/DC=example/CN=CA", now=NOW).issue("/DC=org/DC=example/CN=ada", now=NOW)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    def set_link(link: FakeLink) -> FakeLink:
        monkeypatch.setattr(myproxy, "connect", lambda *_args, **_options: link)
        return link

    return set_link


def info(user: Credential) -> object:
    return myproxy.info(SERVER, user, "ada")


def test_a_request_as_the_protocol_has_it(use: Use, user: Credential) -> None:
    link = use(FakeLink(b"\0", OK))
    assert info(user) == {"VERSION": "MYPROXYv2", "RESPONSE": "0"}
    assert link.told == [b"0", b"VERSION=MYPROXYv2\nCOMMAND=2\nUSERNAME=ada\nPASSPHRASE=\nLIFETIME=0\n\0"]
    assert link.closed


def test_renewal_proves_the_old_key_and_sends_no_private_one(use: Use, user: Credential) -> None:
    old = create_proxy(user.ders, user.key, lifetime=HOUR, limited=False, now=NOW)
    challenge = b"VERSION=MYPROXYv2\nRESPONSE=2\nAUTHORIZATION_DATA=X509_certificate_SHA256:abcd\n\0"
    link = use(Signing(user, b"\0", challenge, OK))
    fresh = myproxy.renew(SERVER, user, "ada", old, lifetime=HOUR, name="pilotage")
    assert all(fresh.key.public_key() != other.key.public_key() for other in (old, user))
    proof = link.told[2]
    assert proof[:4] == bytes([4, 0, 0, 0])
    size = int.from_bytes(proof[4:8], "big")
    public = old.key.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(proof[8 : 8 + size], b"abcd", ec.ECDSA(hashes.SHA256()))
    assert proof[8 + size] == len(old.ders)
    for secret in (old, user, fresh):
        assert not any(secret.key_pem in data for data in link.told)
        number = secret.key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]  # all P-256
        assert not any(number in data for data in link.told)


def test_a_certificate_for_another_key_is_refused(use: Use, user: Credential) -> None:
    use(Signing(user, OK, other_key=True))
    with pytest.raises(GridRefusedError, match="another key"):
        myproxy.get(SERVER, user, "ada", lifetime=HOUR, passphrase="secret")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=no credentials\nERROR=at all\n\0"], "no credentials; at all"),
        ([b"VERSION=MYPROXYv2\nRESPONSE=1\n\0"], "no reason given"),
        ([b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=\x1b[2Jcleared \xff\n\0"], r"\?\[2Jcleared"),
        ([b"HTTP/1.1 400 Bad Request\r\n\0"], "no MyProxy server"),
        ([b"VERSION=MYPROXYv3\nRESPONSE=0\n\0"], "no MyProxy server"),
        ([b"\0" * 100, b"x" * RECORD, b"x" * RECORD], "no end"),
        ([b"VERSION=MYPROXYv2\nRESPONSE=2\nAUTHORIZATION_DATA=password:x\n\0"], "proof by the user's own proxy"),
        ([b"VERSION=MYPROXYv2\nRESPONSE=2\n\0"], "proof by the user's own proxy"),
    ],
)
def test_answers_that_are_refused(use: Use, user: Credential, answers: list[bytes], why: str) -> None:
    use(FakeLink(*answers))
    with pytest.raises(GridRefusedError, match=why) as refusal:
        info(user)
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)


def test_an_endless_challenge_is_answered_once(use: Use, user: Credential) -> None:
    challenge = b"VERSION=MYPROXYv2\nRESPONSE=2\nAUTHORIZATION_DATA=X509_certificate_SHA256:ab\n\0"
    use(FakeLink(challenge, challenge, challenge))
    old = create_proxy(user.ders, user.key, lifetime=HOUR, limited=False, now=NOW)
    with pytest.raises(GridRefusedError, match="more proof"):
        myproxy.renew(SERVER, user, "ada", old, lifetime=HOUR)


def test_who_hangs_up_is_away(use: Use, user: Credential) -> None:
    use(FakeLink())
    with pytest.raises(GridUnavailableError, match="ended the conversation"):
        info(user)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b"\xff" + b"\x30\x03abc"], "255 certificates"),
        ([b"\0\0", b"\0\x30"], "48 certificates"),
        ([b"\x01" + b"\x30\x83\xff\xff\xff"], "larger than any"),
        ([b"\x01" + b"\x30\x88"], "no certificate"),
        ([b"\x01" + b"\x30\x80"], "no certificate"),
        ([b"\x01" + b"\x04\x01a"], "no certificate"),
        ([b"\x01\x30\x03\x02\x01\x01", OK], "no certificate"),
        ([b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=Unable to delegate\n\0"], "Unable to delegate"),
    ],
)
def test_certificates_that_are_none(use: Use, user: Credential, answers: list[bytes], why: str) -> None:
    use(FakeLink(OK, *answers))
    with pytest.raises(GridRefusedError, match=why):
        myproxy.get(SERVER, user, "ada", lifetime=HOUR, passphrase="secret")


def test_a_bad_certificate_request_is_not_signed(use: Use, user: Credential) -> None:
    use(FakeLink(OK, b"\x30\x03\x02\x01\x01"))
    with pytest.raises(IdentityError, match="malformed"):
        myproxy.put(SERVER, user, "ada", lifetime=HOUR, longest=HOUR, now=NOW)


@given(st.lists(st.binary(max_size=2000), max_size=8), st.sampled_from(["info", "get", "put"]))
def test_whatever_a_server_says_it_is_an_answer_or_one_of_our_errors(answers: list[bytes], what: str) -> None:
    user = _USER
    link = FakeLink(*answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myproxy, "connect", lambda *_args, **_options: link)
        try:
            if what == "info":
                info(user)
            elif what == "get":
                myproxy.get(SERVER, user, "ada", lifetime=HOUR, passphrase="secret")
            else:
                myproxy.put(SERVER, user, "ada", lifetime=HOUR, longest=HOUR, now=NOW)
        except PilotageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - no error is fine as well
    assert link.closed


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(0, 40))
def test_answers_that_begin_well(answers: list[bytes], cut: int) -> None:
    whole = OK + b"\x01" + _USER.leaf + OK
    link = FakeLink(whole[: len(whole) - cut], *answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myproxy, "connect", lambda *_args, **_options: link)
        with pytest.raises(PilotageError):
            myproxy.get(SERVER, _USER, "ada", lifetime=HOUR, passphrase="secret")


_USER = Authority.create("/DC=org/DC=example/CN=CA").issue("/DC=org/DC=example/CN=fuzz")


def test_all_that_is_read_is_bounded() -> None:
    assert MAX_READ <= 1 << 20
    assert myproxy.MAX_TEXT + myproxy.MAX_DER * 10 <= 4 * MAX_READ
