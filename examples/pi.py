#!/usr/bin/env python3
"""One part of the Monte Carlo estimate of pi: throws points into the unit square and counts those in the circle.

Needs nothing beyond Python's standard library. Without --part it combines the files of hits that it is given:

    python3 examples/pi.py hits-0.json hits-1.json …
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path


def throw(seed: int, points: int) -> int:
    """How many of so many random points lie within the quarter circle."""
    draw = random.Random(seed).random
    hits = 0
    for _ in range(points):
        x, y = draw(), draw()
        hits += x * x + y * y < 1.0
    return hits


def combine(parts: list[dict]) -> tuple[float, float, int]:
    """Pi, its statistical error (one sigma) and the number of points."""
    points, hits = sum(part["points"] for part in parts), sum(part["hits"] for part in parts)
    share = hits / points
    return 4 * share, 4 * math.sqrt(share * (1 - share) / points), points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, help="number of this part, from 0")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seeds", default="seeds.txt", help="file with one seed per part")
    parser.add_argument("--output", default="hits.json")
    parser.add_argument("files", nargs="*", help="files of hits to combine")
    arguments = parser.parse_args()
    if arguments.part is None:
        parts = [json.loads(Path(name).read_text()) for name in arguments.files]
        if not parts:
            parser.error("say --part N, or name files of hits to combine")
        value, error, points = combine(parts)
        away = abs(value - math.pi) / error
        print(f"pi = {value:.5f} +- {error:.5f} from {points:,} points in {len(parts)} parts ({away:.1f} sigma away)")
        return 0
    seeds = Path(arguments.seeds).read_text().split()
    seed = int(seeds[arguments.part])
    begin = time.monotonic()
    hits = throw(seed, arguments.points)
    result = {"part": arguments.part, "seed": seed, "points": arguments.points, "hits": hits}
    Path(arguments.output).write_text(json.dumps(result))
    print(f"part {arguments.part}: {hits:,} of {arguments.points:,} points in {time.monotonic() - begin:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
