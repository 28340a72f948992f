"""Looks at the rights of files before anything is served: secrets are the service account's alone, settings its own.

Promises: a start is refused with the file's name and the command that mends it, before a key is read or a port opened.
What decides who is let in (settings, the registry's seed, authorities) may be read by everybody and written by nobody
but the service account and root. Lies elsewhere: the database's own files (:mod:`consumers.store.sqlite`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from consumers.settings import ServerSettings
from schemas.errors import ConfigurationError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_files(settings: ServerSettings) -> None:
    """Check every file and folder that the settings name and that is there; what is not is told by who reads it.

    Raises:
        ConfigurationError: others may read a secret, or change what must not be changed.
    """
    for path in _secrets(settings):
        check_secret(path)
    for path in _unalterable(settings):
        check_unalterable(path)


def _secrets(settings: ServerSettings) -> Iterator[Path]:
    yield settings.credentials
    if settings.credentials.is_dir():
        for pattern in ("*.pem", "*.secret", "*.key"):
            yield from sorted(settings.credentials.glob(pattern))
    yield from settings.master_keys
    yield settings.gatekeeper_key
    if settings.store_password_file is not None:
        yield settings.store_password_file
    if settings.pilot_authority is not None:
        yield settings.pilot_authority
    if settings.myproxy is not None:
        yield settings.myproxy.credential
    for source in settings.registry.sources:
        if source.secret_file is not None:
            yield source.secret_file


def _unalterable(settings: ServerSettings) -> Iterator[Path]:
    yield settings.trust_dir
    yield settings.registry_file
    yield settings.gatekeeper_certificate
    yield settings.endpoint.ca_file
    for path in (settings.origin, settings.voms_dir, settings.vomses):
        if path is not None:
            yield path


def check_secret(path: Path) -> None:
    """Nobody but its owner may do anything with it, and its owner is this account (or root).

    Raises:
        ConfigurationError: says how to mend it.
    """
    state = _state(path)
    if state is None:
        return
    if state.st_mode & OTHERS:
        mode = "700" if stat.S_ISDIR(state.st_mode) else "600"
        raise ConfigurationError(f"{path}: others may use it, and it holds secrets; try: chmod {mode} {path}")
    _check_owner(path, state)


def check_unalterable(path: Path) -> None:
    """Nobody but its owner may change it, and its owner is this account (or root).

    Raises:
        ConfigurationError: says how to mend it.
    """
    state = _state(path)
    if state is None:
        return
    if state.st_mode & OTHERS_WRITE:
        raise ConfigurationError(f"{path}: others may change it, and it decides who is let in; try: chmod go-w {path}")
    _check_owner(path, state)


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _check_owner(path: Path, state: os.stat_result) -> None:
    if state.st_uid not in {0, os.geteuid()}:
        mend = f"try: chown {os.geteuid()} {path}"
        raise ConfigurationError(f"{path}: belongs to another account ({state.st_uid}); {mend}")
