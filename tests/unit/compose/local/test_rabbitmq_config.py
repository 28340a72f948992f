from __future__ import annotations

import zipfile
from pathlib import Path

from compose.local.rabbitmq_config import NodeSettings, TlsFiles, plugin_closure, render_config

TLS = TlsFiles(Path("/t/ca.pem"), Path("/t/cert.pem"), Path("/t/key.pem"))


def config(version: tuple[int, ...], gatekeeper: str | None = None) -> dict[str, str]:
    text = render_config(NodeSettings(5671, TLS, Path("/d.json"), gatekeeper=gatekeeper), version)
    pairs = [line.split(" = ", 1) for line in text.splitlines()]
    assert len({key for key, _ in pairs}) == len(pairs), "a key twice"
    return dict(pairs)


def test_listens_with_tls_on_the_loopback_only() -> None:
    keys = config((3, 10, 8))
    assert keys["listeners.tcp"] == "none"
    assert keys["listeners.ssl.1"] == "127.0.0.1:5671"
    assert {keys[key] for key in keys if key.startswith("ssl_options.versions")} == {"tlsv1.3", "tlsv1.2"}
    assert keys["ssl_options.verify"] == "verify_none"
    assert keys["initial_frame_max"] == "65536"


def test_without_a_gatekeeper_there_are_internal_users_only() -> None:
    keys = config((3, 10, 8))
    assert keys["auth_backends.1"] == "internal"
    assert not [key for key in keys if key.startswith(("auth_http", "auth_cache", "auth_backends.2"))]


def test_the_gatekeeper_is_asked_second_and_cached_for_five_seconds_at_most() -> None:
    keys = config((3, 10, 8), "http://127.0.0.1:8000/auth")
    assert (keys["auth_backends.1"], keys["auth_backends.2"]) == ("internal", "cache")
    assert keys["auth_cache.cached_backend"] == "http"
    assert int(keys["auth_cache.cache_ttl"]) <= 5000
    assert keys["auth_http.http_method"] == "post"  # a GET would put the login assertion into a URL
    for name in ("user", "vhost", "resource", "topic"):
        assert keys[f"auth_http.{name}_path"] == f"http://127.0.0.1:8000/auth/{name}"
    assert "auth_http.ssl_options.cacertfile" not in keys


def test_4_x_gets_the_bundle_that_it_insists_on() -> None:
    assert config((4, 0, 5), "http://127.0.0.1:1/a")["auth_http.ssl_options.cacertfile"] == "/t/ca.pem"


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
