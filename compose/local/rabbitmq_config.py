"""The files of a private RabbitMQ node, as values: configuration text, plugin closure, environment.

Pure but for reading the plugins' own descriptions. The broker refuses to boot on a key that it does not know, so only
keys that all versions from 3.10 to 4.x know are used; what 3.10 has no key for stands in advanced.config.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import schemas.messages  # noqa: F401 - importing it registers every message type
from schemas.registry import registered

FRAME_MAX = 65_536  # bytes before login: a chain of proxies in the SASL response exceeds the default of 4096
# Bytes of a body: as many as the largest message type may have. The default before RabbitMQ 4 is 128 MB, and a service
# has hundreds of messages in memory before it looks at the first.
MESSAGE_MAX = max(row.max_bytes for row in registered().values())
AUTH_CACHE_MS = 5_000  # a revoked right lives at most this long in the broker
GATEKEEPER_PLUGINS = ("rabbitmq_auth_backend_http", "rabbitmq_auth_backend_cache", "rabbitmq_management")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the node: the CA that clients trust, its own certificate and key."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeSettings:
    """What a node's configuration is made of.

    Attributes:
        port: the TLS port on the loopback; there is no other listener.
        gatekeeper: base URL of the HTTPS authorization service (`/user`, `/vhost`, `/resource`, `/topic` are added),
            or None for a node that knows internal users only. Its certificate must be of `tls.ca` and name its host.
        management: HTTPS port of the management interface on the loopback, with a gatekeeper only.
        memory_limit: bytes at which publishers are blocked.
        disk_free_limit: free bytes on disk under which publishers are blocked.
    """

    port: int
    tls: TlsFiles
    definitions: Path
    gatekeeper: str | None = None
    management: int = 0
    memory_limit: int = 1 << 30
    disk_free_limit: int = 200_000_000


def render_config(settings: NodeSettings) -> str:
    """The text of rabbitmq.conf."""
    tls = settings.tls
    lines = [
        "listeners.tcp = none",
        f"listeners.ssl.1 = 127.0.0.1:{settings.port}",
        f"ssl_options.cacertfile = {tls.ca}",
        f"ssl_options.certfile = {tls.certificate}",
        f"ssl_options.keyfile = {tls.key}",
        # Never ask for a client certificate: the broker's TLS kills a handshake that presents a proxy.
        "ssl_options.verify = verify_none",
        "ssl_options.fail_if_no_peer_cert = false",
        "ssl_options.versions.1 = tlsv1.3",
        "ssl_options.versions.2 = tlsv1.2",
        f"initial_frame_max = {FRAME_MAX}",
        f"max_message_size = {MESSAGE_MAX}",
        "heartbeat = 20",
        "loopback_users = none",
        f"load_definitions = {settings.definitions}",
        f"vm_memory_high_watermark.absolute = {settings.memory_limit}",
        f"disk_free_limit.absolute = {settings.disk_free_limit}",
        "log.console = false",
        "log.file.level = info",
        "log.file.rotation.size = 10485760",
        "log.file.rotation.count = 3",
        "auth_backends.1 = internal",
    ]
    if settings.gatekeeper is not None:
        lines += [
            "auth_backends.2 = cache",
            "auth_cache.cached_backend = http",
            f"auth_cache.cache_ttl = {AUTH_CACHE_MS}",
            "auth_http.http_method = post",
            *(
                f"auth_http.{name}_path = {settings.gatekeeper}/{name}"
                for name in ("user", "vhost", "resource", "topic")
            ),
            # Who is connected, and closing it: for the gatekeeper, which logs in there with passes of its own. No
            # statistics are shown; the collector stays on, because from 4.1 on connections are listed from its tables.
            f"management.ssl.port = {settings.management}",
            "management.ssl.ip = 127.0.0.1",
            f"management.ssl.cacertfile = {tls.ca}",
            f"management.ssl.certfile = {tls.certificate}",
            f"management.ssl.keyfile = {tls.key}",
            "management.ssl.versions.1 = tlsv1.3",
            "management.ssl.versions.2 = tlsv1.2",
            "management.disable_stats = true",
        ]
    return "\n".join(lines) + "\n"


def render_advanced(settings: NodeSettings) -> str:
    """The text of advanced.config: how the gatekeeper's certificate is checked (3.10 has no keys for it in the conf).

    Its authority, its name, and TLS 1.2 at least: who cannot show that certificate is believed nothing.
    """
    if settings.gatekeeper is None:
        return "[].\n"
    host = urlsplit(settings.gatekeeper).hostname or ""
    options = [
        f"{{cacertfile, {_erlang(str(settings.tls.ca))}}}",
        "{verify, verify_peer}",
        "{depth, 3}",
        f"{{server_name_indication, {_erlang(host)}}}",
        "{versions, ['tlsv1.3', 'tlsv1.2']}",
    ]
    return f"[{{rabbitmq_auth_backend_http, [{{ssl_options, [{', '.join(options)}]}}]}}].\n"


def _erlang(text: str) -> str:
    """A text as an Erlang string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def plugin_closure(plugins: Iterable[str], folder: Path) -> dict[str, Path]:
    """The named plugins and all that they depend on, by name, out of RabbitMQ's plugins folder.

    A node that is shown only these boots in half the time.
    """
    available = {re.sub(r"-[^-]*$", "", path.name): path for path in sorted(folder.iterdir()) if "-" in path.name}
    chosen: dict[str, Path] = {}
    waiting = list(plugins)
    while waiting:
        name = waiting.pop()
        if name in chosen or name not in available:  # what is not a plugin is a part of Erlang
            continue
        chosen[name] = available[name]
        waiting += _needs(name, available[name])
    return chosen


def _needs(name: str, plugin: Path) -> list[str]:
    if plugin.is_dir():
        description = (plugin / "ebin" / f"{name}.app").read_text(encoding="utf-8", errors="replace")
    else:
        with zipfile.ZipFile(plugin) as archive:
            entry = next(item for item in archive.namelist() if item.endswith(f"/ebin/{name}.app"))
            description = archive.read(entry).decode("utf-8", "replace")
    match = re.search(r"\{applications,\s*\[(.*?)\]", description, re.DOTALL)
    return re.findall(r"\w+", match.group(1)) if match else []
