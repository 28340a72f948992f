"""`pilotage proxy`: what a user types and what comes back."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from typer.testing import CliRunner, Result

from broker.identity import Authority, load_credential, pem_chain, save_credential
from producers.commands.proxy import app
from producers.settings import UserSettings
from tests.support.pki import proxy

ROOT = Path(__file__).parents[4]
GRID = ROOT / "tests" / "fixtures" / "grid"
DN = "/DC=org/DC=example/CN=Ada Example"
KEYS = {"valid", "reason", "identity", "limited", "depth", "not_after", "acs"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a user certificate in the usual place, and a trust directory."""
    for name in ("CERT", "KEY", "PROXY"):
        monkeypatch.delenv(f"X509_USER_{name}", raising=False)
    for name in ("X509_CERT_DIR", "X509_VOMS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "x509up"))
    authority = Authority.create("/DC=org/DC=example/CN=CA")
    authority.write_trust_dir(tmp_path / "ca")
    user = authority.issue(DN)
    globus = tmp_path / ".globus"
    globus.mkdir()
    (globus / "usercert.pem").write_bytes(user.chain_pem)
    (globus / "userkey.pem").write_bytes(user.key_pem)
    (globus / "userkey.pem").chmod(0o400)
    return tmp_path


def run(*arguments: object, settings: object = None, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(item) for item in arguments], obj=settings, input=text)


def info(*arguments: object, settings: object = None) -> tuple[int, dict[str, Any]]:
    result = run("info", *arguments, "--output", "json", settings=settings)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = json.loads(result.stdout)
    assert set(found) == KEYS
    return result.exit_code, found


def test_init_info_destroy(home: Path) -> None:
    result = run("init", "--hours", "2")
    assert result.exit_code == 0, result.output
    assert DN in result.output
    code, found = info("--ca-dir", home / "ca")
    assert code == 0
    assert (found["valid"], found["reason"], found["identity"], found["limited"]) == (True, "", DN, False)
    assert (found["depth"], found["acs"]) == (1, [])
    left = dt.datetime.fromisoformat(found["not_after"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=1, minutes=59) < left <= dt.timedelta(hours=2)
    assert (home / "x509up").stat().st_mode & 0o777 == 0o600
    assert run("destroy").exit_code == 0
    assert not (home / "x509up").exists()
    assert run("destroy").exit_code == 1


def test_init_options(home: Path) -> None:
    out = home / "other"
    result = run("init", "--limited", "--bits", "2048", "--path-length", "0", "--out", out, "--output", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == str(out)
    assert isinstance(load_credential(out).key, rsa.RSAPrivateKey)
    code, found = info(out, "--ca-dir", home / "ca")
    assert (code, found["limited"], found["depth"]) == (0, True, 1)
    # From a proxy: its own file holds certificate and key; path length 0 allows no more.
    result = run("init", "--cert", out)
    assert result.exit_code == 1
    assert "path length" in result.output


def test_init_from_a_proxy_stays_limited(home: Path) -> None:
    assert run("init", "--limited").exit_code == 0
    assert run("init", "--cert", home / "x509up", "--out", home / "second").exit_code == 0
    code, found = info(home / "second", "--ca-dir", home / "ca")
    assert (code, found["limited"], found["depth"]) == (0, True, 2)


@pytest.mark.parametrize("arguments", [["--bits", "1024"], ["--hours", "0"], ["--hours", "-1"], ["--hours", "nan"]])
def test_init_refuses(home: Path, arguments: list[str]) -> None:
    result = run("init", *arguments)
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not (home / "x509up").exists()


def test_settings_and_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X509_USER_PROXY")
    globus = home / ".globus"
    settings = UserSettings(
        ca_dir=home / "ca",
        user_cert=(globus / "usercert.pem").rename(home / "c.pem"),
        user_key=(globus / "userkey.pem").rename(home / "k.pem"),
        proxy_path=home / "from-settings",
    )
    assert run("init").exit_code == 1
    assert run("init", settings=settings).exit_code == 0
    assert info(settings=settings)[0] == 0
    monkeypatch.setenv("X509_USER_PROXY", str(home / "from-environment"))
    monkeypatch.setenv("X509_USER_CERT", str(home / "c.pem"))
    monkeypatch.setenv("X509_USER_KEY", str(home / "k.pem"))
    monkeypatch.setenv("X509_CERT_DIR", str(home / "ca"))
    assert run("init").exit_code == 0
    assert info()[0] == 0
    # The environment comes before settings.
    monkeypatch.setenv("X509_CERT_DIR", str(GRID / "certificates"))
    assert info(settings=settings)[0] == 1


def protect(home: Path, password: str) -> None:
    path = home / ".globus" / "userkey.pem"
    key = load_credential(home / ".globus" / "usercert.pem", key=path).key
    path.chmod(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode())))


def test_password_from_stdin(home: Path) -> None:
    protect(home, "sesame")
    assert run("init", "--pwstdin", text="sesame\n").exit_code == 0
    result = run("init", "--pwstdin", text="wrong-secret\n")
    assert result.exit_code == 1
    assert "password" in result.output
    assert "wrong-secret" not in result.output
    result = run("init", text="sesame\n")
    assert result.exit_code == 1
    assert "--pwstdin" in result.output


def test_password_from_a_terminal(home: Path) -> None:
    protect(home, "sesame")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        code = "from producers.commands.proxy import app; app()"
        os.execv(sys.executable, [sys.executable, "-c", code, "init"])
    seen = b""
    while b"Password of" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"sesame\n")
    try:
        while chunk := os.read(terminal, 1000):
            seen += chunk
    except OSError:
        pass  # Linux's way to say that the other end closed
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"sesame" not in seen
    assert (home / "x509up").exists()


def test_key_that_others_may_read(home: Path) -> None:
    (home / ".globus" / "userkey.pem").chmod(0o644)
    result = run("init")
    assert result.exit_code == 1
    assert "chmod 600" in result.output


@pytest.mark.parametrize("name", json.loads((GRID / "expected.json").read_text()))
def test_fixtures(name: str, home: Path) -> None:
    """What real tools made; the parts of the object are checked deeper beside the library."""
    expected = json.loads((GRID / "expected.json").read_text())[name]
    if dt.datetime.now(dt.UTC) > dt.datetime(2027, 11, 1, tzinfo=dt.UTC):
        expected = {"valid": False}  # the chains have ended by now; the library's tests set their own clock
    path = GRID / "proxies" / f"{name}.pem"
    code, found = info(path, "--ca-dir", GRID / "certificates", "--vomsdir", GRID / "vomsdir")
    assert code == (0 if expected["valid"] else 1)
    assert found["valid"] == expected["valid"]
    assert bool(found["reason"]) != expected["valid"]
    if expected["valid"]:
        assert {key: found[key] for key in ("identity", "limited", "depth", "not_after")} == {
            key: expected[key] for key in ("identity", "limited", "depth", "not_after")
        }
        assert [(ac["valid"], ac["fqans"]) for ac in found["acs"]] == [
            (ac["ok"], ac.get("fqans", [])) for ac in expected["acs"]
        ]


def test_info_of_anything_else(home: Path) -> None:
    (home / "garbage").write_bytes(b"\x00\xff garbage")
    (home / "empty").touch()
    (home / "large").write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 100_000)
    (home / "half").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
    os.mkfifo(home / "pipe")
    for path in (home / "garbage", home / "empty", home / "large", home / "half", home / "pipe", home, home / "none"):
        code, found = info(path, "--ca-dir", home / "ca")
        assert (code, found["valid"], found["identity"]) == (1, False, None)
        assert found["reason"]
    assert info("/dev/zero", "--ca-dir", home / "ca")[0] == 1


def test_file_name_that_is_no_text(home: Path) -> None:
    name = os.fsdecode(b"\xff\x1b[2J")
    assert info(home / name)[0] == 1
    code = "from producers.commands.proxy import app; app()"
    for arguments in (["info", name], ["info", name, "-o", "json"], ["destroy", name], ["init", "--cert", name]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stdout + done.stderr


def test_info_without_trust(home: Path) -> None:
    assert run("init").exit_code == 0
    code, found = info("--ca-dir", home / "none")
    assert code == 1
    assert "trust directory" in found["reason"]
    code, found = info("--ca-dir", home / "ca", "--vomsdir", home / "none")
    assert code == 1
    assert "vomsdir" in found["reason"]


def test_table(home: Path) -> None:
    assert run("init").exit_code == 0
    result = run("info", "--ca-dir", home / "ca")
    assert result.exit_code == 0
    assert "full proxy, depth 1" in result.output
    assert "others may read" not in result.output
    (home / "x509up").chmod(0o644)
    result = run("info", "--ca-dir", home / "ca")
    assert result.exit_code == 0
    assert "others may read the key" in result.stderr
    path = GRID / "proxies" / "rfc_1024.pem"
    result = run("info", path, "--ca-dir", GRID / "certificates")
    assert result.exit_code == 1
    assert "weak key" in result.output


def test_names_are_not_markup(home: Path) -> None:
    authority = Authority.create("/DC=org/DC=example/CN=Other")
    authority.write_trust_dir(home / "ca")
    user = authority.issue("/DC=org/DC=example/CN=[bold]x[/nothing]\\u{1b}[2J")
    (home / "chain").write_bytes(pem_chain(proxy(user).ders))
    result = run("info", home / "chain", "--ca-dir", home / "ca")
    assert "[bold]x[/nothing]" in result.output.replace("\n", "")
    assert "\x1b" not in result.output


def test_destroy_overwrites(home: Path) -> None:
    assert run("init").exit_code == 0
    second = home / "second-name"
    second.hardlink_to(home / "x509up")
    size = second.stat().st_size
    assert run("destroy").exit_code == 0
    assert second.read_bytes() == b"\0" * size


def test_destroy_follows_no_link_and_spares_what_is_no_proxy(home: Path) -> None:
    victim = home / "victim"
    victim.write_text("precious")
    (home / "x509up").symlink_to(victim)
    assert run("destroy").exit_code == 1
    large = home / "large"
    large.write_bytes(b"x" * 1_000_000)
    assert run("destroy", large).exit_code == 1
    assert run("destroy", home / ".globus").exit_code == 1
    assert (victim.read_text(), large.stat().st_size) == ("precious", 1_000_000)


def test_saved_by_the_library_read_by_the_command(home: Path) -> None:
    save_credential(
        load_credential(home / ".globus" / "usercert.pem", key=home / ".globus" / "userkey.pem"), home / "eec"
    )
    code, found = info(home / "eec", "--ca-dir", home / "ca")
    assert (code, found["depth"], found["identity"]) == (0, 0, DN)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from producers.commands.proxy import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'cryptography', 'rich', 'pika', 'msgspec', 'sqlalchemy', 'broker.identity'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
