"""Facts about stored proxies in words, for ``pilotage watch``."""

from __future__ import annotations

from schemas.messages.proxies import ProxyAlarm, ProxyExpiring, ProxyRenewal
from schemas.registry import Message

from .printing import age, clock


def in_words(message: Message) -> str:
    """One line; empty if it is no fact about proxies."""
    if isinstance(message, ProxyExpiring):
        return _expiring(message)
    if isinstance(message, ProxyRenewal):
        return _renewal(message)
    if isinstance(message, ProxyAlarm):
        whom = f"to pilot {message.client}" if message.about == "pilot" else f"of {message.owner}"
        return f"ALARM: {message.issues} proxies {whom} within {age(message.seconds)}"
    return ""


def _expiring(message: ProxyExpiring) -> str:
    which = f" for submission {message.submission}" if message.submission else ""
    jobs = f"{message.jobs} {'job needs' if message.jobs == 1 else 'jobs need'} it"
    help_ = "it will be renewed" if message.renewable else "delegate a new one"
    why = f" ({message.reason})" if message.reason else ""
    left = age(message.not_after - message.time)
    return f"proxy of {message.owner} ({message.group}){which} ends in {left}, {jobs}: {help_}{why}"


def _renewal(message: ProxyRenewal) -> str:
    what = "proxy" if message.what == "proxy" else "VOMS attribute"
    whose = f"{what} of {message.owner} ({message.group})"
    if message.renewed:
        return f"{whose} renewed, ends {clock(message.not_after)[:16]}"
    again = f"; next try in {age(message.next_try - message.time)}" if message.next_try is not None else ""
    return f"{whose} NOT renewed: {message.reason}{again}"
