"""A pilot's life: probe, login, work, end. The composition root of the pilot."""

from __future__ import annotations

import threading
from pathlib import Path

from broker.connection import Wakeup
from broker.identity import load_credential
from broker.session import Session

from .agent import Agent
from .attempts import Attempts
from .guard import Guard
from .kernel import forbid_memory_access, steady_now
from .node import measure
from .post import Post
from .proxies import Proxies
from .runner import PayloadRunner
from .settings import load
from .stagehand import Stagehand
from .watchdog import Watchdog
from .workdir import WorkArea

LOGIN_SECONDS = 120.0
"""A slot is worth waiting for: the broker may be restarting."""


def live(
    config: Path, stop: threading.Event, *, name: str, ready_file: Path | None = None, guard: Guard | None = None
) -> str:
    """Be a pilot until told to stop or until nothing is left to do; returns why it ended.

    Args:
        config: its settings.
        stop: tells it to end.
        name: of its connection, for people.
        ready_file: made once it has logged in.
        guard: by which its keeper knows of leases.

    Raises:
        PilotageError: it could not begin.
    """
    forbid_memory_access()
    settings = load(config)
    credential = load_credential(settings.credential)
    wakeup = Wakeup()
    session = Session(settings.session, credential, name=f"pilot {name}", wakeup=wakeup)
    with (
        WorkArea(settings.work_dir, session.client) as area,
        PayloadRunner(guard=guard) as runner,
        Watchdog(runner) as watchdog,
    ):
        now = steady_now()
        ends = None if settings.wall_seconds is None else now + settings.wall_seconds
        found = measure(area.path, now=now, ends_at=ends)
        session.open(LOGIN_SECONDS)
        if ready_file is not None:
            ready_file.touch()
        post, proxies = Post(session), Proxies()
        processors = settings.slots or found.processors
        stagehand = Stagehand(
            area,
            runner,
            watchdog,
            site=settings.site,
            stores=settings.stores,
            cpu_power=settings.cpu_power,
            memory_mb=settings.memory_mb or float(found.memory_mb),
            processors=processors,
            slot_end=ends,
        )
        attempts = Attempts(stagehand, post, proxies, processors, wakeup, session.now)
        try:
            return Agent(settings, found, session, wakeup, attempts, post, proxies).run(stop)
        finally:
            attempts.close()
            session.close()
