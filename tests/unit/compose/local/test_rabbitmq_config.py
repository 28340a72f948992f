from __future__ import annotations

import zipfile
from pathlib import Path

from compose.local.rabbitmq_config import NodeSettings, TlsFiles, plugin_closure, render_advanced, render_config

TLS = TlsFiles(Path("/t/ca.pem"), Path("/t/cert.pem"), Path("/t/key.pem"))


def settings(gatekeeper: str | None = None, tls: TlsFiles = TLS) -> NodeSettings:
    return NodeSettings(5671, tls, Path("/d.json"), gatekeeper=gatekeeper, management=15671)


def config(gatekeeper: str | None = None) -> dict[str, str]:
    text = render_config(settings(gatekeeper))
    pairs = [line.split(" = ", 1) for line in text.splitlines()]
    assert len({key for key, _ in pairs}) == len(pairs), "a key twice"
    return dict(pairs)


def test_listens_with_tls_on_the_loopback_only() -> None:
    keys = config()
    assert keys["listeners.tcp"] == "none"
    assert keys["listeners.ssl.1"] == "127.0.0.1:5671"
    assert {keys[key] for key in keys if key.startswith("ssl_options.versions")} == {"tlsv1.3", "tlsv1.2"}
    assert keys["ssl_options.verify"] == "verify_none"
    assert keys["initial_frame_max"] == "65536"


def test_without_a_gatekeeper_there_are_internal_users_only_and_no_management() -> None:
    keys = config()
    assert keys["auth_backends.1"] == "internal"
    assert not [key for key in keys if key.startswith(("auth_http", "auth_cache", "auth_backends.2", "management"))]
    assert render_advanced(settings()) == "[].\n"


def test_the_gatekeeper_is_asked_second_and_cached_for_five_seconds_at_most() -> None:
    keys = config("https://localhost:8000/auth")
    assert (keys["auth_backends.1"], keys["auth_backends.2"]) == ("internal", "cache")
    assert keys["auth_cache.cached_backend"] == "http"
    assert int(keys["auth_cache.cache_ttl"]) <= 5000
    assert keys["auth_http.http_method"] == "post"  # a GET would put the login assertion into a URL
    for name in ("user", "vhost", "resource", "topic"):
        assert keys[f"auth_http.{name}_path"] == f"https://localhost:8000/auth/{name}"


def test_the_management_interface_speaks_tls_on_the_loopback_only() -> None:
    keys = config("https://localhost:8000/auth")
    assert (keys["management.ssl.port"], keys["management.ssl.ip"]) == ("15671", "127.0.0.1")
    assert not [key for key in keys if key.startswith(("management.tcp", "management.listener"))]


def test_the_gatekeepers_certificate_is_checked() -> None:
    text = render_advanced(settings("https://localhost:8000/auth"))
    for option in (
        "{verify, verify_peer}",
        '{cacertfile, "/t/ca.pem"}',
        '{server_name_indication, "localhost"}',
        "{versions, ['tlsv1.3', 'tlsv1.2']}",
    ):
        assert option in text


def test_paths_are_erlang_strings() -> None:
    odd = TlsFiles(Path('/a "b"\\c.pem'), TLS.certificate, TLS.key)
    assert '{cacertfile, "/a \\"b\\"\\\\c.pem"}' in render_advanced(settings("https://localhost:1/a", odd))


def make_plugin(folder: Path, name: str, needs: str, packed: bool = False) -> None:
    text = f"{{application, '{name}', [{{vsn, \"1\"}}, {{applications, [kernel,stdlib{needs}]}}]}}."
    if packed:
        with zipfile.ZipFile(folder / f"{name}-1.2.ez", "w") as archive:
            archive.writestr(f"{name}-1.2/ebin/{name}.app", text)
    else:
        (folder / f"{name}-1.2" / "ebin").mkdir(parents=True)
        (folder / f"{name}-1.2" / "ebin" / f"{name}.app").write_text(text)


def test_the_closure_follows_dependencies_and_leaves_the_rest(tmp_path: Path) -> None:
    make_plugin(tmp_path, "wanted", ",middle,\n 'other'")
    make_plugin(tmp_path, "middle", ",leaf", packed=True)
    make_plugin(tmp_path, "other", ",wanted")  # a circle does no harm
    make_plugin(tmp_path, "leaf", "")
    make_plugin(tmp_path, "stranger", "")
    (tmp_path / "README").write_text("no plugin")
    chosen = plugin_closure(["wanted"], tmp_path)
    assert set(chosen) == {"wanted", "middle", "other", "leaf"}
    assert chosen["middle"].name == "middle-1.2.ez"
