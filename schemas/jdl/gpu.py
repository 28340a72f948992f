"""Whether a GPU is of a model that a job wants: one rule for the match and for what the payload is given."""

from __future__ import annotations

import re
from functools import lru_cache

_NO_WORD = re.compile(r"[\W_]+")


@lru_cache(maxsize=4096)
def is_model(model: str, wanted: str) -> bool:
    """Whether a GPU is of a wanted model: its name has the wanted words, in this order and next to each other.

    Drivers add maker, form and memory to the name (``NVIDIA A100-SXM4-40GB``); case and punctuation do not count.
    """
    have, want = (_NO_WORD.split(f" {text.casefold()} ") for text in (model, wanted))
    want = [word for word in want if word]
    have = [word for word in have if word]
    return any(have[start : start + len(want)] == want for start in range(len(have) - len(want) + 1)) and bool(want)
