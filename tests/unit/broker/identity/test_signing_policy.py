from __future__ import annotations

import pytest

from broker.identity.signing_policy import parse_signing_policy, permits

CA = "/C=XX/O=Grid/CN=CA"


def policy(subjects: str, head: str = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n") -> str:
    return f"{head}cond_subjects globus {subjects}\n"


@pytest.mark.parametrize(
    ("subjects", "subject", "expected"),
    [
        ("'\"/O=Grid/*\"'", "/O=Grid/CN=Ada", True),
        ("'\"/O=Grid/*\"'", "/O=Grid", False),
        ("'\"/O=Grid/*\"'", "/O=Other/O=Grid/CN=Ada", False),
        ('\'"/O=A/*" "/O=B/*"\'', "/O=B/CN=Ada", True),
        ("'/O=Grid/*'", "/O=Grid/CN=Ada", True),
        ('"/O=Grid/*"', "/O=Grid/CN=Ada", True),
        ("'\"/O=Grid/CN=A?a\"'", "/O=Grid/CN=Ada", True),
        ("'\"/O=Grid/CN=A.a\"'", "/O=Grid/CN=Ada", False),
        ("'\"*\"'", "/O=Anything/CN=x", True),
        ("'\"/O=*/OU=*/CN=*\"'", "/O=Grid/OU=People/CN=Ada", True),
        ("'\"/O=*/OU=*/CN=*\"'", "/O=Grid/CN=Ada", False),
        ("'\"*a*a*b\"'", "/CN=aab", True),
        ("'\"*ab*ab\"'", "/CN=ab", False),
        ("'\"/CN=**\"'", "/CN=", True),
        ("'\"/CN=*x\"'", "/CN=xxyx", True),
        ("'\"/CN=*x?z\"'", "/CN=xxxz", True),
        ("'\"/O=Grid/Email=*\"'", "/O=Grid/emailAddress=a@b", True),
        ("'\"/O=Grid/CN=Ann (x)[1]*\"'", "/O=Grid/CN=Ann (x)[1] 2", True),
    ],
)
def test_subjects(subjects: str, subject: str, expected: bool) -> None:
    assert permits(parse_signing_policy(policy(subjects))[CA], subject) is expected


def test_real_file_with_comments_and_two_authorities() -> None:
    text = (
        "# EACL\n\n access_id_CA   X509   '/C=XX/O=Grid/Email=ca@x/CN=CA' # old\n"
        "pos_rights globus CA:sign\ncond_subjects globus '\"/O=A/*\"'\n"
        "access_id_CA X509 '/CN=B'\npos_rights globus CA:sign\ncond_subjects globus '\"/O=B/*\"'\n"
    )
    assert set(parse_signing_policy(text)) == {"/C=XX/O=Grid/emailAddress=ca@x/CN=CA", "/CN=B"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        policy("'\"/O=Grid/*\"'", f"access_id_CA X509 '{CA}'\n"),
        policy("'\"/O=Grid/*\"'", "pos_rights globus CA:sign\n"),
        policy("'\"/O=Grid/*\"'", f"access_id_CA X509 '{CA}'\nneg_rights globus CA:sign\n"),
        policy("'\"/O=Grid/*\"'", f"access_id_CA X509 '{CA}\npos_rights globus CA:sign\n"),
        policy("'\"/O=Grid/*\"'", "access_id_CA X509 'no name'\npos_rights globus CA:sign\n"),
    ],
)
def test_what_is_not_understood_permits_nothing(text: str) -> None:
    assert parse_signing_policy(text) == {}


def test_many_stars_are_no_riddle() -> None:
    """All combinations of places for three hundred stars would take longer than the universe has."""
    patterns = parse_signing_policy(policy("'\"" + "*a" * 300 + "b\"'"))[CA]
    assert not permits(patterns, "/CN=" + "a" * 2000)
