"""Enrolments of pilots, as operators make and look at them.

Promises: the secrets are made here and stay here; what travels to the deployment are their public halves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.enrolment import EnrolmentSecret
from schemas.errors import ConfigurationError, TemporaryError
from schemas.messages.enrolment import (
    MAX_ENROLMENTS,
    CreateEnrolments,
    EnrolmentInfo,
    EnrolmentListing,
    QueryEnrolments,
    RevokeEnrolments,
)

if TYPE_CHECKING:
    from .client import Client

SUFFIX = ".enrol"
"""Of a secret's file; its name is the enrolment's id."""


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """A fresh secret and what the deployment says of it."""

    secret: EnrolmentSecret
    info: EnrolmentInfo


def create(
    client: Client,
    count: int,
    *,
    site: str,
    expires: float,
    life_seconds: float,
    group: str = "",
    not_before: float = 0.0,
) -> list[NewEnrolment]:
    """Make secrets and tell the deployment their public halves.

    Args:
        client: of an operator.
        count: how many pilots.
        site: where they will run.
        expires: seconds since the epoch; the secrets are worth nothing after.
        life_seconds: longest life of each pilot's identity, renewals included.
        group: group of pilots; empty where there is one only.
        not_before: the secrets are worth nothing before.

    Raises:
        ProducerError: refused, or nobody answered. Those that were entered before stay: they expire unused.
    """
    made: list[NewEnrolment] = []
    while len(made) < count:
        secrets = {
            one.id: one for one in (EnrolmentSecret.create() for _ in range(min(count - len(made), MAX_ENROLMENTS)))
        }
        keys = tuple(secret.public_key for secret in secrets.values())
        message = CreateEnrolments(
            keys=keys, site=site, group=group, not_before=not_before, expires=expires, life_seconds=life_seconds
        )
        answer = client.ask(message, EnrolmentListing)
        made.extend(NewEnrolment(secrets[info.id], info) for info in answer.enrolments if info.id in secrets)
        if len(answer.enrolments) != len(keys):
            raise TemporaryError("the deployment did not enter all enrolments")
    return made


def listing(client: Client, *, site: str = "", before: int = 0, limit: int = 100) -> EnrolmentListing:
    """Enrolments, newest first."""
    return client.ask(QueryEnrolments(site=site, before=before, limit=limit), EnrolmentListing)


def revoke(client: Client, whom: Iterable[str], reason: str) -> Sequence[EnrolmentInfo]:
    """Trust pilots (DNs or ids of enrolments) no more; those that were found."""
    return client.ask(RevokeEnrolments(whom=tuple(whom), reason=reason), EnrolmentListing).enrolments


def write_secret(secret: EnrolmentSecret, folder: Path) -> Path:
    """Write a secret to a new file that its owner alone reads; returns its path.

    Raises:
        ConfigurationError: it cannot be written.
    """
    path = folder / f"{secret.id}{SUFFIX}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(secret.text() + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    return path
