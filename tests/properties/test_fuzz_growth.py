"""Inputs at their size limits, made to be slow: twice as much takes about twice as long, or no time to speak of.

Each line is a parser, a family of inputs for it (a function of the size), and the largest size that it accepts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

import schemas.messages  # noqa: F401 - fills the register
from broker.grid.vomses import MAX_FILE_BYTES as MAX_VOMSES_BYTES
from broker.grid.vomses import parse_vomses
from broker.identity import der, load_private_key, parse_certificate, split_chain
from broker.identity.attribute_certificate import MAX_AC_BYTES, read_acs
from broker.identity.certificate import MAX_CHAIN_BYTES
from broker.identity.credential import MAX_FILE_BYTES, load_credential
from broker.identity.proxy_info import ProxyCertInfo
from broker.identity.signing_policy import MAX_POLICY_BYTES, parse_signing_policy, permits
from broker.identity.vomsdir import MAX_LSC_BYTES, parse_lsc
from broker.login import MAX_ASSERTION_BYTES, check_assertion
from broker.signing import b64url, peek
from schemas.envelope import MAX_JWS_BYTES
from schemas.errors import PilotageError
from schemas.identity import MAX_DN_LENGTH, MAX_FQAN_LENGTH, Fqan, canonical_dn, format_dn
from schemas.jdl import MAX_JDL_BYTES, check
from schemas.registry import by_name
from schemas.toml import parse_toml
from tests.support.hostile import assert_in_step

Family = Callable[[int], bytes]


def repeated(piece: bytes, head: bytes = b"", tail: bytes = b"") -> Family:
    """As many pieces as fit."""
    return lambda size: head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def nested(tag: int = 0x30, core: bytes = b"") -> Family:
    """Elements inside each other down to the middle of the bytes."""

    def make(size: int) -> bytes:
        inner = core
        while len(inner) < size - 8:
            inner = der.encode(tag, inner)
        return inner

    return make


def inside(family: Family, *tags: int) -> Family:
    """A family's bytes as content of elements."""

    def make(size: int) -> bytes:
        data = family(size - 5 * len(tags))
        for tag in tags:
            data = der.encode(tag, data)
        return data

    return make


EMPTY = der.encode(der.SEQUENCE)
NUMBER = der.encode_integer(1)
AVA = der.encode(der.SEQUENCE, der.encode_oid("2.5.4.3"), der.encode(der.UTF8_STRING, b"x"))
RDN = der.encode(der.SET, AVA)
EXTENSION = der.encode(der.SEQUENCE, der.encode_oid("1.2.3.4"), der.encode(der.OCTET_STRING))
BEGIN, END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
KEY, KEY_END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"
POLICY = b"access_id_CA X509 '/CN=CA'\npos_rights globus CA:sign\ncond_subjects globus "


def certificate_with(extensions: Family) -> Family:
    """The shape of a certificate around a list of extensions."""
    head = [b"\xa0\x03\x02\x01\x02", NUMBER, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY]

    def make(size: int) -> bytes:
        wrapped = der.encode(0xA3, der.encode(der.SEQUENCE, extensions(size - 60)))
        tbs = der.encode(der.SEQUENCE, *head, wrapped)
        return der.encode(der.SEQUENCE, tbs, EMPTY, der.encode(der.BIT_STRING, b"\0"))

    return make


def numbered(size: int) -> bytes:
    """Extensions that are all different."""
    made = (
        der.encode(der.SEQUENCE, der.encode_oid(f"1.2.3.{number}"), der.encode(der.OCTET_STRING))
        for number in range(size // 14)
    )
    return b"".join(made)


def judged(data: bytes) -> None:
    for patterns in parse_signing_policy(data.decode()).values():
        permits(patterns, "/CN=" + "a" * 400)


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("latin-1"))


def envelope(data: bytes) -> object:
    return peek(b64url(data) + "..AAAA")


def login(data: bytes) -> object:
    def nobody(_ders: list[bytes]) -> object:
        raise PilotageError

    return check_assertion(data.decode(), client="x.y", audience="b", now=0.0, verify=nobody)  # type: ignore[arg-type]  # never answers


def named(name: str) -> Callable[[bytes], object]:
    return by_name(name).decode


JWS = MAX_JWS_BYTES * 3 // 4 - 16
MESSAGE = by_name("job.submit.v1").max_bytes

CASES: dict[str, tuple[Callable[[bytes], object], Family, int]] = {
    "der: small elements": (der.read_all, repeated(EMPTY), MAX_CHAIN_BYTES),
    "proxy info: one number": (ProxyCertInfo.decode, inside(repeated(b"\x7f"), 0x02, 0x30), MAX_CHAIN_BYTES),
    "proxy info: nested": (ProxyCertInfo.decode, nested(), MAX_CHAIN_BYTES),
    "certificate: extensions alike": (parse_certificate, certificate_with(repeated(EXTENSION)), MAX_CHAIN_BYTES),
    "certificate: extensions": (parse_certificate, certificate_with(numbered), MAX_CHAIN_BYTES),
    "certificate: nested": (parse_certificate, nested(), MAX_CHAIN_BYTES),
    "certificate: long name": (parse_certificate, certificate_with(inside(repeated(RDN), 0x30)), MAX_CHAIN_BYTES),
    "ac: many": (lambda data: read_acs(data, 16), inside(repeated(EMPTY), 0x30, 0x30), MAX_AC_BYTES),
    "ac: groups": (lambda data: read_acs(data, 16), inside(repeated(EMPTY), 0x30), MAX_AC_BYTES),
    "ac: nested": (lambda data: read_acs(data, 16), nested(), MAX_AC_BYTES),
    "pem: spaces": (split_chain, repeated(b" \t", BEGIN, END), MAX_CHAIN_BYTES),
    "pem: blank lines": (split_chain, repeated(b"\n", BEGIN, END), MAX_CHAIN_BYTES),
    "pem: begins": (split_chain, repeated(BEGIN), MAX_CHAIN_BYTES),
    "pem: dashes": (split_chain, repeated(b"-"), MAX_CHAIN_BYTES),
    "pem: letters": (split_chain, repeated(b"A", BEGIN, b"!"), MAX_CHAIN_BYTES),
    "key: begins": (load_private_key, repeated(KEY), MAX_FILE_BYTES),
    "key: begins of two kinds": (load_private_key, repeated(KEY + KEY.replace(b"P", b"RSA P")), MAX_FILE_BYTES),
    "key: letters": (load_private_key, repeated(b"A", KEY, KEY_END), MAX_FILE_BYTES),
    "credential: begins": (load_credential, repeated(KEY, KEY + b"x" + KEY_END), MAX_FILE_BYTES),
    "name: escapes": (text(canonical_dn), repeated(b"\\\\", b"/CN="), MAX_DN_LENGTH),
    "name: parts": (text(canonical_dn), repeated(b"/O=a"), MAX_DN_LENGTH),
    "name: slashes": (text(canonical_dn), repeated(b"/", b"/CN="), MAX_DN_LENGTH),
    "name: numbers": (text(canonical_dn), repeated(b".1", b"/CN=/1"), MAX_DN_LENGTH),
    "name: letters behind a slash": (text(canonical_dn), repeated(b"a", b"/CN=/"), MAX_DN_LENGTH),
    "name: written": (lambda data: format_dn([[("CN", data.decode())]]), repeated(b"/1.1\\"), MAX_DN_LENGTH),
    "fqan: groups": (text(Fqan.parse), repeated(b"/a"), MAX_FQAN_LENGTH),
    "policy: stars": (judged, repeated(b"*a", POLICY + b"'\"", b"b\"'"), MAX_POLICY_BYTES // 4),
    "policy: stars alone": (judged, repeated(b"*", POLICY + b"'", b"b'"), MAX_POLICY_BYTES // 4),
    "policy: names": (judged, repeated(b'"*a" ', POLICY + b"'", b"'"), MAX_POLICY_BYTES // 4),
    "policy: quotes": (judged, repeated(b"'", POLICY), MAX_POLICY_BYTES),
    "policy: lines": (judged, repeated(POLICY + b"'\"/CN=*\"'\n"), MAX_POLICY_BYTES),
    "lsc: dashes": (text(parse_lsc), repeated(b"-"), MAX_LSC_BYTES),
    "lsc: dashes and spaces": (text(parse_lsc), repeated(b" ", b"---", b"x"), MAX_LSC_BYTES),
    "lsc: names": (text(parse_lsc), repeated(b"/CN=a\n"), MAX_LSC_BYTES),
    "vomses: quotes": (text(parse_vomses), repeated(b'"" '), MAX_VOMSES_BYTES),
    "vomses: spaces": (text(parse_vomses), repeated(b" ", b'"a"', b"x"), MAX_VOMSES_BYTES),
    "header: arrays": (envelope, repeated(b"["), JWS),
    "header: objects": (envelope, repeated(b'{"a":'), JWS),
    "header: certificates": (envelope, repeated(b'"",', b'{"x5c":[', b'""]}'), JWS),
    "header: unknown keys": (envelope, repeated(b'"a":0,', b"{", b'"b":0}'), JWS),
    "header: escapes": (envelope, repeated(b"\\u0000", b'{"iss":"', b'"}'), JWS),
    "header: digits": (envelope, repeated(b"9", b'{"iat":', b"}"), JWS),
    "header: dots": (text(peek), repeated(b"."), MAX_JWS_BYTES),
    "login: dots": (login, repeated(b"."), MAX_ASSERTION_BYTES),
    "login: letters": (login, repeated(b"A", b"e30.e30."), MAX_ASSERTION_BYTES),
    "message: arrays": (named("job.submit.v1"), repeated(b"["), MESSAGE),
    "message: descriptions": (named("job.submit.v1"), repeated(b'"a",', b'{"descriptions":[', b'"a"]}'), MESSAGE),
    "message: digits": (named("job.kill.v1"), repeated(b"9", b'{"jobs":[', b"]}"), MESSAGE),
    "message: unknown keys": (named("job.kill.v1"), repeated(b'"a":[],', b"{", b'"b":0}'), MESSAGE),
    "toml: arrays": (lambda data: parse_toml(data, "x"), repeated(b"[", b"a="), 64 * 1024),
    "toml: tables": (lambda data: parse_toml(data, "x"), repeated(b"[[a]]\n"), 64 * 1024),
    "jdl: braces": (check, repeated(b"{", b"Executable = x; Arguments = "), MAX_JDL_BYTES),
    "jdl: quotes": (check, repeated(b'"', b"Executable = x; Arguments = "), MAX_JDL_BYTES),
    "jdl: semicolons": (check, repeated(b";"), MAX_JDL_BYTES),
    "jdl: comments": (check, repeated(b"/*"), MAX_JDL_BYTES),
    "jdl: minus signs": (check, repeated(b"-", b"Executable = x; Priority = ", b"1;"), MAX_JDL_BYTES),
    "jdl: sums": (check, repeated(b"1+", b"Executable = x; Priority = ", b"1;"), MAX_JDL_BYTES),
    "jdl: attributes": (check, repeated(b"a=1;"), MAX_JDL_BYTES),
    "jdl: lists": (check, repeated(b'"a",', b"Executable = x; InputData = {", b'"a"};'), MAX_JDL_BYTES),
    "jdl: parameters": (check, repeated(b'"a",', b'Executable = "%s"; Parameters = {', b'"a"};'), MAX_JDL_BYTES),
    "jdl: places": (check, repeated(b"%s", b'Parameters = 2; Executable = x; Arguments = "', b'";'), MAX_JDL_BYTES),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_twice_as_much_takes_twice_as_long(name: str) -> None:
    parse, make, limit = CASES[name]

    def run(data: bytes) -> None:
        with contextlib.suppress(PilotageError):
            parse(data)

    assert_in_step(run, make, limit)
