"""Write the generated reference pages anew (`make docs`), or with `--check` only tell which have drifted."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from reference_pages import PAGES  # noqa: E402 - the path above must stand first


def main() -> int:
    drifted = [path for path, render in PAGES.items() if _read(ROOT / path) != render()]
    if "--check" in sys.argv[1:]:
        print("\n".join(drifted))
        return 1 if drifted else 0
    for path in drifted:
        (ROOT / path).write_text(PAGES[path](), encoding="utf-8")
        print(f"wrote {path}")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
