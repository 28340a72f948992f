"""A MyProxy client (protocol MYPROXYv2): users leave a long proxy there, the service host renews from it.

Promises: private keys never travel in either direction; every conversation ends within a time; every answer is bounded
before it is read; errors are one line. Who may renew is the server's to decide: an authorized renewer that shows a
still-valid proxy of the same user (:func:`renew`). What comes back is verified by the caller, as every chain is.

Wire: TLS with the client's chain; a byte ``0`` (no GSI delegation); text requests and responses that end in NUL;
certificates in DER behind a byte that counts them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from ..identity import (
    MAX_CERTIFICATES,
    Credential,
    IdentityError,
    PrivateKey,
    make_csr,
    new_key,
    parse_certificate,
    sign_csr,
    split_chain,
)
from ..identity.keys import public_bytes
from .errors import GridRefusedError, GridUnavailableError
from .tls import Link, connect

PORT = 7512
"""Registered for MyProxy."""

CREDENTIAL_NAME = "pilotage"
"""Under which a user's long proxy is kept: apart from what he keeps there for other tools."""

MAX_TEXT = 16 * 1024
"""A response has a few hundred bytes; one about several credentials a few thousand."""

MAX_DER = 32 * 1024
"""One certificate or certificate request."""

CHALLENGE = "X509_certificate_SHA256:"
"""The one kind of proof that we give: a signature with the old proxy's key."""

GET, PUT, INFO, DESTROY = range(4)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a MyProxy server is and who it must be.

    Attributes:
        host: name or address.
        trust_dir: CA directory in grid layout.
        port: TCP port.
        dn: canonical DN that it must have; empty: its certificate must bear the host's name.
        seconds: longest conversation.
    """

    host: str
    trust_dir: Path
    port: int = PORT
    dn: str = ""
    seconds: float = 30.0


def put(
    server: Server,
    credential: Credential,
    user: str,
    *,
    lifetime: dt.timedelta,
    longest: dt.timedelta,
    renewer: str = "",
    name: str = "",
    passphrase: str = "",
    now: dt.datetime,
) -> dt.datetime:
    """Leave a proxy: the server makes a key, we sign its request.

    Args:
        server: where.
        credential: signs the proxy, and is who we are.
        user: under which name it is kept.
        lifetime: of what is left there.
        longest: of what anybody gets from it.
        renewer: DN of the only one who may renew from it, without a passphrase.
        name: of the credential, where a user has several.
        passphrase: with which it may be fetched; at least six characters; empty: nobody may fetch it so.
        now: the time.

    Returns:
        When it ends there.

    Raises:
        GridUnavailableError: nobody answers.
        GridRefusedError: the server says no, in its words.
        IdentityError: the credential can issue no proxy.
    """
    fields = {"LIFETIME": str(int(longest.total_seconds())), "RENEWER": _plain(renewer), "CRED_NAME": name}
    with _open(server, credential) as talk:
        talk.request(PUT, user, passphrase, fields)
        chain = sign_csr(talk.der(), credential.ders, credential.key, lifetime=lifetime, limited=False, now=now)
        ders = split_chain(chain)
        talk.send(bytes([len(ders)]) + b"".join(ders))
        talk.response()
    return min(parse_certificate(item).x509.not_valid_after_utc for item in ders)


def get(
    server: Server,
    credential: Credential,
    user: str,
    *,
    lifetime: dt.timedelta,
    passphrase: str,
    name: str = "",
    key: PrivateKey | None = None,
) -> Credential:
    """Fetch a proxy with its passphrase: the key is made here. Errors as :func:`put`."""
    return _fetch(server, credential, user, lifetime, name, passphrase, key, None)


def renew(
    server: Server,
    credential: Credential,
    user: str,
    old: Credential,
    *,
    lifetime: dt.timedelta,
    name: str = "",
    key: PrivateKey | None = None,
) -> Credential:
    """Fetch a new proxy for a user whose still-valid one we hold: proof is a signature with the old one's key.

    Args:
        server: where.
        credential: of the authorized renewer (the service's host certificate).
        user: name under which the user's long proxy is kept.
        old: the proxy to be renewed; the new one is limited if it is.
        lifetime: wanted.
        name: of the credential.
        key: of the new proxy; made here by default.

    Raises:
        GridUnavailableError: nobody answers.
        GridRefusedError: the server says no, in its words.
    """
    return _fetch(server, credential, user, lifetime, name, "", key, old)


def info(server: Server, credential: Credential, user: str, *, name: str = "") -> Mapping[str, str]:
    """What the server tells about a stored proxy, by the protocol's field names (``CRED_END_TIME``, …)."""
    with _open(server, credential) as talk:
        return talk.request(INFO, user, "", {"LIFETIME": "0", "CRED_NAME": name})


def destroy(server: Server, credential: Credential, user: str, *, name: str = "") -> None:
    """Have the server forget a stored proxy."""
    with _open(server, credential) as talk:
        talk.request(DESTROY, user, "", {"LIFETIME": "0", "CRED_NAME": name})


def _fetch(
    server: Server,
    credential: Credential,
    user: str,
    lifetime: dt.timedelta,
    name: str,
    passphrase: str,
    key: PrivateKey | None,
    old: Credential | None,
) -> Credential:
    key = key or new_key()
    with _open(server, credential) as talk:
        fields = {"LIFETIME": str(int(lifetime.total_seconds())), "CRED_NAME": name}
        talk.request(GET, user, passphrase, fields, old)
        talk.send(make_csr(key))
        ders = tuple(talk.der() for _ in range(talk.count()))
        talk.response()
    try:
        leaf = parse_certificate(ders[0])
    except IdentityError as error:
        raise GridRefusedError(f"the MyProxy server sent no certificate: {error}") from None
    if leaf.spki != public_bytes(key.public_key()):
        raise GridRefusedError("the MyProxy server sent a certificate for another key")
    return Credential(key, ders)


def _open(server: Server, credential: Credential) -> _Talk:
    link = connect(server.host, server.port, credential, server.trust_dir, server_dn=server.dn, seconds=server.seconds)
    return _Talk(link)


class _Talk:
    """One conversation: bytes in, elements out."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._link.__exit__(None, None, None)

    def send(self, data: bytes) -> None:
        self._link.send(data)

    def request(
        self, command: int, user: str, passphrase: str, fields: Mapping[str, str], old: Credential | None = None
    ) -> Mapping[str, str]:
        """Ask; prove who the user is if that is asked for; what the server answers."""
        lines = {"VERSION": "MYPROXYv2", "COMMAND": str(command), "USERNAME": user, "PASSPHRASE": passphrase, **fields}
        text = "".join(f"{key}={_line(value)}\n" for key, value in lines.items() if value or key == "PASSPHRASE")
        self.send(b"0")
        self.send(text.encode() + b"\0")
        answer = self.response()
        if answer.get("RESPONSE") == "2":
            self.send(_proof(answer.get("AUTHORIZATION_DATA", ""), old))
            answer = self.response()
        if answer.get("RESPONSE") != "0":
            raise GridRefusedError("the MyProxy server wants more proof than there is")
        return answer

    def response(self) -> Mapping[str, str]:
        """The next response.

        Raises:
            GridRefusedError: it is an error, or none that can be read.
        """
        self._skip()
        while b"\0" not in self._data:
            if len(self._data) > MAX_TEXT:
                raise GridRefusedError("the MyProxy server's answer has no end")
            self._more()
        raw, _, self._data = self._data.partition(b"\0")
        fields: dict[str, str] = {}
        problems: list[str] = []
        for line in raw[:MAX_TEXT].decode("utf-8", "replace").splitlines():
            key, _, value = line.partition("=")
            if key == "ERROR":
                problems.append(value)
            elif key == "AUTHORIZATION_DATA" and not value.startswith(CHALLENGE):
                continue  # other proofs (passwords) that we never give
            else:
                fields[key] = value
        if fields.get("VERSION") != "MYPROXYv2":
            raise GridRefusedError("this is no MyProxy server (or one of another version)")
        if fields.get("RESPONSE") not in {"0", "2"}:
            raise GridRefusedError(f"the MyProxy server refused: {_shown(problems)}")
        return fields

    def count(self) -> int:
        """How many certificates follow."""
        self._skip()
        if self._data[:1] == b"V":  # the beginning of a response: no more certificates than letters
            self.response()
            self._skip()
        number, self._data = self._data[0], self._data[1:]
        if not 1 <= number <= MAX_CERTIFICATES:
            raise GridRefusedError(f"the MyProxy server sent {number} certificates")
        return number

    def der(self) -> bytes:
        """The next DER element."""
        self._skip()
        while (size := _der_size(self._data)) is None or len(self._data) < size:
            if size is not None and size > MAX_DER:
                raise GridRefusedError("the MyProxy server sent a certificate larger than any")
            self._more()
        element, self._data = self._data[:size], self._data[size:]
        return element

    def _skip(self) -> None:
        """Under TLS 1.3 the server first sends a lone NUL (its GSI token); no element begins with one."""
        while not (rest := self._data.lstrip(b"\0")):
            self._data = b""
            self._more()
        self._data = rest

    def _more(self) -> None:
        data = self._link.receive()
        if not data:
            raise GridUnavailableError("the MyProxy server ended the conversation")
        self._data += data


def _proof(challenge: str, old: Credential | None) -> bytes:
    """Sign the server's challenge with the old proxy's key (method 4: a certificate), and show its chain."""
    if not challenge or old is None:
        raise GridRefusedError("the MyProxy server wants proof by the user's own proxy")
    data = challenge.removeprefix(CHALLENGE).encode()
    if isinstance(old.key, ec.EllipticCurvePrivateKey):
        signature = old.key.sign(data, ec.ECDSA(hashes.SHA256()))
    else:
        signature = old.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    size = len(signature).to_bytes(4, "big")
    return bytes([4, 0, 0, 0]) + size + signature + bytes([len(old.ders)]) + b"".join(old.ders)


def _der_size(data: bytes) -> int | None:
    """Size of the DER SEQUENCE at the beginning; None if more bytes are needed to tell."""
    if len(data) < 2:
        return None
    if data[0] != 0x30:
        raise GridRefusedError("the MyProxy server sent no certificate")
    first = data[1]
    if first < 0x80:
        return 2 + first
    length = first & 0x7F
    if not 1 <= length <= 3:
        raise GridRefusedError("the MyProxy server sent no certificate")
    return None if len(data) < 2 + length else 2 + length + int.from_bytes(data[2 : 2 + length], "big")


def _line(value: str) -> str:
    """A value must not become two lines, or the end of the request."""
    if any(character in value for character in "\n\r\0"):
        raise GridRefusedError("a name for MyProxy may hold no line breaks")
    return value


def _plain(dn: str) -> str:
    """The server takes a renewer for a pattern: only a plain name may be sent."""
    if any(character in dn for character in "*?[]\\^$|(){}"):
        raise GridRefusedError(f"the renewer's name {dn!r} would be taken for a pattern")
    return dn


def _shown(problems: list[str]) -> str:
    text = " ".join("; ".join(problems).split())[:500]
    return "".join(character if character.isprintable() else "?" for character in text) or "no reason given"
