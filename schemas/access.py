"""Rules and limits that operators set beside the authorization table: pure data.

The table (:mod:`broker.authorization`) says what each kind of client may do at most; these say what differs for one
user, one group, one operation or one site. Who evaluates them: :mod:`broker.authorization`. Where they are kept: the
registry.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

ANYTHING = "*"
"""As ``what`` or ``site`` of a rule: every operation, every site. As ``who``: everybody."""


class Effect(StrEnum):
    """What a rule does. A denial wins over every grant."""

    ALLOW = "allow"
    DENY = "deny"


class AccessRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exception from the table.

    Attributes:
        name: by which operators call it; unique.
        effect: what it does.
        who: ``dn:<canonical DN>``, ``group:<name>``, ``property:<name>`` or ``*``.
        what: a message name such as ``job.submit.v1``, an operation at a site such as ``payload.run``, or ``*``.
        site: at which site, for operations at sites; ``*`` for all.
        reason: told to whom it refuses.
    """

    name: str
    effect: Effect
    who: str
    what: str
    site: str = ANYTHING
    reason: str = ""


class Measure(StrEnum):
    """What can be limited."""

    ACTIVE_JOBS = "active-jobs"
    """Jobs that are not in a final state."""
    SUBMISSIONS_PER_MINUTE = "submissions-per-minute"
    JOBS_PER_HOUR = "jobs-per-hour"
    SUBMISSION_BYTES = "submission-bytes"
    """Size of one submission: descriptions and the files inside."""
    SANDBOX_BYTES = "sandbox-bytes"
    """What one owner may keep in the sandbox store."""


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One limit that differs from the built-in one; the most special one counts: ``dn:``, then ``group:``, then ``*``.

    Attributes:
        who: ``dn:<canonical DN>`` (each such user), ``group:<name>`` (all of the group together) or ``*`` (each user).
        measure: what is limited.
        value: the most.
    """

    who: str
    measure: Measure
    value: int
