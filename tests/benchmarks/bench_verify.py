"""What a message's security costs, per message, beside the bare signature check on the same bytes.

Run it alone: ``python -m tests.benchmarks.bench_verify [--quick]``; it is the first table of ``make bench``. A message
is a submission of 1 kB. *Known chain*: what a service does with nearly every message (header, chain from its memory,
signature, identity, times, payload). *Unknown chain*: the first message after a login, when chain and attributes are
read from the store and verified from the trust anchors down. All cases take turns in short slices, so that whatever
else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from broker.identity import Credential, create_proxy, new_key, thumbprint, verify_chain
from broker.login import check_assertion, make_assertion
from broker.signing import ChainResolver, Signer, facts_of, open_envelope, peek, uuid7
from broker.subscriber import Gate
from consumers.directory import Directory
from consumers.store import Store, chains, registry
from schemas.identity import make_client_id
from schemas.messages.user import SubmitJobs
from schemas.registry import encode, type_of
from tests.support.attribute_certificates import Voms, make_ac, make_voms, with_acs
from tests.support.messages import delivery
from tests.support.pki import NOW, USER_DN, Pki, make_pki, pci, proxy, usage

GOAL = 2.0
"""A known chain's message costs less than this many bare ECDSA checks."""
BODY = 1000
SLICE = 0.004
"""Seconds that a case is on before it is the next one's turn."""
ROUNDS = 200
QUICK = 10
"""With --quick there are fewer rounds by this factor."""
AUDIENCE = "job-manager"
GROUP = "lhcb_user"
BROKER = "bench"
CLIENT = make_client_id(USER_DN, "bench1")
SECONDS = NOW.timestamp()
SEED = {
    "groups": {GROUP: {"fqan": "/lhcb", "properties": ["NormalUser"]}},
    "users": [{"dn": USER_DN, "nickname": "ada", "groups": [GROUP]}],
}


@dataclass(frozen=True)
class Case:
    """One thing to measure; ``known`` marks those that the goal is about."""

    name: str
    run: Callable[[], object]
    goal: float | None = None


@dataclass
class Cost:
    """What one case costs.

    Attributes:
        micros: microseconds, median of the slices.
        ratio: against the bare ECDSA check of the same round, median.
        goal: the largest ratio that is good enough, if there is one.
    """

    name: str
    micros: float
    ratio: float
    goal: float | None = None


@dataclass
class Bench:
    """A store, trust anchors of both kinds, and who signs."""

    folder: Path
    store: Store
    cases: list[Case] = field(default_factory=list)

    def add(self, name: str, run: Callable[[], object], goal: float | None = None) -> None:
        run()  # what does not work is told before anything is measured
        self.cases.append(Case(name, run, goal))


def measure(*, quick: bool = False) -> list[Cost]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="pilotage-verify-") as name:
        folder = Path(name)
        store = Store.open(f"sqlite:///{folder}/store.db")
        try:
            with store.transaction() as tx:
                registry.seed(tx, SEED)
            bench = Bench(folder, store)
            for kind in ("P-256", "RSA 2048"):
                _messages(bench, kind)
            return _timed(bench.cases, ROUNDS // (QUICK if quick else 1))
        finally:
            store.close()


def _messages(bench: Bench, kind: str) -> None:
    """Add the cases of one kind of keys: authority, user and proxies all have it."""
    folder = bench.folder / kind.replace(" ", "")
    pki = make_pki(folder / "trust", rsa_keys=kind != "P-256")
    voms = make_voms(pki, folder / "vomsdir")
    key = None if kind == "P-256" else new_key(rsa_bits=2048)
    credential = _proxies(pki, 1, key)
    body = _body()
    signer, jws = _signed(credential, body)
    directory = Directory(bench.store, pki.trust, voms.vomsdir, lambda: SECONDS)
    _login(bench.store, pki, credential)
    bare = _bare(credential, jws, body)
    bench.add(f"bare signature check of cryptography, {kind}", bare)
    goal = GOAL if kind == "P-256" else None
    bench.add(f"open_envelope, known chain, {kind}", _opener(jws, body, directory), goal)
    gate = Gate([AUDIENCE], directory, directory)
    message = delivery(body, jws, user_id=CLIENT)
    bench.add(f"… and sender and rules (Gate.admit), {kind}", lambda: gate.admit(message, SECONDS))
    for depth in (1, 3):
        deep = _proxies(pki, depth, key)
        _unknown(bench, f"open_envelope, unknown chain, {kind}, depth {depth}", pki, voms, deep)
    attributed = proxy(pki.user, extensions=[pci(), usage(digital_signature=True), with_acs(make_ac(voms))], key=key)
    _unknown(bench, f"open_envelope, unknown chain, {kind}, depth 1, VOMS", pki, voms, attributed)
    row = type_of(SubmitJobs)
    bench.add(
        f"sign a message, {kind}",
        lambda: signer.sign(row, body, audience=AUDIENCE, now=SECONDS, message_id=uuid7(SECONDS)),
    )
    _logins(bench, kind, pki, voms, attributed)


def _unknown(bench: Bench, name: str, pki: Pki, voms: Voms, credential: Credential) -> None:
    body = _body()
    _, jws = _signed(credential, body)
    _login(bench.store, pki, credential)

    def run() -> object:
        # A new directory remembers no chain.
        return _opener(jws, body, Directory(bench.store, pki.trust, voms.vomsdir, lambda: SECONDS))()

    bench.add(name, run)


def _logins(bench: Bench, kind: str, pki: Pki, voms: Voms, credential: Credential) -> None:
    def make() -> str:
        return make_assertion(credential, client=CLIENT, audience=BROKER, group=GROUP, now=SECONDS)

    text = make()

    def check() -> object:
        return check_assertion(
            text,
            client=CLIENT,
            audience=BROKER,
            now=SECONDS,
            verify=lambda ders: verify_chain(ders, pki.trust, voms.vomsdir, NOW),
        )

    bench.add(f"make a login assertion, {kind}, VOMS", make)
    bench.add(f"check a login assertion, {kind}, VOMS", check)


def _opener(jws: str, body: bytes, resolve: ChainResolver) -> Callable[[], object]:
    audiences = frozenset({AUDIENCE})
    return lambda: open_envelope(jws, body, resolve=resolve, audiences=audiences, now=SECONDS, user_id=CLIENT)


def _bare(credential: Credential, jws: str, body: bytes) -> Callable[[], object]:
    """The library's check alone, of the same signature over the same bytes, all its arguments ready."""
    _, protected, signature = peek(jws)
    data = protected + b"." + body
    public = credential.key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return lambda: public.verify(signature, data, pss, hashes.SHA256())
    ecdsa = ec.ECDSA(hashes.SHA256())
    encoded = utils.encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    return lambda: public.verify(encoded, data, ecdsa)


def _signed(credential: Credential, body: bytes) -> tuple[Signer, str]:
    signer = Signer(credential.key, thumbprint(credential.leaf), USER_DN, CLIENT, GROUP)
    row = type_of(SubmitJobs)
    jws = signer.sign(row, body, audience=AUDIENCE, now=SECONDS, message_id=uuid7(SECONDS), with_reply=True)
    return signer, jws


def _login(store: Store, pki: Pki, credential: Credential) -> None:
    """Keep a chain as the gatekeeper does."""
    chain = verify_chain(credential.ders, pki.trust, None, NOW)
    facts = facts_of(chain)
    with store.transaction() as tx:
        chains.put(tx, chain.thumbprint_b64url, chain.ders, chain.identity, facts.not_after, SECONDS)


def _body() -> bytes:
    empty = len(encode(SubmitJobs(descriptions=("",))))
    return encode(SubmitJobs(descriptions=("x" * (BODY - empty),)))


def _proxies(pki: Pki, depth: int, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None) -> Credential:
    credential = pki.user
    for level in range(depth):
        own = key if level == depth - 1 else (new_key(rsa_bits=2048) if key is not None else None)
        credential = create_proxy(
            credential.ders, credential.key, lifetime=dt.timedelta(hours=1), limited=False, now=NOW, key=own
        )
    return credential


def _timed(cases: Sequence[Case], rounds: int) -> list[Cost]:
    """Let the cases take turns; the first one is what the others are compared with."""
    counts = []
    for case in cases:
        begin = time.perf_counter()
        case.run()
        counts.append(max(1, int(SLICE / (time.perf_counter() - begin))))
    slices: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, count, times in zip(cases, counts, slices, strict=True):
            run = case.run
            begin = time.perf_counter()
            for _ in range(count):
                run()
            times.append((time.perf_counter() - begin) / count)
    return [
        Cost(
            case.name,
            statistics.median(times) * 1e6,
            statistics.median(one / bare for one, bare in zip(times, slices[0], strict=True)),
            case.goal,
        )
        for case, times in zip(cases, slices, strict=True)
    ]


def table(costs: Sequence[Cost]) -> tuple[str, list[str], list[list[str]]]:
    """Title, head and lines, for whoever prints tables."""
    lines = [
        [cost.name, f"{cost.micros:.0f}", f"{cost.ratio:.2f}", "" if cost.goal is None else f"< {cost.goal:.2f}"]
        for cost in costs
    ]
    return f"Verify per message ({BODY} B body)", ["", "µs", "× bare ECDSA", "goal"], lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_verify", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures in a second or two")
    costs = measure(quick=parser.parse_args(arguments).quick)
    title, head, lines = table(costs)
    sys.stdout.write(title + "\n")
    for line in [head, *lines]:
        sys.stdout.write(f"{line[0]:<60}{line[1]:>8}{line[2]:>14}{line[3]:>10}\n")
    return 1 if any(cost.goal is not None and cost.ratio >= cost.goal for cost in costs) else 0


if __name__ == "__main__":
    sys.exit(main())
