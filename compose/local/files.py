"""Files and folders that only their owner may read, and TOML text.

Promises: a file appears whole or not at all and is never wider than 0600, not even for a moment; writing what is
there already changes nothing. Decides nothing about contents.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import ConfigurationError

FOLDER_MODE = 0o700
FILE_MODE = 0o600

Value = str | int | float | bool | Sequence[str]
Section = Mapping[str, Value]


def private_folder(path: Path, mode: int = FOLDER_MODE) -> Path:
    """Make a folder for its owner alone; one that is there gets these rights again.

    Raises:
        ConfigurationError: it cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
    except OSError as error:
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from None
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file for its owner alone, atomically; its folder must exist.

    Raises:
        ConfigurationError: the disk says no.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if _holds(path, data):
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())  # a key that a power cut halves would lock its owner out
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_mode & 0o777 == FILE_MODE and path.read_bytes() == data
    except OSError:
        return False


def toml_text(tables: Mapping[str, Section | Sequence[Section]], comment: str = "") -> str:
    """TOML of tables by (quoted) name; a sequence of sections becomes an array of tables.

    Args:
        tables: names as they stand between the brackets.
        comment: first lines of the file.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    for name, content in tables.items():
        sections = [content] if isinstance(content, Mapping) else content
        head = f"[{name}]" if isinstance(content, Mapping) else f"[[{name}]]"
        for section in sections:
            lines += ["", head, *(f"{toml_key(key)} = {_toml_value(value)}" for key, value in section.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def toml_key(text: str) -> str:
    """A key, quoted where TOML wants it."""
    plain = text.replace("-", "").replace("_", "")
    return text if plain.isascii() and plain.isalnum() else _toml_string(text)


def _toml_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _toml_string(value)
    return "[" + ", ".join(_toml_string(item) for item in value) + "]"


def _toml_string(text: str) -> str:
    # JSON's escapes are TOML's too; only DEL must not stand raw in TOML.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
