from __future__ import annotations

import re
from pathlib import Path

from compose.local.rabbitmq_config import MESSAGE_MAX
from consumers import admission, allowance, cut_off, delegating, following, gatekeeper, sandbox_store
from consumers.command_notes import OWN_PER_MINUTE
from consumers.domain import reservations
from consumers.domain.ceilings import BUILT_IN
from consumers.domain.index import AGEING_SECONDS
from consumers.domain.parked import SECTION
from consumers.domain.requirements import CPU_CLASSES
from consumers.domain.shares import DEFAULT_SHARE, MAX_CREDIT, Policy
from consumers.issuing import REFUSED_PER_MINUTE
from consumers.matcher import LEAD_SECONDS, RECONCILE_SECONDS, RENEW_SECONDS
from consumers.matching.lobby import AT_ONCE
from consumers.matching.stock import SLICE
from consumers.store.leader import PATIENCE_MS
from schemas.job import ACCEPT_LEASE, DEFAULT_RUN_LEASE, LEASE_MARGIN, MAX_INFRASTRUCTURE_RETRIES, TRANSITIONS
from schemas.messages.common import MAX_ATTEMPTS, MAX_SANDBOX_BYTES

DOCS = Path(__file__).parents[3] / "docs" / "explanation"


def test_picture_of_a_jobs_life_is_the_table() -> None:
    text = (DOCS / "job-life.md").read_text("utf-8")
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", text, re.MULTILINE))
    assert drawn == {(str(before), str(after)) for before, afters in TRANSITIONS.items() for after in afters}


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    life, matching = ((DOCS / name).read_text("utf-8") for name in ("job-life.md", "matching.md"))
    assert f"| {ACCEPT_LEASE:.0f} s |" in life
    assert f"{DEFAULT_RUN_LEASE:.0f} s by default" in life
    assert f"The margin is {LEASE_MARGIN:.0f} s" in life
    assert f"after {MAX_INFRASTRUCTURE_RETRIES} of them" in life
    assert f"submission time − {AGEING_SECONDS:,.0f} s".replace(",", " ") in matching
    assert f"one of {len(CPU_CLASSES)} classes" in matching
    policy = Policy()
    assert f"p × {DEFAULT_SHARE} / share × 2^((t − epoch) / half-life)" in matching
    assert f"The half-life is {policy.half_life:,.0f} s".replace(",", " ") in matching
    share = f"f = 1 − 2^(−{policy.credit:.0f} s / half-life) = {policy.lately:.1%}".replace("%", " %")
    assert f"\n{MAX_CREDIT}\nwhichever is least, with {share}" in matching


def test_limits_of_users_are_those_of_the_code() -> None:
    text = (DOCS.parent / "how-to" / "operate.md").read_text("utf-8")
    for measure, value in BUILT_IN.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{measure}`")]
        assert f"| {value:,} |".replace(",", " " if value > 9999 else "") in row
    assert f"up to {allowance.RECOUNT_SECONDS:.0f} s more" in text
    assert f"| {allowance.BYTES_PER_HOUR >> 30} GiB an hour |" in text
    assert f"every\n{cut_off.SWEEP_SECONDS:.0f} s at everybody who is connected" in text
    assert f"| {following.MAX_PER_CLIENT} by one client, {following.MAX_PER_IDENTITY} by all of one user |" in text
    assert f"| delegations under way | {delegating.MAX_PENDING} |" in text
    assert f"| delegations begun within a minute | {delegating.PER_MINUTE} |" in text
    assert f"| {gatekeeper.LOGINS_PER_MINUTE} a minute of one user or enrolled pilot |" in text
    assert f"| {sandbox_store.MAX_UNUSED // 1000} 000 | `consumers/sandbox_store.py` |" in text
    assert f"`max_message_size = {MESSAGE_MAX}`" in text
    assert OWN_PER_MINUTE == delegating.REFUSED_PER_MINUTE == REFUSED_PER_MINUTE == 60
    assert "60 lines a minute of each" in text
    assert f"| {admission.AUDITED_PER_MINUTE} lines a minute;" in text
    assert f"lives at least {delegating.SHORTEST_DELEGATED / 60:.0f} minutes" in text
    assert f"beyond {MAX_SANDBOX_BYTES >> 20} MiB in total" in text


def test_what_is_said_of_leaders_and_large_jobs_is_so() -> None:
    text = (DOCS / "matching.md").read_text("utf-8")
    assert f"every {RENEW_SECONDS} s" in text
    assert f"the lead {LEAD_SECONDS} s after" in text
    assert f"transaction after {PATIENCE_MS // 1000} s of silence" in text
    assert f"every {RECONCILE_SECONDS:.0f} s everything is compared with the store, {SLICE} queues" in text
    assert f"waited for {reservations.PATIENCE:.0f} s" in text
    assert f"At most {reservations.MOST_PER_QUEUE} pilots are kept for one task queue and\n" in text
    assert f"\n{reservations.MOST} in all, never more than jobs wait" in text
    assert f"none for longer than {reservations.LONGEST / 3600:.0f} h" in text
    assert f"in sections of {SECTION}" in text
    assert f"at most {AT_ONCE} in one transaction" in text


def test_what_is_said_of_logins_is_so() -> None:
    for name in ("SECURITY.md", "docs/wire-format.md"):
        assert f"{gatekeeper.ASKED_AGAIN_SECONDS:.0f} s" in (DOCS.parents[1] / name).read_text("utf-8")


def test_the_last_attempt_number_is_that_of_the_code() -> None:
    assert f"end at\n{MAX_ATTEMPTS:,};".replace(",", " ") in (DOCS / "job-life.md").read_text("utf-8")
