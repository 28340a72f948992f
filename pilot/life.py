"""A pilot's life: probe, login, work, end. The composition root of the pilot."""

from __future__ import annotations

import dataclasses
import math
import os
import threading
from pathlib import Path

from broker.connection import Wakeup
from broker.errors import LoginRefusedError
from broker.identity import Credential, load_credential, parse_certificate
from broker.passport import Passport
from broker.session import Session

from .agent import Agent
from .attempts import Attempts
from .enrolment import accept, enrol
from .guard import Guard
from .hardware import VISIBLE, find_gpus
from .kernel import forbid_memory_access, steady_now
from .node import measure
from .post import Post
from .proxies import Proxies
from .renewal import Renewal
from .runner import PayloadRunner
from .settings import PilotSettings, load
from .shares import Ledger
from .stagehand import Stagehand
from .watchdog import Watchdog
from .workdir import WorkArea

LOGIN_SECONDS = 120.0
"""A slot is worth waiting for: the broker may be restarting."""

LOGIN_TRIES = 3
LAST_REPORTS = 60.0
"""A pilot ends so long before its own proxy or certificate: what its payloads left is still told of."""

LAST_WORDS = 600.0
"""An identity is needed so much longer than its slot: for the last reports, by clocks that differ."""

REFUSED_PAUSE = 6.0
"""A refused login is tried again twice: the broker refuses, too, while its gatekeeper is being restarted, and remembers
it for five seconds; it does not say which."""


def live(
    config: Path,
    stop: threading.Event,
    *,
    name: str,
    ready_file: Path | None = None,
    guard: Guard | None = None,
    secret: str = "",
) -> str:
    """Be a pilot until told to stop or until nothing is left to do; returns why it ended.

    Args:
        config: its settings.
        stop: tells it to end.
        name: of its connection, for people.
        ready_file: made once it has logged in.
        guard: by which its keeper knows of leases.
        secret: enrolment secret that the environment held.

    Raises:
        PilotageError: it could not begin.
    """
    began = steady_now()
    forbid_memory_access()
    settings = load(config)
    wakeup = Wakeup()

    def log_in(passport: Credential | Passport) -> Session:
        return _log_in(settings, passport, wakeup, name, stop)

    if settings.credential is not None:
        credential = load_credential(settings.credential)
    else:
        credential = enrol(settings, secret, log_in, stop.is_set)
    session = log_in(credential)
    try:
        if ready_file is not None:
            ready_file.touch()
        left = math.inf
        if settings.wall_seconds is not None:  # the slot does not wait for a login
            left = settings.wall_seconds - (steady_now() - began)
        if not settings.enrolment:  # nobody renews it: without it nothing can be reported any more
            left = min(left, life_of(credential) - session.now() - LAST_REPORTS)
        if left < math.inf:
            settings = dataclasses.replace(settings, wall_seconds=max(0.0, left))
        return _work(settings, session, credential, wakeup, stop, guard)
    finally:
        session.close()


def life_of(credential: Credential) -> float:
    """When a credential ends: as soon as one certificate of its chain does, seconds since the epoch."""
    return min(parse_certificate(der).x509.not_valid_after_utc.timestamp() for der in credential.ders)


def _log_in(
    settings: PilotSettings, passport: Credential | Passport, wakeup: Wakeup, name: str, stop: threading.Event
) -> Session:
    for left in reversed(range(LOGIN_TRIES)):
        session = Session(settings.session, passport, group=settings.group, name=f"pilot {name}", wakeup=wakeup)
        try:
            session.open(LOGIN_SECONDS)
        except LoginRefusedError:
            session.close()
            if not left or stop.wait(REFUSED_PAUSE):
                raise
        except BaseException:
            session.close()
            raise
        else:
            return session
    raise LoginRefusedError


def _work(
    settings: PilotSettings,
    session: Session,
    credential: Credential,
    wakeup: Wakeup,
    stop: threading.Event,
    guard: Guard | None,
) -> str:
    # Before there is a runner: it takes every child that it does not know for a payload's.
    gpus = settings.gpus if settings.gpus is not None else find_gpus(given=os.environ.get(VISIBLE))
    with (
        WorkArea(settings.work_dir, session.client) as area,
        PayloadRunner(guard=guard) as runner,
        Watchdog(runner) as watchdog,
    ):
        now = steady_now()
        ends = None if settings.wall_seconds is None else now + settings.wall_seconds
        found = measure(area.path, now=now, ends_at=ends, gpus=gpus)
        post, proxies = Post(session), Proxies()
        processors = settings.slots or found.processors
        ledger = Ledger(processors, settings.memory_mb or float(found.memory_mb), found.gpus)
        stagehand = Stagehand(
            area,
            runner,
            watchdog,
            site=settings.site,
            stores=settings.stores,
            cpu_power=settings.cpu_power,
            processors=processors,
            slot_end=ends,
        )
        attempts = Attempts(stagehand, post, proxies, ledger, wakeup, session.now)
        renewal: Renewal | None = None
        if settings.enrolment:
            wall = math.inf if settings.wall_seconds is None else settings.wall_seconds + LAST_WORDS
            renewal = Renewal(
                session,
                credential,
                post.say,
                lambda answer, key: accept(answer, key, settings, session.now()),
                session.now() + wall,
            )
        try:
            return Agent(settings, found, ledger, session, wakeup, attempts, post, proxies, renewal).run(stop)
        finally:
            attempts.close()
