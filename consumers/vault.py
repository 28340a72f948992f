"""Encryption at rest: what the proxy manager keeps is of no use without the master keys.

Fernet (AES-128-CBC with HMAC-SHA256, authenticated). The newest key encrypts, older ones still decrypt: to change keys
put a new file first in the settings, and take the old one away when nothing of its time is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from schemas.errors import ConfigurationError, PermanentError

MAX_KEY_BYTES = 256
"""A Fernet key is 44 characters; nothing larger is read."""


class VaultError(PermanentError):
    """What is kept cannot be decrypted: no master key fits, or it was changed."""


class Vault:
    """Encrypts and decrypts with master keys.

    Args:
        keys: Fernet keys, newest first.

    Raises:
        ConfigurationError: no key, or one that is none.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigurationError("the proxy repository needs a master key")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            # The library's message is not repeated: it may quote the key.
            raise ConfigurationError("a master key is no Fernet key (32 bytes in URL-safe base64)") from None

    def __repr__(self) -> str:
        return "Vault()"

    def encrypt(self, secret: bytes) -> bytes:
        """Encrypt with the newest key."""
        return self._fernet.encrypt(secret)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with whichever key fits.

        Raises:
            VaultError: none does.
        """
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            raise VaultError from None


def load_keys(paths: Iterable[Path]) -> list[bytes]:
    """Read master keys, one a file.

    Raises:
        ConfigurationError: a file cannot be read, is somebody else's, or others may read it.
    """
    return [_load(path) for path in paths]


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
