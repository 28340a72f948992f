"""Which server's certificate bears which name; and where the client's private key goes: nowhere."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from broker.grid.errors import GridRefusedError
from broker.grid.tls import _bears, _use
from broker.identity import Authority, Credential, new_key

CA = Authority.create("/DC=org/DC=example/CN=CA")


def host(dn: str, *names: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(CA.issue(dn, "server", names).leaf)


@pytest.mark.parametrize(
    ("cn", "names", "asked", "bears"),
    [
        ("wms.example.org", (), "wms.example.org", True),
        ("host\\/wms.example.org", (), "wms.example.org", True),
        ("wms.example.org", (), "WMS.example.org.", True),
        ("wms.example.org", (), "example.org", False),
        ("*.example.org", (), "wms.example.org", False),
        ("wms.example.org", ("other.example.org",), "wms.example.org", False),
        ("other.example.org", ("a.example.org", "wms.example.org"), "wms.example.org", True),
        ("wms", ("*.example.org",), "wms.example.org", False),
        ("localhost", ("127.0.0.1",), "127.0.0.1", True),
        ("127.0.0.1", ("localhost",), "127.0.0.1", False),
        ("localhost", ("127.0.0.1",), "127.0.0.2", False),
    ],
)
def test_the_name_must_be_the_hosts_own(cn: str, names: tuple[str, ...], asked: str, bears: bool) -> None:
    certificate = host(f"/DC=org/DC=example/OU=Hosts/CN={cn}", *names)
    assert _bears(certificate, asked) is bears


def test_the_key_goes_through_no_file_that_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = {one.name for one in Path("/proc/self/fd").iterdir()}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _use(context, CA.issue("/DC=org/DC=example/CN=ada"))
    assert {one.name for one in Path("/proc/self/fd").iterdir()} == before, "nothing stays open"
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_does_not_fit_is_told_without_it() -> None:
    wrong = Credential(new_key(), CA.issue("/DC=org/DC=example/CN=ada").ders)
    with pytest.raises(GridRefusedError, match="cannot use this credential") as refusal:
        _use(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), wrong)
    assert "PRIVATE" not in repr(refusal.value.__context__) + str(refusal.value)
