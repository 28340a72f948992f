"""The pilot's command line: `python -m pilot` and the entry of `pilot.pyz`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .kernel import steady_now
from .node import measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pilot's command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="pilotage-pilot", description="What a pilot sees of this node.")
    parser.add_argument("--probe", action="store_true", required=True, help="print what this node offers, as JSON")
    parser.add_argument("--work-area", type=Path, default=Path.cwd(), help="where payloads would run")
    options = parser.parse_args(arguments)
    found = measure(options.work_area, now=steady_now())
    sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
