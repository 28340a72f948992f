"""What a rule says to whom it hits, and which rules can never do anything."""

from __future__ import annotations

import pytest

from broker.authorization import (
    Door,
    Principal,
    Property,
    door_for,
    may_read_events,
    may_run_payload,
    may_send_by,
    payload_rules,
    why_not,
    why_void,
    writable_doors,
)
from broker.publisher import request
from broker.refusal import RefusalError
from broker.rules import denial
from schemas.access import AccessRule, Effect
from schemas.messages.admin import QueryDead

ADA = "/O=Test/CN=Ada"


def allow(who: str, what: str, **more: str) -> AccessRule:
    return AccessRule(name=more.pop("name", "gift"), effect=Effect.ALLOW, who=who, what=what, **more)


def deny(who: str, what: str, **more: str) -> AccessRule:
    return AccessRule(name=more.pop("name", "ban"), effect=Effect.DENY, who=who, what=what, **more)


def ada(*rules: AccessRule, properties: tuple[str, ...] = (Property.NORMAL_USER,), limited: bool = False) -> Principal:
    return Principal(ADA, "users", frozenset(properties), limited=limited, rules=rules)


def test_a_refusal_says_what_why_by_which_rule_and_what_to_do():
    told = why_not(ada(deny(f"dn:{ADA}", "job.submit.v1", reason="too many lost files")), "job.submit.v1")
    assert told == (
        "job.submit.v1 is forbidden by the rule 'ban': too many lost files; "
        "only operators can lift it: name the rule to them"
    )


def test_a_denial_wins_over_property_and_grant():
    rules = (allow("*", "job.kill.v1"), deny("group:users", "job.kill.v1"), allow(f"dn:{ADA}", "job.kill.v1"))
    assert why_not(ada(*rules), "job.kill.v1")
    assert why_not(ada(rules[0]), "job.kill.v1") is None


def test_of_several_denials_the_first_by_name_is_told():
    some = [deny("*", "*", name=name) for name in ("c", "a", "b")]
    found = denial(some, "job.kill.v1")
    assert found is not None
    assert found.name == "a"


def test_a_grant_gives_an_operators_question_to_a_user_by_the_operators_door():
    given = ada(allow(f"dn:{ADA}", "dead.query.v1"))
    assert why_not(given, "dead.query.v1") is None
    assert may_send_by(given, Door.ADMIN, "dead.query.v1")
    assert not may_send_by(given, Door.ADMIN, "dead.replay.v1")
    assert writable_doors(given) == {Door.USERS, Door.ADMIN}
    assert door_for(given.properties, "dead.query.v1", "users", given.rules) is Door.ADMIN
    assert request(QueryDead(), given.properties, "users", given.rules).exchange == Door.ADMIN
    with pytest.raises(RefusalError):
        request(QueryDead(), given.properties, "users")


def test_a_grant_lifts_no_demand_for_a_full_proxy():
    given = ada(allow("*", "dead.replay.v1"), limited=True)
    assert "full proxy" in str(why_not(given, "dead.replay.v1"))


def test_a_grant_makes_no_pilot_of_a_user_and_no_user_of_a_pilot():
    assert why_not(ada(allow("*", "match.request.v1")), "match.request.v1")
    pilot = ada(allow("*", "job.submit.v1"), properties=(Property.GENERIC_PILOT,))
    assert why_not(pilot, "job.submit.v1")
    assert writable_doors(pilot) == {Door.PILOTS}


def test_a_grant_of_everything_grants_nothing():
    assert why_not(ada(allow("*", "*")), "dead.query.v1")


def test_a_rule_for_a_site_is_about_payloads_only():
    rules = (deny(f"dn:{ADA}", "*", site="Site.A"),)
    assert why_not(ada(*rules), "job.submit.v1") is None
    assert may_run_payload(ada(), "Site.A", rules)
    assert may_run_payload(ada(), "Site.B", rules) is None


def test_payloads_may_run_everywhere_but_for_denials():
    rules = (
        deny("group:users", "payload.run", site="Site.A", reason="no room for users"),
        deny("property:Operator", "payload.run"),
        deny("*", "job.submit.v1"),
        allow("*", "payload.run"),
    )
    assert may_run_payload(ada(), "Site.B", rules) is None
    told = may_run_payload(ada(), "Site.A", rules)
    assert told is not None
    assert told.startswith("payload.run at Site.A is forbidden by the rule 'ban': no room for users")
    assert may_run_payload(ada(properties=(Property.OPERATOR,)), "Site.B", rules)
    assert len(payload_rules(rules)) == 2


def test_the_stream_of_events():
    assert not may_read_events(ada())
    assert may_read_events(ada(allow("*", "events.read")))
    assert may_read_events(ada(properties=(Property.JOB_MONITOR,)))
    assert not may_read_events(ada(deny("*", "events.read"), properties=(Property.JOB_MONITOR,)))
    assert not may_read_events(Principal("/CN=matcher", service="matcher"))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (deny("*", "*"), None),
        (deny(f"dn:{ADA}", "job.submit.v1"), None),
        (deny("*", "payload.run", site="Site.A"), None),
        (deny("*", "*", site="Site.A"), None),
        (allow("property:Operator", "job.kill.v1"), None),
        (deny("ada", "*"), "names nobody"),
        (deny("dn:", "*"), "names nobody"),
        (deny("property:Wizard", "*"), "no property"),
        (allow("*", "*"), "must name"),
        (deny("*", "job.submit"), "no message"),
        (allow("*", "match.response.v1"), "only services"),
        (allow("*", "payload.run"), "everybody may"),
        (deny("*", "job.submit.v1", site="Site.A"), "at a site"),
    ],
)
def test_rules_that_can_never_act_are_found(rule, why):
    found = why_void(rule)
    assert (found is None) if why is None else (why in str(found))
