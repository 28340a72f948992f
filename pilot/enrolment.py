"""How a pilot comes to its identity: a one-time secret, exchanged for a certificate of a key that never leaves memory.

Promises: the pilot's key is made here and is written nowhere; a secret's file is removed as soon as the secret is
spent, or refused for good; no message repeats it. Its answer is believed only from the deployment's pilot authority
(:mod:`broker.session` checks that) and only if the certificate is for this key and valid by the trust directory.
Refuses: a secret in a file that others may read.
Lies elsewhere: keeping the memory private (:mod:`pilot.kernel`), later certificates (:mod:`pilot.renewal`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from broker.enrolment import MAX_SECRET_BYTES, Applicant, EnrolmentSecret
from broker.errors import LoginRefusedError
from broker.identity import Credential, IdentityError, PrivateKey, TrustStore, split_chain, verify_chain
from broker.identity.keys import public_bytes
from broker.passport import Passport
from broker.session import NoAnswerError, Session
from schemas.errors import ConfigurationError, PermanentError
from schemas.messages.enrolment import PilotEnrolled

from .settings import ENVIRONMENT, STDIN, PilotSettings

ANSWER_SECONDS = 600.0
"""How long a pilot waits for its certificate: the slot is worth it, and an answer lives no longer in its queue."""

SLOT_MARGIN = 3600.0
"""A certificate outlives the slot by so much: the last reports are signed with it."""

LogIn = Callable[[Passport], Session]
"""Opens a session; tries more than once."""

log = structlog.get_logger(__name__)


class NotEnrolledError(PermanentError):
    """The enrolment was refused: the secret was used before, has expired, is for another site, or was revoked."""


def read_secret(source: str, environment: str) -> EnrolmentSecret:
    """Read the secret from where the settings say.

    Args:
        source: a file, ``-`` for standard input, ``env`` for what the environment held.
        environment: what the environment held; it was taken out of there.

    Raises:
        PermanentError: it cannot be read, or is none; the message does not repeat it.
    """
    if source == ENVIRONMENT:
        if not environment:
            raise ConfigurationError('enrolment = "env", and the environment holds no secret')
        return EnrolmentSecret.parse(environment)
    if source == STDIN:
        return EnrolmentSecret.parse(_from_stdin())
    return EnrolmentSecret.parse(_from_file(Path(source)))


def _from_stdin() -> str:
    data = b""
    with contextlib.suppress(OSError):
        while len(data) <= MAX_SECRET_BYTES and (more := os.read(0, MAX_SECRET_BYTES)):
            data += more
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # nobody reads it again
    os.close(nothing)
    return data.decode("ascii", "replace")


def _from_file(path: Path) -> str:
    try:
        # O_NONBLOCK: a named pipe put there must not hang us; regular files do not care.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            state = os.fstat(file.fileno())
            data = file.read(MAX_SECRET_BYTES + 1) if stat.S_ISREG(state.st_mode) else b""
    except OSError as error:
        raise ConfigurationError(f"cannot read the enrolment secret {path}: {error.strerror}") from None
    if state.st_mode & 0o077:
        raise ConfigurationError(f"{path} holds a secret and others may read it; make it mode 0600")
    if state.st_uid not in {os.geteuid(), 0}:
        raise ConfigurationError(f"{path} belongs to somebody else")
    return data.decode("ascii", "replace")


def enrol(settings: PilotSettings, environment: str, log_in: LogIn, stopped: Callable[[], bool]) -> Credential:
    """Exchange the secret for an identity.

    Raises:
        NotEnrolledError: refused for good.
        PilotageError: the deployment could not be reached, or did not answer; the secret's file stays.
    """
    secret = read_secret(settings.enrolment, environment)
    wanted = settings.wall_seconds + SLOT_MARGIN if settings.wall_seconds else 0.0
    applicant = Applicant(secret, settings.site, wanted)
    try:
        session = log_in(applicant)
    except LoginRefusedError:
        _spent(settings)
        raise NotEnrolledError from None
    try:
        credential = _await_certificate(settings, session, applicant.key, stopped)
    except PermanentError:
        _spent(settings)
        raise
    finally:
        session.close()
    _spent(settings)
    return credential


def _await_certificate(
    settings: PilotSettings, session: Session, key: PrivateKey, stopped: Callable[[], bool]
) -> Credential:
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and not stopped():
        for incoming in session.receive(16, 0.5):
            session.ack([incoming])
            if isinstance(incoming.message, PilotEnrolled):
                return accept(incoming.message, key, settings, session.now())
    raise NoAnswerError("no certificate came for this pilot")


def accept(enrolled: PilotEnrolled, key: PrivateKey, settings: PilotSettings, now: float) -> Credential:
    """Make a credential of an answer.

    Raises:
        NotEnrolledError: it is a refusal.
        IdentityError: the certificate is not for this key, or not valid here.
    """
    if not enrolled.chain:
        raise NotEnrolledError(f"the enrolment was refused: {enrolled.reason}")
    ders = tuple(split_chain(enrolled.chain))
    trust = TrustStore.load(settings.session.trust_dir)
    chain = verify_chain(ders, trust, None, dt.datetime.fromtimestamp(now, dt.UTC))
    if public_bytes(chain.public_key) != public_bytes(key.public_key()) or chain.identity != enrolled.identity:
        raise IdentityError("the certificate is not for this pilot's key")
    return Credential(key, ders)


def _spent(settings: PilotSettings) -> None:
    """Remove the secret's file: it is worth nothing any more, and must not look as if it were."""
    if settings.enrolment in {STDIN, ENVIRONMENT}:
        return
    try:
        Path(settings.enrolment).unlink(missing_ok=True)
    except OSError as error:
        sys.stderr.write(f"warning: cannot remove the used secret {settings.enrolment}: {error.strerror}\n")
