"""No secret shows in a representation: of none of our classes, whatever holds it, and not in a log line with locals."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.enrolment import Applicant, EnrolmentSecret
from broker.identity import Authority, Credential, key_pem
from broker.signing import Signer
from broker.transport import Login
from consumers.iam_scim import Iam
from consumers.passes import ClosingPasses
from consumers.vault import Vault
from pilot.proxies import Held
from producers.enrolments import NewEnrolment

ROOMS = ("schemas", "broker", "consumers", "producers", "pilot", "compose")
SECRET = re.compile(r"(^|_)(key|keys|secret|secrets|password|passphrase|token|pem|scalar|cookie|credential)(_|$)")

SHOWN = {
    "AttributeCertificate.authority_key": "an identifier of a public key",
    "ChainFacts.key": "public",
    "CreateEnrolments.keys": "public",
    "Delegation.key": "encrypted by the vault",
    "Delivery.routing_key": "a message's name",
    "Enrolling.key": "public",
    "Enrolment.pilot_key": "a hash of a public key",
    "Enrolment.public_key": "public",
    "Held.credential": "shows no key itself",
    "Letter.routing_key": "a message's name",
    "NewEnrolment.secret": "shows no key itself",
    "NewSubmission.key": "tells submissions apart",
    "Outgoing.routing_key": "a message's name",
    "OutboxRow.routing_key": "a message's name",
    "Proxy.key": "encrypted by the vault",
    "RepositoryListing.keys": "ids of master keys",
    "RepositoryReencrypted.keys": "ids of master keys",
    "Sealed.key": "where a row is",
    "Sealed.token": "encrypted by the vault",
    "StoredProxy.key": "the id of a master key",
    "Submission.key": "tells submissions apart",
    "SubmissionProxy.key": "encrypted by the vault",
    "SubmissionRow.key": "tells submissions apart",
    "SubmitJobs.key": "tells submissions apart",
    "TlsFiles.key": "a path",
    "_Source.password_file": "a path",
    "_Source.token_file": "a path",
}
"""Fields whose names sound like secrets and that may be shown, and why."""


def classes() -> Iterator[type]:
    for room in ROOMS:
        for found in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
            if ".migrations." in found.name or found.name.endswith(("__main__", ".migrations")):
                continue
            for item in vars(importlib.import_module(found.name)).values():
                if inspect.isclass(item) and item.__module__ == found.name:
                    yield item


def shown(kind: type) -> Iterator[tuple[str, str]]:
    """The fields that a class's representation shows, with their types."""
    if dataclasses.is_dataclass(kind):
        if not getattr(kind.__repr__, "__wrapped__", None):  # written by hand: tried below
            return
        yield from ((field.name, str(field.type)) for field in dataclasses.fields(kind) if field.repr)
    elif issubclass(kind, msgspec.Struct):
        yield from ((field.name, str(field.type)) for field in msgspec.structs.fields(kind))
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        yield from ((name, str(inspect.get_annotations(kind).get(name))) for name in kind._fields)


def test_no_class_shows_a_field_that_sounds_like_a_secret() -> None:
    found = {
        f"{kind.__name__}.{name}"
        for kind in classes()
        for name, of in shown(kind)
        if SECRET.search(name) and "Path" not in of
    }
    assert found <= set(SHOWN), "hide them: field(repr=False)"


KEYS = [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(public_exponent=65537, key_size=2048)]
MASTER = Fernet.generate_key()


def traces(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> list[str]:
    """What of a key must not be seen: its numbers and encodings, or pieces of them."""
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    numbers = key.private_numbers()
    number = numbers.private_value if isinstance(numbers, ec.EllipticCurvePrivateNumbers) else numbers.d
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    texts = [
        str(number),
        f"{number:x}",
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    ]
    return [
        "PRIVATE KEY",
        *key_pem(key).decode().split("\n")[1:-2],
        repr(raw)[2:-1],
        der.hex(),
        *(t[4:40] for t in texts),
    ]


@pytest.mark.parametrize("key", KEYS, ids=["P-256", "RSA"])
def test_what_holds_a_key_does_not_show_it(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    authority = Authority.create("/O=Example/CN=CA")
    credential = Credential(key, authority.issue("/O=Example/CN=Ada", key=key).ders)
    holders: list[object] = [
        credential,
        Authority(credential),
        Signer(key, "t", "/O=Example/CN=Ada", "client"),
        Held(credential, 0.0, 1.0),
        {"nested": [credential]},
    ]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        secret = EnrolmentSecret(key)
        info = None
        holders += [secret, Applicant(secret, "Site.Example.org"), NewEnrolment(info, secret)]  # type: ignore[arg-type]  # only shown
    for holder in holders:
        for text in (repr(holder), str(holder), f"{holder!r}"):
            assert not any(trace in text for trace in traces(key)), type(holder).__name__


def test_what_holds_a_word_does_not_show_it() -> None:
    word = "b7Xq-mostsecret"
    made = ClosingPasses().issue("ada")
    for holder in (Login("ada", word), Iam("https://iam", word), Vault([MASTER])):
        assert word not in repr(holder)
        assert MASTER.decode() not in repr(holder)
    assert made.secret not in repr(made)


def test_no_log_line_shows_the_locals_of_a_failure() -> None:
    """In services and pilots, as JSON and at a terminal: a traceback names lines of code, never the values there."""
    code = (
        "import sys, structlog, importlib\n"
        "module = importlib.import_module(sys.argv[1])\n"
        "module.configure(json=sys.argv[2] == 'json') if 'compose' in sys.argv[1] else module.configure()\n"
        "def fails():\n    password = 'most' + 'secret'\n    raise ValueError('no')\n"
        "try: fails()\nexcept ValueError: structlog.get_logger('x').exception('failed')\n"
    )
    for module, form in (
        ("compose.logging_setup", "json"),
        ("compose.logging_setup", "pretty"),
        ("pilot.logs", "json"),
    ):
        ended = subprocess.run([sys.executable, "-c", code, module, form], capture_output=True, text=True, check=True)
        assert "ValueError" in ended.stderr
        assert "mostsecret" not in ended.stderr


def test_an_error_about_a_key_does_not_quote_it() -> None:
    from broker.identity import CredentialError, load_credential, load_private_key

    pem = key_pem(KEYS[0])
    body = pem.split(b"\n")[1]
    for damaged in (pem.replace(body[:8], b"AAAAAAAA"), pem.replace(body, b""), pem[:60] + b"!" + pem[60:], pem + pem):
        for read in (load_private_key, load_credential):
            with pytest.raises(CredentialError) as caught:
                read(damaged)
            assert body[8:24].decode() not in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
