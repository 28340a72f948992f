"""The authorization table."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

from broker.authorization import TABLE, Property, Rule

from . import docstrings
from .markdown import codes, generated, table

_HEAD = """\
# Who may send what

{generated}

One table, deny by default: what has no row may be sent by nobody. It is used three times: by the gatekeeper, when RabbitMQ
asks what a client may write; by every consumer, before a handler sees the message; and by clients, which believe an answer
only from a service that may send it. Whose jobs a user may act on is decided by `may_touch_job` and `may_see_job` in
`broker/authorization.py`.
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
            "\n## Users, pilots and operators\n",
            table(
                ("Message", "Exchange", "One of these properties", "Full proxy"),
                ((f"`{name}`", _doors(rule), codes(sorted(rule.properties)), "needed" if rule.full_proxy else "")
                 for name, rule in people),
            ),
            "\n## Services\n\n`relay` says what another service had committed to say and could not.\n",
            table(
                ("Message", "Exchange", "Services"),
                ((f"`{name}`", _doors(rule), codes(sorted(rule.services))) for name, rule in services),
            ),
            "",
        ]
    )  # fmt: skip


def _properties() -> list[tuple[str, str]]:
    texts = docstrings.fields(Property)
    return [(member.value, texts.get(member.name, "")) for member in Property]


def _doors(rule: Rule) -> str:
    return codes(door.value or "(default)" for door in rule.doors)
