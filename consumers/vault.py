"""Encryption at rest: what the proxy manager keeps is of no use without the master keys.

AES-256-GCM (authenticated) with a key derived from the master key (HKDF-SHA256), bound to its place: what was
encrypted for one row decrypts for no other. The newest key encrypts, older ones still decrypt. Each token bears its
master key's id (a hash), so that everybody can tell which keys are still needed; the ids are no secrets. Tokens of the
first release (Fernet, without id) are still read.

Rotation: put a new key file first in the settings; :meth:`Vault.reload` takes it in while the service runs; encrypt
everything again; take the old file away when no token bears its id.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schemas.errors import ConfigurationError, PermanentError

MAX_KEY_BYTES = 256
"""A Fernet key is 44 characters; nothing larger is read."""

NONCE_BYTES = 12
"""Of GCM. Random ones are safe for 2^32 tokens per key (NIST SP 800-38D §8.3): a thousand years of delegations."""

RELOAD_SECONDS = 5.0
"""A token with an unknown key has the key files looked at again, but no more often than this."""

_MARK = b"2:"
_FERNET = b"gAAAA"
"""How every Fernet token of this century begins (version and the upper half of its time)."""


class VaultError(PermanentError):
    """What is kept cannot be decrypted: no master key fits, or it was changed."""


class _Key(NamedTuple):
    id: str
    cipher: AESGCM
    fernet: Fernet


class Vault:
    """Encrypts and decrypts with master keys. Safe for use by several threads.

    Args:
        keys: master keys (32 bytes in URL-safe base64), newest first.
        load: reads them anew from where they are kept.

    Raises:
        ConfigurationError: no key, or one that is none.
    """

    def __init__(self, keys: Sequence[bytes], load: Callable[[], Sequence[bytes]] | None = None) -> None:
        self._keys = _made(keys)
        self._load = load
        self._lock = threading.Lock()
        self._loaded = float("-inf")

    def __repr__(self) -> str:
        return "Vault()"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of the master keys at hand, newest first."""
        return tuple(key.id for key in self._keys)

    def reload(self) -> tuple[str, ...]:
        """Take in the key files as they are now; their ids.

        Raises:
            ConfigurationError: a file is missing or no key; the old keys stay.
        """
        if self._load is not None:
            self._keys = _made(self._load())
        return self.key_ids

    def encrypt(self, secret: bytes, place: str) -> bytes:
        """Encrypt with the newest key.

        Args:
            secret: what must not be read.
            place: where it will be kept; it decrypts nowhere else.
        """
        key = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        return _MARK + key.id.encode() + b":" + nonce + key.cipher.encrypt(nonce, secret, place.encode())

    def decrypt(self, token: bytes, place: str) -> bytes:
        """Decrypt with the key that fits.

        Raises:
            VaultError: none does, it was changed, or it comes from another place.
        """
        if token.startswith(_FERNET):
            return self._decrypt_old(token)
        wanted = key_id(token)
        key = self._find(wanted)
        if key is None:
            raise VaultError
        sealed = token[len(_MARK) + len(wanted) + 1 :]
        try:
            return key.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise VaultError from None

    def is_newest(self, token: bytes) -> bool:
        """Whether a token needs no new encryption."""
        return key_id(token) == self._keys[0].id

    def _find(self, wanted: str) -> _Key | None:
        found = next((key for key in self._keys if key.id == wanted), None)
        if found is None and wanted and self._may_reload():
            # Another process has it already: it was told first of a new key.
            try:
                self.reload()
            except ConfigurationError:
                return None
            found = next((key for key in self._keys if key.id == wanted), None)
        return found

    def _may_reload(self) -> bool:
        with self._lock:
            now = time.monotonic()
            due = self._load is not None and now - self._loaded > RELOAD_SECONDS
            if due:
                self._loaded = now
            return due

    def _decrypt_old(self, token: bytes) -> bytes:
        for key in self._keys:
            try:
                return key.fernet.decrypt(token)
            except InvalidToken:
                continue
        raise VaultError


def key_id(token: bytes) -> str:
    """Which master key a token was encrypted with; empty for tokens of the first release, and for what is none."""
    mark, _, rest = token.partition(b":")
    name, colon, _ = rest.partition(b":")
    if mark + b":" != _MARK or not colon or not name.isalnum() or len(name) > 64:
        return ""
    return name.decode("ascii", "replace")


def load_keys(paths: Iterable[Path]) -> list[bytes]:
    """Read master keys, one a file.

    Raises:
        ConfigurationError: a file cannot be read, is somebody else's, or others may read it.
    """
    return [_load(path) for path in paths]


def _made(keys: Sequence[bytes]) -> tuple[_Key, ...]:
    if not keys:
        raise ConfigurationError("the proxy repository needs a master key")
    try:
        return tuple(_Key(_id_of(key), AESGCM(_derived(key)), Fernet(key)) for key in keys)
    except ValueError:
        # The library's message is not repeated: it may quote the key.
        raise ConfigurationError("a master key is no Fernet key (32 bytes in URL-safe base64)") from None


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"pilotage master key id\0" + key).hexdigest()[:16]


def _derived(key: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"pilotage proxy repository 2").derive(key)


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if state.st_uid not in {os.geteuid(), 0}:
        raise ConfigurationError(f"{path}: belongs to somebody else")
    if state.st_mode & 0o077:
        raise ConfigurationError(f"{path}: holds a master key and others may use it; try: chmod 600 {path}")
    if len(data) > MAX_KEY_BYTES:
        raise ConfigurationError(f"{path}: no Fernet key")
    return data.strip()
