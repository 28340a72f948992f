"""The grid's own command-line tools, as people use them: where they lie, and how a test runs them.

`make test` installs them (`compose/servers.sh grid`). A missing tool is an error that says so, never a skip.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from compose.local.installed import SYSTEM, Programs, ServerMissingError, servers_folder

TOOL_TIMEOUT = 60.0  # seconds; the slowest, an RSA proxy of 4096 bits, takes two
# Debian keeps the name without the 2 for whichever of two implementations the administrator likes better.
_NAMES = {"voms-proxy-init": "voms-proxy-init2", "voms-proxy-info": "voms-proxy-info2"}


def find_grid_tools(servers: Path | None = None) -> Programs:
    """Where the tools and servers of VOMS, MyProxy and Globus lie.

    Raises:
        ServerMissingError: the message says how to get them.
    """
    for prefix in (SYSTEM, (servers or servers_folder()) / "grid"):
        if (prefix / "usr/sbin/voms").exists() and (prefix / "usr/bin/grid-proxy-init").exists():
            return Programs(prefix / "usr/sbin", prefix, ())
    raise ServerMissingError("the grid's tools are not installed: run `make test`, or `sh compose/servers.sh grid`")


def tool_path(name: str) -> Path:
    """The full path of a tool or server."""
    prefix = find_grid_tools().prefix
    file = _NAMES.get(name, name)
    return next(path for folder in ("usr/bin", "usr/sbin") if (path := prefix / folder / file).exists())


def run_tool(
    name: str,
    *arguments: str | Path,
    environment: Mapping[str, str],
    text: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end.

    Args:
        name: the tool; `openssl` is the system's.
        arguments: what it is told.
        environment: whose tool this is (see `GridUser.environment`); nothing of the test's own comes in.
        text: standard input.
        check: whether a failure is the test's failure, with all that the tool said.
    """
    program = "openssl" if name == "openssl" else tool_path(name)
    result = subprocess.run(
        [program, *arguments],
        env={**find_grid_tools().environment(), **environment},
        input=text if text is not None else "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TOOL_TIMEOUT,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"{name} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result
