"""The registry against a brute-force reference: what follows from claims, and what a VO's source may change."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from consumers.domain.registry import DEFAULTS, OPERATOR, SEED, Book, Claim, Claims, Draft, replace_source, said
from consumers.domain.registry_changes import operate
from consumers.domain.scim import slash_form
from consumers.domain.synchronization import SourceMapping, SourceUser, plan
from schemas.entries import AnyEntry, EntryKey, GroupEntry, MemberEntry, SiteEntry, UserEntry
from schemas.identity import format_dn
from schemas.messages.registrar import EntryChange, Operation

SOURCES = (OPERATOR, SEED, "sync:a", "sync:b")
DNS = tuple(f"/CN=u{number}" for number in range(4))
GROUPS = {"plain": "/vo", "also": "/vo", "prod": "/vo/Role=prod", "admin": "/vo/Role=admin", "none": ""}
POWER = {"admin": ("Operator",)}

maybe = st.none() | st.booleans()
users = st.builds(UserEntry, dn=st.sampled_from(DNS), suspended=maybe, nickname=st.none() | st.sampled_from("xy"))
members = st.builds(MemberEntry, dn=st.sampled_from(DNS), group=st.sampled_from(list(GROUPS)), place=st.integers(0, 3))
sites = st.builds(SiteEntry, name=st.sampled_from("ST"), usable=maybe)
entries = st.one_of(users, members, sites)
claims = st.builds(Claim, st.sampled_from(SOURCES), st.booleans(), entries)
bars = st.builds(
    lambda dn, group: Claim(OPERATOR, False, MemberEntry(dn=dn, group=group, barred=True)),
    st.sampled_from(DNS),
    st.sampled_from(list(GROUPS)),
)
GROUP_CLAIMS = [
    Claim(SEED, True, GroupEntry(name=name, fqan=fqan, properties=POWER.get(name, ("NormalUser",))))
    for name, fqan in GROUPS.items()
]


def book_of(some: list[Claim]) -> Book:
    found: dict[EntryKey, dict[str, Claim]] = {}
    for claim in [*GROUP_CLAIMS, *some]:
        found.setdefault(claim.entry.key, {})[claim.source] = claim
    return Book(found, 1)


books = st.lists(claims | bars, max_size=25).map(book_of)


def naive(claims_of: Mapping[EntryKey, Claims]) -> dict[EntryKey, AnyEntry]:
    """What should follow, told in the plainest way."""
    found: dict[EntryKey, AnyEntry] = {}
    for key, some in claims_of.items():
        if not any(one.own for one in some.values()):
            continue
        values = dict(DEFAULTS[type(next(iter(some.values())).entry)])
        for source in ("sync:b", "sync:a", SEED, OPERATOR):
            if source in some:
                values |= said(some[source].entry)
        if key[0] == "user":
            saying = [s for s in ("sync:b", "sync:a", SEED, OPERATOR) if s in some and some[s].entry.suspended]  # type: ignore[union-attr]  # users
            reasons = [some[source].entry.reason or "" for source in saying]  # type: ignore[union-attr]  # users
            values["suspended"], values["reason"] = bool(saying), reasons[-1] if reasons else ""
        if key[0] == "site" and values["usable"]:
            values["reason"] = ""
        if values.get("barred"):
            continue
        found[key] = type(next(iter(some.values())).entry)(**values)  # type: ignore[arg-type]  # as told
    return {
        key: entry
        for key, entry in found.items()
        if key[0] != "member" or (("user", key[1], "") in found and ("group", key[2], "") in found)
    }


@given(books)
def test_what_follows_is_what_should(book: Book) -> None:
    assert book.entries == naive(book.claims)


@given(books, st.lists(claims, max_size=10), st.sampled_from(SOURCES))
def test_a_draft_tells_what_the_new_book_is(book: Book, some: list[Claim], source: str) -> None:
    draft = Draft(book)
    mine = [Claim(source, claim.own, claim.entry) for claim in some]
    replace_source(draft, source, mine, ("user", "member", "site"))
    after = draft.result(2)
    assert after.entries == naive(after.claims)
    changed = {
        key: (book.entries.get(key), after.entries.get(key))
        for key in book.entries.keys() | after.entries.keys()
        if book.entries.get(key) != after.entries.get(key)
    }
    told = {(one.after or one.before).key: (one.before, one.after) for one in draft.differences()}  # type: ignore[union-attr]  # one is there
    assert told == changed


@given(books, st.lists(claims, max_size=10), st.sampled_from(SOURCES))
def test_a_source_touches_only_its_own(book: Book, some: list[Claim], source: str) -> None:
    draft = Draft(book)
    replace_source(draft, source, [Claim(source, claim.own, claim.entry) for claim in some], ("user", "member"))
    puts, drops = draft.written()
    assert {claim.source for claim in puts} | {of for _, of in drops} <= {source}


source_users = st.lists(
    st.builds(
        SourceUser,
        dn=st.sampled_from((*DNS, "no dn")),
        suspended=st.booleans(),
        fqans=st.lists(
            st.sampled_from(["/vo", "/vo/Role=NULL/Capability=NULL", "/vo/Role=prod", "/vo/Role=admin", "/other", "x"]),
            max_size=4,
        ).map(tuple),
    ),
    max_size=6,
)
mappings = st.builds(
    SourceMapping, st.just("a"), st.sampled_from([(), ("plain",), ("prod", "admin"), ("absent",)]), st.just(1.0)
)


@given(books, source_users, mappings)
def test_a_source_is_mapped_as_brute_force_does(
    book: Book, said_there: list[SourceUser], mapping: SourceMapping
) -> None:
    found = plan(book, said_there, mapping)
    fed = mapping.groups or [name for name in GROUPS if name not in POWER]
    expected: set[tuple[str, str]] = set()
    suspended = {user.dn for user in said_there if user.suspended}
    for user in said_there:
        for name in fed:
            known = {fqan.partition("/Role=NULL")[0] for fqan in user.fqans}
            if user.dn in DNS and GROUPS.get(name) in known and GROUPS[name]:
                expected.add((user.dn, name))
    after = found.draft.result(2)
    mine = {key: claim["sync:a"] for key, claim in after.claims.items() if "sync:a" in claim and key[0] != "site"}
    assert {key[1:] for key in mine if key[0] == "member"} == expected
    assert {key[1] for key, claim in mine.items() if key[0] == "user" and claim.own} == {dn for dn, _ in expected}
    assert {key[1] for key, claim in mine.items() if key[0] == "user" and claim.entry.suspended} == suspended & set(DNS)  # type: ignore[union-attr]  # users
    for dn in suspended & set(DNS):
        entry = after.entries.get(("user", dn, ""))
        assert entry is None or entry.suspended  # type: ignore[union-attr]  # a user
    again = plan(after, said_there, mapping)
    assert again.draft.differences() == []
    assert again.draft.written() == ([], [])


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_mass_removal_is_refused(had: int, left: int, max_loss: float) -> None:
    left = min(had, left)
    everybody = [SourceUser(dn=f"/CN=m{number}", fqans=("/vo",)) for number in range(had)]
    mapping = SourceMapping("a", ("plain",), max_loss)
    book = plan(book_of([]), everybody, mapping).draft.result(1)
    refused = plan(book, everybody[:left], mapping).refused
    gone = had - left
    assert bool(refused) == ((gone == had and had > 1) or gone > max(5, int(max_loss * had)))
    suspended = [
        SourceUser(dn=user.dn, fqans=user.fqans, suspended=number >= left) for number, user in enumerate(everybody)
    ]
    assert bool(plan(book, suspended, mapping).refused) == bool(refused)


operations = st.builds(EntryChange, operation=st.sampled_from(Operation), entry=entries)


@given(books, st.lists(operations, max_size=8))
def test_operators_touch_only_their_own_and_undo_by_reset(book: Book, some: list[EntryChange]) -> None:
    draft = Draft(book)
    for change in some:
        operate(draft, change, "because")
    puts, drops = draft.written()
    assert {claim.source for claim in puts} | {of for _, of in drops} <= {OPERATOR}
    after = draft.result(2)
    assert after.entries == naive(after.claims)


TYPES = {NameOID.COMMON_NAME: "CN", NameOID.ORGANIZATION_NAME: "O", NameOID.DOMAIN_COMPONENT: "DC"}
attributes = st.tuples(
    st.sampled_from(list(TYPES)), st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=12)
)


@given(st.lists(st.lists(attributes, min_size=1, max_size=1), min_size=1, max_size=4))
def test_subjects_as_iam_writes_them_are_the_same_names(rdns: list[list[tuple[x509.ObjectIdentifier, str]]]) -> None:
    name = x509.Name([x509.RelativeDistinguishedName([x509.NameAttribute(*pair) for pair in rdn]) for rdn in rdns])
    assert slash_form(name.rfc4514_string()) == format_dn([[(TYPES[oid], value) for oid, value in rdn] for rdn in rdns])


@given(st.text(max_size=200))
def test_whatever_a_subject_is_it_is_a_text(text: str) -> None:
    assert isinstance(slash_form(text), str)
