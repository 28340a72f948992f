"""What a user chose for a private stack, remembered in its data directory."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError, InvalidInputError

from .files import write_private

SQLITE, POSTGRES = "sqlite", "postgres"
FORMAT = 1
"""Of the file; a later release that changes the layout raises it."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices.

    Attributes:
        pilots: how many run.
        slots: processors that each offers; 0: they share the machine's.
        store: ``sqlite``, ``postgres`` or a URL without a secret in it; empty: not chosen yet.
    """

    pilots: int = 2
    slots: int = 0
    store: str = ""

    def changed(self, *, pilots: int | None, slots: int | None, store: str | None) -> Choices:
        """With what the user says now.

        Raises:
            InvalidInputError: another store than the one that holds the jobs.
        """
        if store is not None and self.store and store != self.store:
            raise InvalidInputError(
                f"this stack keeps its jobs in {self.store}; for another store take another --data-dir, "
                "or remove this one with `pilotage down --purge`"
            )
        if store is not None and store not in {SQLITE, POSTGRES} and "://" not in store:
            raise InvalidInputError(
                f"--store is {SQLITE}, {POSTGRES} or a URL such as postgresql:///name, not {store!r}"
            )
        return dataclasses.replace(
            self,
            pilots=self.pilots if pilots is None else pilots,
            slots=self.slots if slots is None else slots,
            store=store or self.store or SQLITE,
        )


def load_choices(path: Path) -> Choices:
    """Read them; the defaults where there are none yet.

    Raises:
        ConfigurationError: the file is damaged, or of another release.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Choices()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    try:
        if values["format"] != FORMAT:
            raise ConfigurationError(f"{path} is of another release (format {values['format']})")
        return Choices(int(values["pilots"]), int(values["slots"]), str(values["store"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(f"{path} is damaged; remove it to start with the defaults") from None


def save_choices(path: Path, choices: Choices) -> None:
    """Write them."""
    write_private(path, json.dumps({"format": FORMAT, **dataclasses.asdict(choices)}) + "\n")
