"""A command that imports the connection but does not connect pays neither for pika nor for structlog."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["broker.connection", "broker.subscription", "broker.transport", "broker.errors"])
def test_importing_is_cheap(module: str) -> None:
    program = (
        f"import sys, {module}; print([m for m in ('pika', 'structlog', 'tenacity', 'asyncio') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
