from __future__ import annotations

import pytest

from schemas.errors import InvalidInputError
from schemas.identity import (
    Fqan,
    canonical_dn,
    client_id_belongs_to,
    client_id_prefix,
    format_dn,
    make_client_id,
    parse_dn,
)

ADA = "/DC=org/DC=example/OU=People/CN=Ada Example/CN=12345"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (ADA, ADA),
        ("/dc=org/cn=x", "/DC=org/CN=x"),
        ("/O=x/E=a@b", "/O=x/emailAddress=a@b"),
        ("/O=x/Email=a@b/USERID=u", "/O=x/emailAddress=a@b/UID=u"),
        ("/CN=host/ce.example.org", "/CN=host/ce.example.org"),
        ("/CN=Robot: a + b", "/CN=Robot: a + b"),
        ("/CN=a+OU=b", "/CN=a+OU=b"),
        ("/2.5.4.3=x/1.2.3=y", "/CN=x/1.2.3=y"),
        ("/CN=Ada\\/CN=Bob", "/CN=Ada\\/CN=Bob"),
        ("/CN=a\\\\b", "/CN=a\\\\b"),
        ("/CN=/OU=", "/CN=/OU="),
        ("/CN=a=b==", "/CN=a=b=="),
        ("/CN=Zoë Übel", "/CN=Zoë Übel"),
        ("/CN=a\\u{a}b", "/CN=a\\u{a}b"),
        ("/CN=Zo\\xC3\\xAB \\xc3\\x9Cbel/OU=x", "/CN=Zoë Übel/OU=x"),
        ("/CN=a\\x0Ab", "/CN=a\\u{a}b"),
        ("/CN=a\\x2FCN=b", "/CN=a\\/CN=b"),
        ("/CN=a\\\\xC3", "/CN=a\\\\xC3"),
        ("/CN=host\\/ce.example.org", "/CN=host/ce.example.org"),
        ("/CN=a \\+ b", "/CN=a + b"),
        ("/telephoneNumber=\\+49", "/telephoneNumber=+49"),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert canonical_dn(text) == canonical
    assert canonical_dn(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CN=x",
        "/",
        "/CN",
        "DC=org,CN=x",
        "+CN=x",
        "/FOO=x",
        "/CN=x/FOO=y",
        "/CN=a\\b",
        "/CN=a\\",
        "/CN=a\\u{110000}",
        "/CN=a\\xC3",
        "/CN=a\\xED\\xA0\\x80",
        "/CN=a\\x4",
        "/CN=" + "x" * 5000,
    ],
)
def test_no_dn(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_dn(text)


def test_a_value_cannot_pose_as_two() -> None:
    assert format_dn([[("CN", "Ada/CN=12345")]]) == "/CN=Ada\\/CN=12345"
    assert format_dn([[("CN", "Ada")], [("CN", "12345")]]) == "/CN=Ada/CN=12345"
    assert format_dn([[("CN", "Ada\\")], [("CN", "x")]]) == "/CN=Ada\\\\/CN=x"
    assert format_dn([[("CN", "a+OU=b")]]) != format_dn([[("CN", "a"), ("OU", "b")]])


def test_control_characters_cannot_reach_a_log() -> None:
    dn = format_dn([[("CN", "a\nb\x1b[2J\u202ec\0\ud800")]])
    assert dn == "/CN=a\\u{a}b\\u{1b}[2J\\u{202e}c\\u{0}\\u{d800}"
    assert parse_dn(dn) == ((("CN", "a\nb\x1b[2J\u202ec\0\ud800"),),)


def test_client_id() -> None:
    prefix = client_id_prefix(ADA)
    # Golden: base32(sha256(DN)) is written into queue names and broker rights; it must never change.
    assert prefix == "pjuxrawdu62f3nl6sewa"
    assert make_client_id(ADA, "abc123") == f"{prefix}.abc123"
    assert client_id_belongs_to(f"{prefix}.abc123", ADA)
    for wrong in (prefix, f"{prefix}.", f"{prefix}.A", f"{prefix}.a.b", f"x{prefix}.a", f"{prefix}.a/", ""):
        assert not client_id_belongs_to(wrong, ADA)
    for suffix in ("", "A", "a.b", "a b", "x" * 41, "é", "a\n"):
        with pytest.raises(InvalidInputError):
            make_client_id(ADA, suffix)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("/lhcb", "/lhcb"),
        ("/lhcb/Role=NULL/Capability=NULL", "/lhcb"),
        ("/lhcb/Role=user/Capability=NULL", "/lhcb/Role=user"),
        ("/lhcb/prod/2012/Role=production", "/lhcb/prod/2012/Role=production"),
        ("/vo.example.org/a-b_c/Role=x/Capability=y z", "/vo.example.org/a-b_c/Role=x/Capability=y z"),
        ("/lhcb/Capability=NULL", "/lhcb"),
    ],
)
def test_fqan(text: str, canonical: str) -> None:
    fqan = Fqan.parse(text)
    assert str(fqan) == canonical
    assert Fqan.parse(canonical) == fqan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "lhcb",
        "/lhcb/",
        "//lhcb",
        "/lhcb/Role=",
        "/lhcb/Role=a/Role=b",
        "/lhcb/role=a",
        "/lhcb\n",
        "/a b",
        "/é",
        "/lhcb/Capability=a/Role=b",
        "/Role=user",
        "/lhcb/../atlas",
        "/..",
        "/lhcb/.",
        "/" + "x" * 600,
    ],
)
def test_no_fqan(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Fqan.parse(text)


def test_fqan_belongs_to_whole_components() -> None:
    fqan = Fqan.parse("/lhcb/prod/Role=user")
    assert (fqan.vo, fqan.group, fqan.role) == ("lhcb", "/lhcb/prod", "user")
    assert fqan.belongs_to("lhcb")
    assert not fqan.belongs_to("lhc")
    assert not Fqan.parse("/lhcbx").belongs_to("lhcb")
