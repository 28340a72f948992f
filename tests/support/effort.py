"""How hard property tests try: a quick profile for every run, any multiple of it on demand (`make fuzz`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = max(1, int(os.environ.get("PILOTAGE_FUZZ", "1")))
"""Of the numbers of examples."""


def effort(examples: int) -> settings:
    """Settings for a test that tries so many examples in the quick profile.

    No example is timed (Hypothesis's own default allows 200 ms): that would be a question to a machine that also does
    other work. Bounds on time are proven by counting work.
    """
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def use() -> None:
    """Make it the default of the tests that are read from now on."""
    settings.register_profile("pilotage", effort(100))
    settings.load_profile("pilotage")
