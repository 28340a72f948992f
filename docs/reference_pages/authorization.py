"""The authorization table."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

from broker.authorization import TABLE, Property, Rule
from broker.ownership import WHOSE, Whose
from broker.rules import OPERATIONS
from consumers.domain.ceilings import BUILT_IN, LIMITED, SHARED
from schemas.access import Measure

from . import docstrings
from .markdown import code, codes, generated, table

_HEAD = """\
# Who may do what

{generated}

One table, deny by default: what has no row may be sent by nobody. It is used three times: by the gatekeeper, when RabbitMQ
asks what a client may write; by every consumer, before a handler sees the message; and by clients, which believe an answer
only from a service that may send it. Beside it stand operators' [rules](#operators-rules) and [limits](#limits).
"""

_PEOPLE = """
## Users, pilots and operators

A sender needs one of the properties, comes by that exchange, and may be refused by the limits. *About* says
[whose things](#about) the message may be about.
"""

_RULES = """
## Operators' rules

`pilotage admin rule` adds exceptions from the table, for somebody (`dn:DN`, `group:NAME`, `property:NAME`, or `*` for
everybody), about a message of the table above or one of these operations, or `*` for all of them:

{operations}

A rule that denies wins over everything. One that allows replaces a missing property and nothing else: it must name what it
allows, and it opens no other exchange (so it makes no pilot of a user, and no user of a pilot), lifts no demand for a full proxy,
changes nothing in *About*, and never gives what only services may send. The order of rules does not matter. A rule for a site
is about payloads there, and about nothing else. Services are not concerned by rules.

A refusal names the rule, its reason, and whom to ask. Consumers obey a change within 2 s. Whoever has less rights than when he
logged in is cut off and logs in anew; otherwise RabbitMQ asks again after 5 s at most. A client learns of what is allowed to
it with its next login.
"""

_LIMITS = """
## Limits

`pilotage admin limit` sets them for one user (`dn:DN`), a group (`group:NAME`) or everybody (`*`); the most special one counts. What
is beyond is refused with the code `limit`, and the refusal says which limit, what is used, and when to try again or what to do.

{limits}
"""


def render() -> str:
    """The page."""
    people = [(name, rule) for name, rule in TABLE.items() if rule.properties]
    services = [(name, rule) for name, rule in TABLE.items() if not rule.properties]
    return "\n".join(
        [
            _HEAD.format(generated=generated("broker/authorization.py")),
            "## Properties\n\nA group has properties; a login acts for one group.\n",
            table(("Property", "Its members may"), ((f"`{name}`", text) for name, text in _properties())),
            _PEOPLE,
            table(
                ("Message", "One of these properties", "About", "Full proxy", "Limits", "Exchange"),
                ((code(name), codes(sorted(rule.properties)), WHOSE[name].value if name in WHOSE else "",
                  "needed" if rule.full_proxy else "", codes(LIMITED.get(name, ())), _doors(rule))
                 for name, rule in people),
            ),
            "\n### About\n",
            table(("", "A message may be about"), _whose()),
            _RULES.format(operations=table(("Operation", "What it is"), ((code(name), text) for name, text in OPERATIONS.items()))),
            _LIMITS.format(limits=table(("Limit", "What", "Built in, for each user", "For a group"), _limits())),
            "## Services\n\n`relay` says what another service had committed to say and could not.\n",
            table(
                ("Message", "Exchange", "Services"),
                ((code(name), _doors(rule), codes(sorted(rule.services))) for name, rule in services),
            ),
            "",
        ]
    )  # fmt: skip


def _properties() -> list[tuple[str, str]]:
    texts = docstrings.fields(Property)
    return [(member.value, texts.get(member.name, "")) for member in Property]


def _whose() -> list[tuple[str, str]]:
    texts = docstrings.fields(Whose)
    return [(member.value, texts.get(member.name, "")) for member in Whose]


def _limits() -> list[tuple[str, str, str, str]]:
    texts = docstrings.fields(Measure)
    return [
        (code(measure.value), texts.get(measure.name, ""), f"{BUILT_IN[measure]:,}".replace(",", " "),
         "all of it together" if measure in SHARED else "each of its members")
        for measure in Measure
    ]  # fmt: skip


def _doors(rule: Rule) -> str:
    return codes(door.value or "(default)" for door in rule.doors)
