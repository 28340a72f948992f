"""Operators' rules beside the table: whatever they are, they only take away or give what may be given."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from broker.authorization import (
    TABLE,
    Door,
    Principal,
    Property,
    may_read_events,
    may_run_payload,
    may_send_by,
    why_not,
    writable_doors,
)
from broker.rules import OPERATIONS
from schemas.access import AccessRule, Effect

ADA, BOB = "/O=Test/CN=Ada", "/O=Test/CN=Bob"
GROUPS = ("users", "pilots")
SITES = ("Site.A", "Site.B")
WHATS = (*TABLE, *OPERATIONS, "*", "job.invented.v1", "")
CLIENT_DOORS = (Door.USERS, Door.PILOTS, Door.ADMIN)

whos = st.sampled_from(
    ["*", "", "dn:", f"dn:{ADA}", f"dn:{BOB}", "group:", *(f"group:{name}" for name in GROUPS), "property:"]
    + [f"property:{name.value}" for name in Property]
)


@st.composite
def rules(draw: st.DrawFn, effect: Effect | None = None) -> AccessRule:
    return AccessRule(
        name=draw(st.text("abc", min_size=1, max_size=3)),
        effect=effect or draw(st.sampled_from(Effect)),
        who=draw(whos),
        what=draw(st.sampled_from(WHATS)),
        site=draw(st.sampled_from(["*", "*", *SITES])),
    )


sets = st.lists(rules(), max_size=8)
people = st.builds(
    lambda properties, group, limited: Principal(ADA, group, frozenset(properties), limited=limited),
    st.sets(st.sampled_from(Property)),
    st.sampled_from(GROUPS),
    st.booleans(),
)


def ruled(who: Principal, some: list[AccessRule]) -> Principal:
    from broker.rules import select

    chosen = select(some, who.identity, who.group, who.properties)
    return Principal(who.identity, who.group, who.properties, limited=who.limited, rules=chosen)


def rights(who: Principal, some: list[AccessRule]) -> set[tuple[str, ...]]:
    """All that somebody may do under some rules."""
    principal = ruled(who, some)
    may = {("send", name) for name in TABLE if why_not(principal, name) is None}
    may |= {("by", door, name) for door in Door for name in TABLE if may_send_by(principal, door, name)}
    may |= {("door", door) for door in writable_doors(principal)}
    may |= {("run", site) for site in SITES if may_run_payload(principal, site, some) is None}
    return may | ({("read",)} if may_read_events(principal) else set())


@given(people, sets, rules(Effect.DENY))
def test_a_denial_never_adds_a_right(who: Principal, some: list[AccessRule], more: AccessRule) -> None:
    assert rights(who, [*some, more]) <= rights(who, some)


@given(people, sets, rules(Effect.ALLOW))
def test_a_grant_never_removes_one(who: Principal, some: list[AccessRule], more: AccessRule) -> None:
    assert rights(who, some) <= rights(who, [*some, more])


@given(people, sets, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(who: Principal, some: list[AccessRule], order: random.Random) -> None:
    other = list(some)
    order.shuffle(other)
    assert rights(who, other) == rights(who, some)
    for name in TABLE:
        first, second = why_not(ruled(who, some), name), why_not(ruled(who, other), name)
        assert (first is None) == (second is None)


@given(people, st.lists(rules(Effect.ALLOW), max_size=12))
def test_grants_open_no_other_door_and_nothing_of_the_services(who: Principal, some: list[AccessRule]) -> None:
    principal = ruled(who, some)
    is_pilot = bool(who.properties & {Property.GENERIC_PILOT, Property.PRIVATE_PILOT})
    for name, row in TABLE.items():
        if not row.properties:
            assert why_not(principal, name) is not None
        if row.full_proxy and who.limited:
            assert why_not(principal, name) is not None
        for door in Door:
            if may_send_by(principal, door, name):
                assert door in row.doors
                assert door in CLIENT_DOORS
                assert (door is Door.PILOTS) <= is_pilot
        if why_not(principal, name) is None:
            assert any(may_send_by(principal, door, name) for door in row.doors)


@given(people, sets, st.text(max_size=20))
def test_what_has_no_row_is_denied(who: Principal, some: list[AccessRule], name: str) -> None:
    if name not in TABLE:
        assert why_not(ruled(who, some), name) is not None


@given(people, sets)
def test_nobody_without_properties_gets_more_than_grants_name(who: Principal, some: list[AccessRule]) -> None:
    bare = Principal(who.identity, who.group, frozenset(), limited=who.limited)
    named = {rule.what for rule in some if rule.effect is Effect.ALLOW}
    assert {name for what, *rest in rights(bare, some) if what == "send" for name in rest} <= named


@given(sets)
def test_services_stay_as_they_are(some: list[AccessRule]) -> None:
    for name, row in TABLE.items():
        for service in sorted(row.services)[:2]:
            assert why_not(Principal("/CN=x", service=service, rules=tuple(some)), name) is None
