"""Where credentials and trust lie: option, then environment, then settings, then the grid's usual place.

Promises: these functions choose paths and nothing else; no file is opened. They are the one place that knows the
variables ``X509_USER_PROXY``, ``X509_USER_CERT``, ``X509_USER_KEY``, ``X509_CERT_DIR``, ``X509_VOMS_DIR`` and
``VOMS_USERCONF``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import UserSettings


def proxy_path(settings: UserSettings, option: Path | None = None) -> Path:
    """Return the user's proxy file."""
    return _choose(option, "X509_USER_PROXY", settings.proxy_path, Path(f"/tmp/x509up_u{os.getuid()}"))  # noqa: S108  # the place that all grid tools share


def user_certificate(settings: UserSettings, option: Path | None = None) -> Path:
    """Return the file of the user's certificate."""
    return _choose(option, "X509_USER_CERT", settings.user_cert, Path.home() / ".globus" / "usercert.pem")


def user_key(settings: UserSettings, option: Path | None = None) -> Path:
    """Return the file of the user's private key."""
    return _choose(option, "X509_USER_KEY", settings.user_key, Path.home() / ".globus" / "userkey.pem")


def ca_directory(settings: UserSettings, option: Path | None = None) -> Path:
    """Return the trust directory."""
    return _choose(option, "X509_CERT_DIR", settings.ca_dir, Path("/etc/grid-security/certificates"))


def voms_directory(settings: UserSettings, option: Path | None = None) -> Path | None:
    """Return the vomsdir; None if nobody named one and the usual place does not exist."""
    usual = Path("/etc/grid-security/vomsdir")
    chosen = _choose(option, "X509_VOMS_DIR", settings.vomsdir, usual)
    return None if chosen == usual and not usual.is_dir() else chosen


def vomses_paths(option: Path | None = None) -> tuple[Path, ...]:
    """Return the vomses files and directories to search: the user's own, then the machine's; an option goes alone."""
    if option is not None:
        return (option,)
    named = os.environ.get("VOMS_USERCONF")
    own = (Path(named),) if named else (Path.home() / ".glite" / "vomses", Path.home() / ".voms" / "vomses")
    return (*own, Path("/etc/vomses"), Path("/etc/grid-security/vomses"))


def _choose(option: Path | None, variable: str, setting: Path | None, usual: Path) -> Path:
    from_environment = os.environ.get(variable)
    return option or (Path(from_environment) if from_environment else None) or setting or usual
