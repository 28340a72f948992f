"""What pilots get: no longer than the job needs, with no other group's role, for jobs that they hold; and alarms."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.fernet import Fernet

from broker.authorization import Property
from broker.identity import (
    Credential,
    IdentityError,
    claimed_fqans,
    create_proxy,
    key_pem,
    make_csr,
    new_key,
    parse_certificate,
    sign_csr,
    split_chain,
    thumbprint,
)
from consumers.directory import Directory
from consumers.issuing import REFUSED_PER_MINUTE
from consumers.proxy_manager import ProxyManager
from consumers.settings import ProxySettings
from consumers.store import Store, audit, proxies, registry, sessions, submission_proxies, submissions
from consumers.store.proxies import Issue, Proxy
from consumers.store.submission_proxies import SubmissionProxy
from consumers.store.submissions import NewSubmission
from consumers.vault import Vault
from schemas.job import JobStatus as S
from schemas.messages.event import ProxyWanted
from schemas.messages.proxies import ProxyAlarm, RequestProxy
from schemas.messages.service import DelegationCsr, DelegationStored, ProxyIssued, Refused
from schemas.messages.user import PutDelegation, RequestDelegation
from schemas.registry import Message
from tests.integration.consumers.conftest import REGISTRY
from tests.support import pki
from tests.support.attribute_certificates import make_ac, make_voms, with_acs
from tests.support.jobs import put_job
from tests.support.messages import Heard, Sender, admitted, description, pilot, private_pilot, service, tell

pytestmark = pytest.mark.integration

REAL = Sender(pki.USER_DN)
PILOT, OTHER = pilot("1"), pilot("2")
HOUR = 3600.0
VAULT = Vault([Fernet.generate_key()])


@pytest.fixture
def manager(directory: Directory) -> ProxyManager:
    return ProxyManager(directory, VAULT)


def full_proxy(authority: pki.Pki, hours: float = 12.0) -> Credential:
    his = authority.user
    return create_proxy(
        his.ders, his.key, lifetime=dt.timedelta(hours=hours), limited=False, now=dt.datetime.now(dt.UTC)
    )


def keep(store: Store, credential: Credential, sender: Sender = REAL, *, hours: float = 12.0) -> None:
    now = time.time()
    sealed = VAULT.encrypt(key_pem(credential.key), proxies.place_of(sender.identity, sender.group))
    with store.transaction() as tx:
        chain = credential.chain_pem.decode()
        proxies.put(tx, Proxy(sender.identity, sender.group, chain, sealed, now + hours * HOUR, now))


def keep_own(store: Store, credential: Credential, submission: int) -> None:
    now = time.time()
    sealed = VAULT.encrypt(key_pem(credential.key), submission_proxies.place_of("own"))
    with store.transaction() as tx:
        chain = credential.chain_pem.decode()
        row = SubmissionProxy("own", REAL.identity, REAL.group, chain, sealed, now + 72 * HOUR, now, submission)
        submission_proxies.put(tx, row)


def running(store: Store, job: int = 1, *, cpu_time: int = 86_400, **fields: object) -> None:
    values: dict[str, object] = {"attempt": 1, "pilot": PILOT.cli, "lease_until": time.time() + 20, **fields}
    details = {"description": description(CPUTime=cpu_time)}
    put_job(store, job, REAL, **{"status": S.RUNNING, **values}, details=details)  # type: ignore[arg-type]
    with store.transaction() as tx:
        for one in (PILOT, OTHER):
            sessions.put(tx, one.cli, one.identity, one.group, "t", "pilot", time.time())


def ask(store: Store, manager: ProxyManager, job: int = 1, attempt: int = 1, sender: Sender = PILOT) -> Message:
    message = RequestProxy(job=job, attempt=attempt, csr=make_csr(new_key()))
    (answer,) = tell(store, manager, [admitted(message, sender)]).to(sender)
    if isinstance(answer, ProxyIssued):
        assert answer.csr_sha256 == hashlib.sha256(message.csr).hexdigest()
    return answer


def order(store: Store, manager: ProxyManager, job: int = 1) -> Heard:
    csr = make_csr(new_key())
    wanted = ProxyWanted(
        client=PILOT.cli, reply_to=PILOT.cli, job=job, attempt=1, owner=REAL.identity, group=REAL.group, csr=csr
    )
    return tell(store, manager, [admitted(wanted, service("matcher"))])


def issued(message: Message) -> ProxyIssued:
    assert isinstance(message, ProxyIssued)
    assert message.chain, message.reason
    return message


# -- how long -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu_time", "hours"),
    [(100, 1.0), (18_000, 2.0), (100_000, 6.56), (500_000, 12.0)],
    ids=["floor", "need", "more", "ceiling"],
)
def test_as_long_as_the_job_needs(
    store: Store, manager: ProxyManager, authority: pki.Pki, cpu_time: int, hours: float
) -> None:
    keep(store, full_proxy(authority, 14), hours=14)
    running(store, cpu_time=cpu_time)
    for answer in (issued(ask(store, manager)), issued(order(store, manager).to(PILOT)[0])):
        assert answer.not_after - time.time() == pytest.approx(hours * HOUR, abs=60)


def test_never_longer_than_the_stored_one(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    keep(store, full_proxy(authority, 0.5), hours=0.5)
    running(store)
    assert issued(ask(store, manager)).not_after - time.time() < 0.51 * HOUR


def test_bounds_are_settings(store: Store, directory: Directory, authority: pki.Pki) -> None:
    manager = ProxyManager(directory, VAULT, ProxySettings(issue_floor=5, issue_ceiling=10))
    keep(store, full_proxy(authority))
    running(store)
    assert issued(ask(store, manager)).not_after - time.time() < 11


# -- what a running job's pilot asks for ----------------------------------------------------------------------------


def test_a_running_jobs_pilot_gets_another_limited_one(
    store: Store, manager: ProxyManager, directory: Directory, authority: pki.Pki
) -> None:
    keep(store, full_proxy(authority))
    running(store)
    answer = issued(ask(store, manager))
    chain = directory.verify(split_chain(answer.chain))
    assert (chain.identity, chain.limited) == (REAL.identity, True)
    with store.reading() as tx:
        (line,) = audit.query(tx)
    detail = msgspec.json.decode(line.detail)
    assert (line.event, line.identity, line.client) == ("proxy.issued", REAL.identity, PILOT.cli)
    leaf = parse_certificate(split_chain(answer.chain)[0])
    assert detail["thumbprint"] == thumbprint(leaf.der)
    assert int(detail["serial"], 16) == leaf.serial
    assert (detail["job"], detail["attempt"], detail["group"]) == (1, 1, REAL.group)
    assert detail["again"] is True
    assert detail["seconds"] == pytest.approx(answer.not_after - time.time(), abs=5)


@pytest.mark.parametrize(
    ("job", "request_"),
    [
        ({}, {"sender": OTHER}),
        ({}, {"attempt": 2}),
        ({}, {"job": 99}),
        ({"status": S.WAITING}, {}),
        ({"status": S.DONE}, {}),
        ({"status": S.RESCHEDULED}, {}),
    ],
    ids=["another pilot", "stale attempt", "no job", "waiting", "done", "rescheduled"],
)
def test_only_who_holds_the_live_lease(
    store: Store, manager: ProxyManager, authority: pki.Pki, job: dict[str, object], request_: dict[str, object]
) -> None:
    keep(store, full_proxy(authority))
    running(store, **job)  # type: ignore[arg-type]  # any column
    answer = ask(store, manager, **request_)  # type: ignore[arg-type]  # any argument
    assert isinstance(answer, Refused)
    assert (answer.code, answer.type) == ("denied", "proxy.request.v1")
    assert "live lease" in answer.reason
    with store.reading() as tx:
        (line,) = audit.query(tx)
    assert line.event == "proxy.refused"


def test_a_private_pilot_gets_its_owners_proxies_only(store: Store, directory: Directory, authority: pki.Pki) -> None:
    """Even if it held another's lease, which it never gets."""
    keep(store, full_proxy(authority))
    groups = {**REGISTRY["groups"], "vo_private": {"properties": [Property.PRIVATE_PILOT]}}
    mine = replace(private_pilot(), identity=REAL.identity)
    others = private_pilot("bob")
    users = [
        {**one, "groups": [*one["groups"], "vo_private"]} if one["dn"] in {mine.identity, others.identity} else one
        for one in REGISTRY["users"]
    ]
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "groups": groups, "users": users})
        for one in (mine, others):
            sessions.put(tx, one.cli, one.identity, one.group, "t", "pilot", time.time())
    running(store, 1, pilot=mine.cli)
    running(store, 2, pilot=others.cli)
    manager = ProxyManager(directory, VAULT)
    assert issued(ask(store, manager, 1, sender=mine))
    answer = ask(store, manager, 2, sender=others)
    assert isinstance(answer, ProxyIssued)
    assert (answer.chain, answer.reason) == ("", "the pilot may not serve this owner")


def test_no_payload_runs_with_a_proxy_of_a_private_pilots_group(
    store: Store, directory: Directory, authority: pki.Pki
) -> None:
    keep(store, full_proxy(authority))
    groups = {**REGISTRY["groups"], "vo_user": {"fqan": "/vo", "properties": [Property.PRIVATE_PILOT]}}
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "groups": groups})
    running(store)
    answer = ask(store, ProxyManager(directory, VAULT))
    assert isinstance(answer, ProxyIssued)
    assert answer.reason == "no payload runs with a proxy of that group"


def test_the_suspended_get_none(store: Store, directory: Directory, authority: pki.Pki) -> None:
    keep(store, full_proxy(authority))
    running(store)
    with store.transaction() as tx:
        registry.set_suspended(tx, REAL.identity, suspended=True)
    answer = ask(store, ProxyManager(Directory(store, authority.trust), VAULT))
    assert isinstance(answer, ProxyIssued)
    assert not answer.chain
    assert "suspended" in answer.reason


# -- a submission's own ---------------------------------------------------------------------------------------------


def test_a_submissions_own_proxy_serves_its_jobs_and_no_others(
    store: Store, manager: ProxyManager, authority: pki.Pki
) -> None:
    usual, own = full_proxy(authority), full_proxy(authority, 72)
    keep(store, usual)
    keep_own(store, own, submission=7)
    running(store, 1, submission=7)
    running(store, 2, submission=8)
    mine, others = issued(ask(store, manager, 1)), issued(ask(store, manager, 2))
    assert parents(mine) == [own.leaf]
    assert parents(others) == [usual.leaf]
    ordered = issued(order(store, manager, 1).to(PILOT)[0])
    assert parents(ordered) == [usual.leaf], "what other jobs may share is never made of it"
    assert mine.not_after - time.time() < 12.1 * HOUR, "and no pilot gets it for its whole life"


def parents(answer: ProxyIssued) -> list[bytes]:
    return split_chain(answer.chain)[1:2]


def test_a_proxy_for_a_submission_is_delegated_apart(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    (asked,) = tell(store, manager, [admitted(RequestDelegation(purpose="submission"), REAL)]).said
    assert isinstance(asked, DelegationCsr)
    his, now = authority.user, dt.datetime.now(dt.UTC)
    pem = sign_csr(asked.csr, his.ders, his.key, lifetime=dt.timedelta(hours=100), limited=False, now=now)
    put = PutDelegation(delegation=asked.delegation, chain=pem.decode())
    (stored,) = tell(store, manager, [admitted(put, REAL)]).said
    assert isinstance(stored, DelegationStored)
    assert stored.not_after - time.time() > 99 * HOUR
    with store.transaction() as tx:
        assert proxies.until(tx, REAL.identity, REAL.group) is None, "the account's is another matter"
        account = (REAL.identity, REAL.group)
        assert submission_proxies.end_of_unbound(tx, asked.delegation, "/CN=other", REAL.group) is None
        assert submission_proxies.end_of_unbound(tx, asked.delegation, *account) == stored.not_after
        new = NewSubmission(*account, "", "d", 1, b"[]", b"[]", "c", 1.0, 1)
        (row,) = submissions.create(tx, [new])
        assert submission_proxies.bind(tx, asked.delegation, row.id)
        assert not submission_proxies.bind(tx, asked.delegation, row.id + 1), "it serves one submission"
        assert submission_proxies.having(tx, [row.id, row.id + 1]) == {row.id}


@pytest.mark.parametrize(("hours", "fits"), [(167, True), (170, False)])
def test_a_week_at_most(store: Store, manager: ProxyManager, authority: pki.Pki, hours: float, fits: bool) -> None:
    (asked,) = tell(store, manager, [admitted(RequestDelegation(purpose="submission"), REAL)]).said
    assert isinstance(asked, DelegationCsr)
    his, now = authority.user, dt.datetime.now(dt.UTC)
    pem = sign_csr(asked.csr, his.ders, his.key, lifetime=dt.timedelta(hours=hours), limited=False, now=now)
    put = PutDelegation(delegation=asked.delegation, chain=pem.decode())
    (answer,) = tell(store, manager, [admitted(put, REAL)]).said
    assert isinstance(answer, DelegationStored) is fits


# -- roles ----------------------------------------------------------------------------------------------------------


def with_role(authority: pki.Pki, folder: Path, *fqans: str) -> Credential:
    """The user's proxy with these attributes."""
    voms = make_voms(authority, folder / "vomsdir")
    ac = make_ac(voms, vo="vo", fqans=fqans)
    usage = pki.usage(digital_signature=True)
    return pki.proxy(authority.user, extensions=[pki.pci(), usage, with_acs(ac)], end=pki.NOW + 12 * pki.HOUR)


@pytest.fixture
def roles(store: Store) -> None:
    """The pilots' group has an FQAN, too."""
    groups = {**REGISTRY["groups"], "vo_pilot": {"fqan": "/vo/Role=pilot", "properties": [Property.GENERIC_PILOT]}}
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "groups": groups})


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize(
    ("fqans", "why"),
    [
        (("/vo/Role=NULL/Capability=NULL", "/vo/Role=pilot/Capability=NULL"), "pilots' attribute"),
        (("/vo/Role=production",), "another group's"),
        (("/vo", "/vo/analysis"), ""),
    ],
)
def test_what_carries_another_groups_role_serves_no_payload(
    store: Store, authority: pki.Pki, tmp_path: Path, fqans: tuple[str, ...], why: str
) -> None:
    manager = ProxyManager(Directory(store, authority.trust), VAULT)
    credential = with_role(authority, tmp_path, *fqans)
    assert claimed_fqans(credential.ders) == fqans
    (asked,) = tell(store, manager, [admitted(RequestDelegation(), REAL)]).said
    assert isinstance(asked, DelegationCsr)
    now = dt.datetime.now(dt.UTC)
    pem = sign_csr(asked.csr, credential.ders, credential.key, lifetime=dt.timedelta(hours=11), limited=False, now=now)
    put = PutDelegation(delegation=asked.delegation, chain=pem.decode())
    (answer,) = tell(store, manager, [admitted(put, REAL)]).said
    if why:
        assert isinstance(answer, Refused)
        assert why in answer.reason
    else:
        assert isinstance(answer, DelegationStored)
    # Nor is it given out where it was stored before that was known.
    keep(store, credential)
    running(store)
    given = ask(store, manager)
    assert isinstance(given, ProxyIssued)
    assert bool(given.chain) is not bool(why)
    assert why in given.reason


def test_attributes_that_cannot_be_read_are_refused(authority: pki.Pki) -> None:
    usage = pki.usage(digital_signature=True)
    broken = pki.proxy(authority.user, extensions=[pki.pci(), usage, with_acs(b"\x30\x03\x02\x01\x01")])
    with pytest.raises(IdentityError):
        claimed_fqans(broken.ders)


# -- alarms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", ["pilot", "owner"])
def test_unusual_rates_are_told_once(
    store: Store, manager: ProxyManager, authority: pki.Pki, monkeypatch: pytest.MonkeyPatch, about: str
) -> None:
    monkeypatch.setattr(f"consumers.issuing.UNUSUAL_{'FOR_PILOT' if about == 'pilot' else 'OF_OWNER'}", 10)
    now = time.time()
    client = PILOT.cli if about == "pilot" else "another"
    owner = "/CN=another" if about == "pilot" else REAL.identity
    with store.transaction() as tx:
        old = [Issue(client, owner, "g", now, 1, 1, now - 4000) for _ in range(20)]
        recent = [Issue(client, owner, "g", now, 1, 1, now - 100) for _ in range(8)]
        proxies.record_issues(tx, [*old, *recent])
    keep(store, full_proxy(authority))
    running(store)
    alarms: list[ProxyAlarm] = []
    for _ in range(4):
        alarms.extend(one for one in order(store, manager).said if isinstance(one, ProxyAlarm))
    (alarm,) = alarms
    assert (alarm.about, alarm.issues, alarm.seconds) == (about, 10, 3600.0)
    assert (alarm.client, alarm.owner) == ((PILOT.cli, "") if about == "pilot" else ("", REAL.identity))
    with store.reading() as tx:
        assert [line.event for line in audit.query(tx)].count("proxy.unusual-rate") == 1


# -- no key anywhere ------------------------------------------------------------------------------------------------


def test_no_private_key_in_logs_messages_or_errors(
    store: Store,
    manager: ProxyManager,
    authority: pki.Pki,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    credential = full_proxy(authority)
    keep(store, credential)
    running(store)
    with store.transaction() as tx:
        (row,) = proxies.get(tx, [(REAL.identity, REAL.group)]).values()
        damaged = VAULT.encrypt(key_pem(credential.key)[:-30] + b"x" * 30, row.place)
        proxies.put(tx, Proxy(row.dn, row.grp, row.chain, damaged, row.not_after, row.stored))
    answer = ask(store, manager)
    assert isinstance(answer, ProxyIssued)
    assert "cannot read" in answer.reason
    printed = capsys.readouterr()
    said = repr(answer) + caplog.text + printed.out + printed.err
    with store.reading() as tx:
        said += repr(audit.query(tx))
    assert "proxy.key_unreadable" in said
    assert not any(line in said for line in key_pem(credential.key).decode().splitlines()[1:-1])
    assert "PRIVATE" not in said


def test_a_pilot_that_asks_for_ever_gets_nothing_more(
    store: Store, manager: ProxyManager, authority: pki.Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.issuing.MOST_FOR_PILOT", 5)
    keep(store, full_proxy(authority))
    running(store)
    answers = [ask(store, manager) for _ in range(7)]
    assert [isinstance(one, ProxyIssued) for one in answers] == [True] * 5 + [False] * 2
    assert isinstance(answers[-1], Refused)
    assert answers[-1].code == "limit"


def test_a_pilot_that_asks_in_vain_for_ever_fills_no_audit(store: Store, manager: ProxyManager) -> None:
    asked = RequestProxy(job=99, attempt=1, csr=make_csr(new_key()))
    for now in (6000.0, 6060.0):
        tell(store, manager, [admitted(asked, PILOT, now=now) for _ in range(REFUSED_PER_MINUTE + 40)], now)
    with store.reading() as tx:
        lines = [msgspec.json.decode(row.detail) for row in audit.query(tx, event="proxy.refused", limit=1000)]
    assert len(lines) == 2 * REFUSED_PER_MINUTE
    assert [line["unrecorded"] for line in lines if "unrecorded" in line] == [40]
