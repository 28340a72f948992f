"""One table: every message type has its row, and nothing is allowed that no row allows."""

from __future__ import annotations

import pytest

import schemas.messages  # noqa: F401 - fills the register
from broker.authorization import (
    SERVICES,
    TABLE,
    Door,
    Principal,
    Property,
    authorize,
    may_see_job,
    may_send_by,
    may_serve,
    may_touch_job,
    sends,
    why_not,
    writable_doors,
)
from broker.ownership import WHOSE, Whose
from broker.refusal import RefusalError
from schemas.registry import Kind, registered

ALICE = "/O=Test/CN=Alice"
BOB = "/O=Test/CN=Bob"


def member(*properties: str, group: str = "users", limited: bool = False) -> Principal:
    return Principal(ALICE, group, frozenset(properties), limited=limited)


def test_every_message_type_has_a_row_and_every_row_a_type():
    assert set(TABLE) == set(registered())


def test_without_a_row_nobody_may():
    assert why_not(member(*Property), "job.invented.v1")
    assert why_not(Principal("/CN=matcher", service="matcher"), "job.invented.v1")


def test_a_group_without_properties_may_nothing():
    assert not [name for name in TABLE if why_not(member(), name) is None]
    assert writable_doors(member()) == frozenset()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_replies_and_events_are_for_services_only(name):
    kind = registered()[name].kind
    everything = member(*Property)
    if kind in {Kind.REPLY, Kind.EVENT}:
        assert why_not(everything, name)
        assert TABLE[name].services <= SERVICES
        assert TABLE[name].services
    elif name != "message.readmit.v1":
        assert TABLE[name].properties
        assert why_not(everything, name) is None
        assert all(why_not(Principal("/CN=x", service=service), name) for service in SERVICES)


def test_a_service_sends_its_own_messages_only():
    assert "match.response.v1" in sends("matcher")
    assert "match.response.v1" not in sends("job-manager")
    with pytest.raises(RefusalError):
        authorize(Principal("/CN=x", service="job-state"), "proxy.issued.v1")


def test_a_pilot_is_no_user_and_a_user_no_pilot():
    pilot, user = member(Property.GENERIC_PILOT), member(Property.NORMAL_USER)
    assert writable_doors(pilot) == {Door.PILOTS}
    assert writable_doors(user) == {Door.USERS}
    assert not may_send_by(user, Door.PILOTS, "sandbox.put.v1")
    assert not may_send_by(pilot, Door.USERS, "sandbox.put.v1")
    assert why_not(pilot, "job.submit.v1")
    assert why_not(user, "job.report.v1")


def test_a_private_pilot_is_a_pilot_with_its_owners_full_proxy_only():
    private = member(Property.PRIVATE_PILOT)
    assert writable_doors(private) == {Door.PILOTS}
    assert not may_send_by(private, Door.USERS, "sandbox.put.v1")
    assert why_not(private, "job.submit.v1")
    assert why_not(private, "pilot.renew.v1")  # enrolled pilots' business
    messages = [name for name, rule in TABLE.items() if Property.PRIVATE_PILOT in rule.properties]
    assert {"match.request.v1", "job.report.v1", "proxy.request.v1", "sandbox.get.v1"} <= set(messages)
    for name in messages:
        assert why_not(private, name) is None
        assert "full proxy" in str(why_not(member(Property.PRIVATE_PILOT, limited=True), name))
        assert why_not(member(Property.GENERIC_PILOT, limited=True), name) is None


def test_a_private_pilot_serves_its_own_identity_and_no_other():
    generic, private = Property.GENERIC_PILOT, Property.PRIVATE_PILOT
    for properties in ({private}, {private, generic}, {private, *Property}):
        assert may_serve(member(*properties), ALICE)
        assert not may_serve(member(*properties), BOB)
    assert may_serve(member(generic), BOB)
    assert not may_serve(member(Property.NORMAL_USER), ALICE)


def test_limited_proxies_submit_delegate_and_command_nothing():
    """They lie on worker nodes: whoever takes one there must not rule over its owner's jobs everywhere."""
    commands = ("job.kill.v1", "job.delete.v1", "job.reschedule.v1")
    for name in ("job.submit.v1", "delegation.request.v1", "delegation.put.v1", "dead.replay.v1", *commands):
        everything = set(Property) - {Property.PRIVATE_PILOT}
        assert why_not(member(*everything), name) is None
        assert "limited" in str(why_not(member(*everything, limited=True), name))


@pytest.mark.parametrize(
    ("properties", "group", "owner", "owner_group", "touch", "see"),
    [
        ({Property.NORMAL_USER}, "users", ALICE, "users", True, True),
        ({Property.NORMAL_USER}, "users", ALICE, "others", False, True),
        ({Property.NORMAL_USER}, "users", BOB, "users", False, False),
        ({Property.JOB_SHARING}, "users", BOB, "users", True, True),
        ({Property.JOB_SHARING}, "users", BOB, "others", False, False),
        ({Property.JOB_ADMINISTRATOR}, "admins", BOB, "others", True, True),
        ({Property.JOB_MONITOR}, "users", BOB, "others", False, True),
        ({Property.GENERIC_PILOT}, "pilots", BOB, "others", False, False),
        (set(), "users", ALICE, "users", False, True),
    ],
)
def test_ownership(properties, group, owner, owner_group, touch, see):
    principal = member(*properties, group=group)
    assert may_touch_job(principal, owner, owner_group) is touch
    assert may_see_job(principal, owner, owner_group) is see


def test_every_message_of_people_says_what_it_may_be_about():
    assert set(WHOSE) == {name for name, rule in TABLE.items() if rule.properties}


def test_what_may_be_about_jobs_of_others_is_for_whom_the_job_rules_are():
    """Ownership of jobs knows these properties only; a message about jobs for anybody else would be about none."""
    job_properties = {Property.NORMAL_USER, Property.JOB_SHARING, Property.JOB_ADMINISTRATOR}
    seers = job_properties | {Property.JOB_MONITOR, Property.OPERATOR}
    for name, whose in WHOSE.items():
        if whose is Whose.ACT:
            assert TABLE[name].properties <= job_properties
        if whose is Whose.SEE:
            assert TABLE[name].properties <= seers
        if whose in {Whose.LEASE, Whose.SELF}:
            assert TABLE[name].properties <= {Property.GENERIC_PILOT, Property.PRIVATE_PILOT}
