"""Authorities certified by several others, and what they may certify: names and e-mail addresses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from cryptography import x509

from broker.identity import Authority, Credential, IdentityError, TrustStore, parse_certificate, verify_chain
from broker.identity.authority import x509_name
from broker.identity.name_constraints import check_name_constraints
from broker.identity.subject_hash import subject_hash
from tests.support.pki import HOUR, NOW, craft, proxy, usage

BELOW = "/DC=org/DC=example"
CA = (x509.BasicConstraints(ca=True, path_length=None), True)
CA_USE = usage(key_cert_sign=True, crl_sign=True)
FAR = NOW + 100 * HOUR


def root(name: str) -> Credential:
    """A self-signed authority with others below it."""
    seed = Authority.create(f"{BELOW}/CN={name}", now=NOW)
    made = craft(seed.credential, x509_name(seed.dn), key=seed.credential.key, extensions=[CA, CA_USE], end=FAR)
    return Credential(made.key, made.ders[:1])


def write(directory: Path, authority: Credential, *, certificate: bool) -> None:
    """What stands in a trust directory about an authority; its certificate may come along with a chain instead."""
    holder = Authority(authority)
    holder.write_trust_dir(directory, now=NOW)
    if not certificate:
        (directory / subject_hash(authority.leaf)).with_suffix(".0").unlink()


def test_an_authority_that_a_stranger_certified_too(tmp_path: Path) -> None:
    """The stranger's certificate lives longer: it must not push out the one that leads to a root of ours."""
    ours, strange = root("Root"), root("Stranger")
    sub = craft(ours, x509_name(f"{BELOW}/CN=Sub"), extensions=[CA, CA_USE], end=FAR)
    crossed = craft(strange, x509_name(f"{BELOW}/CN=Sub"), extensions=[CA, CA_USE], end=FAR + HOUR, key=sub.key)
    expired = craft(ours, x509_name(f"{BELOW}/CN=Sub"), extensions=[CA, CA_USE], end=NOW - HOUR / 2, key=sub.key)
    write(tmp_path, ours, certificate=True)
    write(tmp_path, Credential(sub.key, sub.ders[:1]), certificate=False)
    user = craft(sub, x509_name(f"{BELOW}/CN=Ada"), extensions=[usage(digital_signature=True)])
    leaf = proxy(Credential(user.key, user.ders[:1]))
    store = TrustStore.load(tmp_path)
    for order in itertools.permutations((sub.leaf, crossed.leaf, expired.leaf, strange.leaf)):
        assert verify_chain([*leaf.ders, *order], store, None, NOW).ders == (*leaf.ders, sub.leaf)
    with pytest.raises(IdentityError, match="not issued by a trusted authority"):
        verify_chain([*leaf.ders, crossed.leaf, strange.leaf], store, None, NOW)


@pytest.mark.parametrize(
    ("base", "address", "inside"),
    [
        ("example.org", "ada@example.org", True),
        ("example.org", "ada@EXAMPLE.org", True),
        ("example.org", "ada@evil.com", False),
        ("example.org", "ada@sub.example.org", False),
        ("example.org", "ada@badexample.org", False),
        ("example.org", "ada@example.org@evil.com", False),
        (".example.org", "ada@sub.example.org", True),
        (".example.org", "ada@example.org", False),
        ("ada@example.org", "ada@example.org", True),
        ("ada@example.org", "bob@example.org", False),
    ],
)
def test_an_address_in_the_name_is_bound_too(base: str, address: str, inside: bool) -> None:
    """RFC 5280 §4.2.1.10: the constraints on addresses count for the emailAddress of a subject as well."""
    name = x509_name(f"{BELOW}/CN=Ada/emailAddress={address}")

    def permitted(constraints: x509.NameConstraints) -> bool:
        authority = craft(root("Root"), x509_name(f"{BELOW}/CN=Sub"), extensions=[CA, (constraints, False)])
        try:
            check_name_constraints([parse_certificate(craft(authority, name).leaf), parse_certificate(authority.leaf)])
        except IdentityError:
            return False
        return True

    assert permitted(x509.NameConstraints([x509.RFC822Name(base)], None)) is inside
    assert permitted(x509.NameConstraints(None, [x509.RFC822Name(base)])) is not inside
