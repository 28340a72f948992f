"""A credential: a private key with its certificate chain, as it lies in a proxy file.

Promises: the key fits the leaf; a file with a key that others may read, or that belongs to somebody else, is
refused; saving is atomic, owner-only from the first byte, and never follows or fills a file that somebody put
there. Order in the file: leaf, key, rest of the chain; RSA keys in traditional PEM (Globus tools read nothing
else). Keys never appear in ``repr`` or in messages.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from .certificate import MAX_CHAIN_BYTES, Certificate, parse_certificate, pem_chain, split_chain
from .errors import CredentialError, IdentityError
from .keys import PrivateKey, check_public_key, public_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

# A key of 16 KiB PEM would be RSA of 20000 bits; with the chain this bounds what we read of a file.
MAX_FILE_BYTES = MAX_CHAIN_BYTES + 16 * 1024

_KEY_BEGIN = re.compile(rb"-----BEGIN ((?:RSA |EC |ENCRYPTED )?PRIVATE KEY)-----")


class PasswordNeededError(CredentialError):
    """The private key is protected by a password: none was given, or a wrong one."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A private key and its chain, leaf first."""

    key: PrivateKey = field(repr=False)
    ders: tuple[bytes, ...] = field(repr=False)

    @property
    def leaf(self) -> bytes:
        """The DER certificate of the key."""
        return self.ders[0]

    @property
    def rest(self) -> tuple[bytes, ...]:
        """The chain behind the leaf."""
        return self.ders[1:]

    @property
    def chain_pem(self) -> bytes:
        """The chain as PEM, without the key."""
        return pem_chain(self.ders)

    @property
    def key_pem(self) -> bytes:
        """The key as unencrypted PEM: traditional for RSA, PKCS 8 else."""
        return key_pem(self.key)

    def to_pem(self) -> bytes:
        """Return the content of a proxy file: leaf, key, rest of the chain."""
        return pem_chain(self.ders[:1]) + self.key_pem + pem_chain(self.ders[1:])


def key_pem(key: PrivateKey) -> bytes:
    """Write a private key as unencrypted PEM: traditional for RSA, PKCS 8 else."""
    style = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, style, NoEncryption())


def load_private_key(data: bytes, password: str | None = None) -> PrivateKey:
    """Read the one private key in PEM text.

    Raises:
        PasswordNeededError: it is protected and the password is missing or wrong.
        CredentialError: no key, several keys, malformed, weak, or of another kind.
    """
    spans = _key_spans(data)
    if len(spans) != 1:
        raise CredentialError("no private key found" if not spans else "more than one private key found")
    block = data[slice(*spans[0])]
    encrypted = block.startswith(b"-----BEGIN ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in block
    if encrypted and password is None:
        raise PasswordNeededError("the private key is protected by a password")
    try:
        key = load_pem_private_key(block, password.encode("utf-8") if encrypted and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise PasswordNeededError("wrong password, or a damaged private key") from None
        raise CredentialError("malformed private key") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CredentialError("unsupported private key: RSA or a NIST curve needed")
    try:
        check_public_key(key.public_key())
    except IdentityError as error:
        raise CredentialError(error.reason) from None
    return key


def load_credential(
    source: Path | str | bytes, *, key: Path | str | bytes | None = None, password: str | None = None
) -> Credential:
    """Load a credential.

    Args:
        source: a proxy file or its content; with ``key`` given, the certificate (chain) alone.
        key: the private key's file or content where it is kept apart (userkey.pem).
        password: of a protected key.

    Raises:
        PasswordNeededError: the key is protected and the password is missing or wrong.
        CredentialError: anything else that makes it unusable, in one line.
    """
    data = _content(source, secret=key is None)
    private = load_private_key(data if key is None else _content(key, secret=True), password)
    try:
        certificates = [parse_certificate(item) for item in dict.fromkeys(split_chain(_without_keys(data)))]
    except IdentityError as error:
        raise CredentialError(error.reason) from None
    spki = public_bytes(private.public_key())
    leaf = next((item for item in certificates if item.spki == spki), None)
    if leaf is None:
        raise CredentialError("the private key does not fit any of the certificates")
    return Credential(private, tuple(item.der for item in _from_leaf(leaf, certificates)))


def save_credential(credential: Credential, path: Path) -> None:
    """Write a proxy file: atomically, readable by its owner only.

    Raises:
        CredentialError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # O_EXCL and O_NOFOLLOW: in /tmp others may put a file or a link in our way; 0600 from the first byte.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        handle = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(credential.to_pem())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CredentialError(f"cannot write {path}: {error.strerror}") from None


def _content(source: Path | str | bytes, *, secret: bool) -> bytes:
    """Read a file, bounded; one that holds a private key must be its owner's alone."""
    if isinstance(source, bytes):
        return source
    path = Path(source)
    try:
        # O_NONBLOCK: a named pipe put there must not hang us; regular files do not care.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise CredentialError(f"{path} is no regular file")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise CredentialError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    if secret and state.st_uid not in {os.geteuid(), 0}:
        raise CredentialError(f"{path} belongs to somebody else")
    if secret and state.st_mode & 0o077:
        raise CredentialError(f"{path} holds a private key and others may read it; try: chmod 600 {path}")
    return data


def _key_spans(data: bytes) -> list[tuple[int, int]]:
    """Where the private keys of PEM text begin and end; a block ends at the next dashes, whatever they begin."""
    spans = []
    for begin in _KEY_BEGIN.finditer(data):
        closing = b"-----END " + begin[1] + b"-----"
        end = data.find(b"-----", begin.end())
        if end > begin.end() and data.startswith(closing, end):
            spans.append((begin.start(), end + len(closing)))
    return spans


def _without_keys(data: bytes) -> bytes:
    kept, position = [], 0
    for begin, end in _key_spans(data):
        kept.append(data[position:begin])
        position = end
    return b"".join([*kept, data[position:]])


def _from_leaf(leaf: Certificate, certificates: Sequence[Certificate]) -> list[Certificate]:
    """Order a chain from the leaf upwards by issuer; roots are left out, everybody has them."""
    by_subject = {item.subject_der: item for item in certificates}
    chain = [leaf]
    while (issuer := by_subject.pop(chain[-1].issuer_der, None)) is not None:
        if issuer.is_self_issued:
            break
        chain.append(issuer)
    return chain
