"""Operators' rules beside the authorization table: which of them concern whom, and what they do.

Promises: a denial wins over every grant; the order of the rules does not matter; a grant counts only for the one
operation that it names (``*`` in a grant grants nothing: it would hand out operators' commands by a word). What a
grant can give at most is :mod:`broker.authorization`'s to say. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from schemas.access import ANYTHING, AccessRule, Effect

PAYLOAD_RUN = "payload.run"
"""Operation at a site: run a job of this owner there. Everybody may, but for denials."""

EVENTS_READ = "events.read"
"""Operation: read the monitoring stream, which tells of everybody's jobs."""

OPERATIONS = {
    PAYLOAD_RUN: "run a job of this owner at the rule's site (all sites, if it names none); only denials count",
    EVENTS_READ: "read the stream of all events",
}
"""What rules can be about beside messages."""


def concerns(rule: AccessRule, identity: str, group: str, properties: Collection[str]) -> bool:
    """Whether a rule is about somebody who acts for a group with these properties."""
    if rule.who == ANYTHING:
        return True
    kind, _, name = rule.who.partition(":")
    match kind:
        case "dn":
            return name == identity
        case "group":
            return bool(name) and name == group
        case "property":
            return name in properties
    return False


def select(
    rules: Iterable[AccessRule], identity: str, group: str, properties: Collection[str]
) -> tuple[AccessRule, ...]:
    """The rules that concern somebody."""
    return tuple(rule for rule in rules if concerns(rule, identity, group, properties))


def denial(rules: Iterable[AccessRule], what: str, site: str = "") -> AccessRule | None:
    """The rule that forbids an operation; of several the one whose name comes first.

    Args:
        rules: those that concern who asks.
        what: message name or operation.
        site: where, for operations at sites; rules for a site say nothing about anything else.
    """
    found = [
        rule
        for rule in rules
        if rule.effect is Effect.DENY
        and rule.what in {ANYTHING, what}
        and (rule.site == ANYTHING or (site and rule.site == site))
    ]
    return min(found, key=lambda rule: rule.name, default=None)


def is_granted(rules: Iterable[AccessRule], what: str) -> bool:
    """Whether a rule gives an operation that the table does not give."""
    return any(rule.effect is Effect.ALLOW and rule.what == what and rule.site == ANYTHING for rule in rules)


def refusal(rule: AccessRule, what: str, site: str = "") -> str:
    """What to tell whom a rule forbids something."""
    where = f" at {site}" if site else ""
    why = f": {rule.reason}" if rule.reason else ""
    todo = "only operators can lift it: name the rule to them"
    return f"{what}{where} is forbidden by the rule {rule.name!r}{why}; {todo}"
