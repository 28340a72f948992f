"""Long runs of the order against what everybody should have had: owners that come, go, cheat, fit only some nodes."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import pytest

from consumers.domain.choose import NoMatch, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import Requirements, canonical
from consumers.domain.shares import Policy
from consumers.domain.standing import dump, forget, restore
from schemas.messages.pilot import Offer

HOUR, DAY = 3600.0, 86_400.0
MANY = 10_000_000
ANYWHERE, AT_B = canonical(), canonical(sites=["B"])
EIGHT, WHOLE = canonical(min_processors=8, max_processors=8), canonical(whole_node=True)
A = Offer(site="A", cpu_seconds=1e9, processors=16, memory_mb=1e6, whole_node=True)
B = Offer(site="B", cpu_seconds=1e9, processors=16, memory_mb=1e6, whole_node=True)


class Run:
    """An index with a clock; queues are (group, owner), numbered as they come."""

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        self.index = Index()
        self.shares = dict(shares or {})
        self.now = 1_000_000.0
        self.step = 10.0
        self.got: Counter[str] = Counter()
        self._set()

    def _set(self) -> None:
        self.index.at(self.now)
        for group, share in self.shares.items():
            self.index.set_share(group, share)

    def submit(self, queue: int, group: str, owner: str, jobs: int = MANY, want: Requirements = ANYWHERE) -> None:
        if queue not in self.index:
            self.index.add_queue(queue, want, group, owner)
        self.index.add(queue, 1, jobs, self.now)

    def leave(self, queue: int) -> None:
        self.index.drop_queue(queue)

    def match(self, offer: Offer = A) -> str | None:
        self.now += self.step
        outcome = reserve(offer, self.index, self.now)
        if isinstance(outcome, NoMatch):
            return None
        queue = self.index.queue(outcome[0].queue_id)
        cost = round(outcome[0].charge / self.index.clock.weight)
        self.got[queue.group.name] += cost
        self.got[f"{queue.group.name}/{queue.owner.name}"] += cost
        return f"{queue.group.name}/{queue.owner.name}"

    def restart(self) -> None:
        """A new leader, with what was kept."""
        old, self.index = self.index, Index()
        for group, share in self.shares.items():
            self.index.set_share(group, share)
        restore(self.index, dump(old))
        self.index.at(self.now)
        for number in old:
            queue = old.queue(number)
            self.index.add_queue(number, queue.requirements, queue.group.name, queue.owner.name)
            self.index.set_counts(number, {key: (one.count, one.oldest) for key, one in queue.levels.items()})


@pytest.mark.parametrize(("share", "part"), [(10_000, 0.909), (2_000, 0.667), (1_000, 0.5)])
@pytest.mark.parametrize("step", [0.0, 0.01, 600.0])
def test_shares_are_kept_over_ten_thousand_matches_and_restarts(share: float, part: float, step: float) -> None:
    run = Run({"big": share, "small": 1_000})
    run.step = step
    for number, (group, owner) in enumerate((("big", "o0"), ("big", "o1"), ("small", "o0"))):
        run.submit(number, group, owner)
    for number in range(10_000):
        if number in {1, 137, 5_000, 9_000}:
            run.restart()
        run.match()
    assert run.got["big"] / 10_000 == pytest.approx(part, abs=0.003)
    assert run.got["big/o0"] == pytest.approx(run.got["big/o1"], abs=2)


def test_a_restart_changes_no_choice() -> None:
    random_ = random.Random(3)
    runs = Run({"a": 3_000, "b": 1_000}), Run({"a": 3_000, "b": 1_000})
    for number in range(12):
        for run in runs:
            run.submit(number, "ab"[number % 2], f"o{number % 5}", 500, (ANYWHERE, EIGHT, AT_B)[number % 3])
    for number in range(3_000):
        offer = random_.choice((A, B))
        for run in runs:
            run.step = HOUR  # over many half-lives
        if number % 500 == 7:
            runs[1].restart()
        assert runs[0].match(offer) == runs[1].match(offer)


def test_processors_are_shared_not_jobs() -> None:
    run = Run()
    run.submit(0, "single", "o", want=ANYWHERE)
    run.submit(1, "eight", "o", want=EIGHT)
    run.submit(2, "whole", "o", want=WHOLE)
    for _ in range(5_000):
        run.match()
    assert run.got["single"] == pytest.approx(run.got["eight"], rel=0.01)
    assert run.got["single"] == pytest.approx(run.got["whole"], rel=0.01)


def crowd(random_: random.Random, owners: int) -> Iterator[tuple[int, bool]]:
    """(owner, whether he has work): they come and go for hours or minutes."""
    until = [random_.expovariate(1 / (6 * HOUR)) for _ in range(owners)]
    there = [random_.random() < 0.5 for _ in range(owners)]
    now = 0.0
    while True:
        now += 30.0
        for owner in range(owners):
            if now >= until[owner]:
                there[owner] = not there[owner]
                until[owner] = now + random_.expovariate(1 / random_.choice((600.0, 6 * HOUR)))
                yield owner, there[owner]
        yield -1, True


def test_who_comes_and_goes_gets_what_he_should() -> None:
    """Over ten days: within the credit of each coming, everybody's processors are those of ideal sharing."""
    random_ = random.Random(11)
    shares = [1_000.0, 2_000.0, 4_000.0, 500.0, 1_000.0, 1_000.0, 1_000.0, 8_000.0]
    run = Run({f"g{number}": share for number, share in enumerate(shares)})
    run.step = 30.0
    run.submit(99, "g99", "always")
    there: set[str] = {"g99"}
    ideal: defaultdict[str, float] = defaultdict(float)
    weights = {**run.shares, "g99": 1_000.0}
    worst, matches = 0.0, 0
    came: Counter[str] = Counter()
    for owner, comes in crowd(random_, len(shares)):
        if owner >= 0:
            if comes and owner not in run.index:
                run.submit(owner, f"g{owner}", "o")
                came[f"g{owner}"] += 1
            elif not comes and owner in run.index:
                run.leave(owner)
            there = {f"g{number}" for number in range(len(shares)) if number in run.index} | {"g99"}
            continue
        if matches >= 28_800:
            break
        matches += 1
        if matches % 5_000 == 0:
            run.restart()
            forget(run.index)
        run.match()
        total = sum(weights[name] for name in there)
        for name in there:
            ideal[name] += weights[name] / total
    credit = Policy().credit / run.step
    for name in came:
        worst = max(worst, abs(run.got[name] - ideal[name]) / (came[name] + 1))
    assert worst <= credit, "nobody gains or loses more than half an hour's work by one coming"
    assert run.got["g99"] == pytest.approx(ideal["g99"], rel=0.1), "who is always there pays little for all that"


def test_a_newcomer_with_a_million_jobs_does_not_starve_the_others() -> None:
    run = Run({"big": 10_000})
    run.submit(0, "old", "o")
    for _ in range(int(3 * DAY / run.step)):
        run.match()
    run.submit(1, "big", "o")
    waited = 0
    while run.match() != "old/o":
        waited += 1
    assert waited * run.step <= 1.1 * Policy().credit
    assert waited > 10, "yet who asks seldom goes first"


def test_who_had_everything_while_alone_is_not_locked_out() -> None:
    run = Run()
    run.submit(0, "g", "alone")
    for _ in range(int(2 * DAY / run.step)):
        run.match()
    for number in range(1, 10):
        run.submit(number, "g", f"o{number}")
    first = [run.match() for _ in range(int(HOUR / run.step))]
    assert first.count("g/alone") >= 5
    run.got.clear()
    for _ in range(1_000):
        run.match()
    assert run.got["g/alone"] == pytest.approx(100, abs=2)


def test_tricks_gain_nothing() -> None:
    """One job at a time, many queues, and leaving after each job, against somebody who just submits."""
    run = Run()
    run.submit(0, "g", "honest")
    wants = [canonical(memory_mb=number) for number in range(1, 30)]
    for number, want in enumerate(wants, start=100):
        run.submit(number, "g", "splitter", want=want)
    trickle = resubmit = 0
    for number in range(12_000):
        if 1 not in run.index or not run.index.queue(1).waiting:
            run.submit(1, "g", "one by one", 1)
        if 2 not in run.index:
            run.submit(2, "g", "leaver", 50)
        who = run.match()
        trickle += who == "g/one by one"
        if who == "g/leaver":
            resubmit += 1
            run.leave(2)
        if number % 100 == 0:
            forget(run.index)
    for name in ("honest", "splitter", "one by one", "leaver"):
        assert run.got[f"g/{name}"] == pytest.approx(3_000, rel=0.01), name


def test_offers_that_fit_only_some() -> None:
    """Who fits nowhere else gets his share there; who fits everywhere is made up for it elsewhere."""
    random_ = random.Random(5)
    run = Run()
    run.submit(0, "everywhere", "o")
    run.submit(1, "only-b", "o", want=AT_B)
    for _ in range(20_000):
        run.match(random_.choices((A, B), (0.7, 0.3))[0])
    assert run.got["only-b"] == pytest.approx(6_000, rel=0.03), "all of B: even so it is less than half"
    run.got.clear()
    for _ in range(20_000):
        run.match(random_.choices((A, B), (0.3, 0.7))[0])
    assert run.got["only-b"] == pytest.approx(10_000, rel=0.03), "half of everything"


def test_background_gets_what_is_left() -> None:
    run = Run()
    run.submit(0, "users", "o", 50)
    run.submit(1, "filler", "o")
    run.submit(2, "filler2", "o")
    run.index.set_share("filler", 3_000, background=True)
    run.index.set_share("filler2", 0)
    run.index.set_share("filler2", 1_000, background=True)
    assert {run.match() for _ in range(50)} == {"users/o"}
    for _ in range(400):
        run.match()
    assert run.got["filler"] == pytest.approx(300, abs=2)
    run.submit(0, "users", "o", 5)
    assert {run.match() for _ in range(5)} == {"users/o"}
    run.index.set_share("filler", 1_000)
    assert {run.match() for _ in range(50)} == {"filler/o"}


def test_a_clock_that_leaps_does_no_harm() -> None:
    run = Run()
    run.submit(0, "a", "o")
    run.submit(1, "b", "o")
    for leap in (0.0, 100 * 365 * DAY, -200 * 365 * DAY, 70 * DAY):
        run.now += leap
        run.got.clear()
        for _ in range(500):
            run.match()
        assert abs(run.got["a"] - run.got["b"]) <= 1
