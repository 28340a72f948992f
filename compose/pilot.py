"""``pilotage-pilot``: the entry point of a pilot that was installed with the rest; ``pilot.pyz`` has the same."""

from __future__ import annotations

import sys

from pilot.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
