"""Signing policies in the Globus EACL form: which subject names a certificate authority may certify.

Promises: understands ``access_id_CA``, ``pos_rights globus CA:sign`` and ``cond_subjects globus '…'`` with the
wildcards ``*`` and ``?``; an entry with anything else grants nothing. Names are compared in canonical form.
"""

from __future__ import annotations

import re
import shlex

from schemas.errors import InvalidInputError
from schemas.identity import canonical_dn

# The largest policies of the IGTF distribution have a few kilobytes.
MAX_POLICY_BYTES = 64 * 1024
# One line holds a few names; splitting a far longer one into words takes time in the square of its length.
MAX_LINE = 16 * 1024
_OLD_EMAIL = re.compile(r"/(?:E|Email)=", re.IGNORECASE)
_OLD_UID = re.compile(r"/USERID=", re.IGNORECASE)


def parse_signing_policy(text: str) -> dict[str, tuple[re.Pattern[str], ...]]:
    """Return canonical DN of an authority → patterns of the subjects that it may certify.

    Malformed lines end their entry without a grant: a policy that we do not understand permits nothing.
    """
    policy: dict[str, tuple[re.Pattern[str], ...]] = {}
    authority, may_sign = "", False
    for line in text.splitlines():
        words = _words(line)
        if not words:
            continue
        match words:
            case ["access_id_CA", "X509", name]:
                authority, may_sign = _canonical_or_empty(name), False
            case ["pos_rights", "globus", "CA:sign"]:
                may_sign = bool(authority)
            case ["cond_subjects", "globus", subjects] if may_sign:
                policy[authority] = policy.get(authority, ()) + tuple(_pattern(item) for item in _split(subjects))
            case _:
                authority, may_sign = "", False
    return policy


def permits(patterns: tuple[re.Pattern[str], ...], subject_dn: str) -> bool:
    """Tell whether one of the patterns covers a subject in canonical form."""
    return any(pattern.fullmatch(subject_dn) for pattern in patterns)


def _words(line: str) -> list[str]:
    if len(line) > MAX_LINE:
        return ["malformed"]
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "#", ""
    try:
        return list(lexer)
    except ValueError:
        return ["malformed"]


def _split(subjects: str) -> list[str]:
    """Split the quoted list inside cond_subjects; a single name may stand there without inner quotes."""
    quoted = re.findall(r'"([^"]*)"', subjects)
    return quoted or [subjects]


def _canonical_or_empty(name: str) -> str:
    try:
        return canonical_dn(name)
    except InvalidInputError:
        return ""


def _pattern(text: str) -> re.Pattern[str]:
    """Compile wildcards; between two stars the first place that fits is taken for good, so that nothing is tried twice.

    (Plain ``.*`` for each star would try all combinations of places: a name of a few hundred characters against a
    policy with a dozen stars would never end.)
    """
    text = _OLD_UID.sub("/UID=", _OLD_EMAIL.sub("/emailAddress=", text))
    first, *pieces = (_piece(piece) for piece in re.split(r"\*+", text))
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[:-1])
    last = f".*{pieces[-1]}" if pieces else ""
    return re.compile(first + middle + last, re.DOTALL)


def _piece(text: str) -> str:
    return "".join("." if char == "?" else re.escape(char) for char in text)
