"""Who is who: chains and sessions known from logins, the registry, delegations and proxies."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Index, LargeBinary, PrimaryKeyConstraint, Table

from .base import Encoded, metadata, number, real, serial, text

chains = Table(
    "chains",
    metadata,
    text("thumbprint", key=True),
    Column("ders", LargeBinary, nullable=False),
    text("identity"),
    real("not_after"),
    real("seen"),
    Index(None, "identity"),
    comment="Certificate chains by the thumbprint of the signing certificate; known only from logins.",
)

sessions = Table(
    "sessions",
    metadata,
    text("client", key=True),
    text("identity"),
    text("grp"),
    text("thumbprint"),
    text("kind"),
    real("created"),
    real("seen"),
    Index(None, "identity"),
    comment="Logged-in clients (a client id is also the broker user and names the reply queue).",
)

users = Table(
    "users",
    metadata,
    text("dn", key=True),
    text("nickname"),
    Column("suspended", Boolean, nullable=False),
    text("mail", null=True),
    text("reason", null=True),
    comment="Registry: people and pilots by canonical DN.",
)

groups = Table(
    "vo_groups",
    metadata,
    text("name", key=True),
    text("fqan"),
    Column("properties", Encoded, nullable=False),
    Column("share", Double, nullable=False),
    Column("background", Boolean, nullable=False),
    # Added by 0002: null means no.
    Column("voms_required", Boolean, nullable=True),
    comment="Registry: our name for a VO group or role, with its rights and its share.",
)

memberships = Table(
    "memberships",
    metadata,
    text("dn"),
    text("grp"),
    number("place"),
    # Added by 0003: null means 1.
    Column("share", Double, nullable=True),
    PrimaryKeyConstraint("dn", "grp"),
    comment="Registry: who may act for which group; place 0 is the group that is taken if none is named.",
)

services = Table(
    "services",
    metadata,
    text("dn", key=True),
    text("name"),
    Column("sends", Encoded, nullable=False),
    comment="Registry: services and the message types that each may send.",
)

sites = Table(
    "sites",
    metadata,
    text("name", key=True),
    Column("usable", Boolean, nullable=False),
    text("reason"),
    comment="Registry: sites; one that is not usable gets no match.",
)

storage_elements = Table(
    "storage_elements",
    metadata,
    text("name", key=True),
    Column("sites", Encoded, nullable=False),
    comment="Registry: storage elements and the sites that are near.",
)

computing_elements = Table(
    "computing_elements",
    metadata,
    text("name", key=True),
    text("site"),
    text("type"),
    text("address"),
    Column("queues", Encoded, nullable=False),
    comment="Registry: computing elements with their queues.",
)

access_rules = Table(
    "access_rules",
    metadata,
    text("name", key=True),
    text("effect"),
    text("who"),
    text("what"),
    text("site"),
    text("reason"),
    comment="Registry: exceptions from the authorization table.",
)

limits = Table(
    "limits",
    metadata,
    text("who"),
    text("measure"),
    number("value"),
    PrimaryKeyConstraint("who", "measure"),
    comment="Registry: limits that differ from the built-in ones.",
)

match_limits = Table(
    "match_limits",
    metadata,
    text("scope", key=True),
    number("running", null=True),
    real("delay_seconds", null=True),
    text("reason"),
    comment="Registry: how many jobs of a scope may run at once, and how long after each other they start.",
)

registry_claims = Table(
    "registry_claims",
    metadata,
    text("kind"),
    text("name"),
    text("scope"),
    text("source"),
    Column("own", Boolean, nullable=False),
    Column("content", Encoded, nullable=False),
    real("time"),
    PrimaryKeyConstraint("kind", "name", "scope", "source"),
    Index(None, "source"),
    comment="Registry: what each source says about each entry. The tables of entries hold what follows from it.",
)

registry_history = Table(
    "registry_history",
    metadata,
    serial(),
    real("time"),
    text("kind"),
    text("name"),
    text("scope"),
    text("source"),
    text("actor"),
    text("reason"),
    Column("before", Encoded, nullable=True),
    Column("after", Encoded, nullable=True),
    Index(None, "kind", "name"),
    comment="Registry: every change of every entry, for ever.",
)

job_blocks = Table(
    "job_blocks",
    metadata,
    serial(),
    text("identity"),
    text("grp"),
    text("policy"),
    text("cause"),
    number("after"),
    real("created"),
    comment="Owners who were blocked, and whose jobs are still to be dealt with.",
)

delegations = Table(
    "delegations",
    metadata,
    text("id", key=True),
    text("dn"),
    text("grp"),
    Column("key", LargeBinary, nullable=False),
    real("created"),
    real("expires"),
    # Added by 0002: null means for the account.
    text("purpose", null=True),
    Index(None, "expires"),
    comment="Certificate requests under way; the key is encrypted by the proxy manager.",
)

proxies = Table(
    "proxies",
    metadata,
    text("dn"),
    text("grp"),
    text("chain"),
    Column("key", LargeBinary, nullable=False),
    real("not_after"),
    real("stored"),
    PrimaryKeyConstraint("dn", "grp"),
    comment="The proxy repository: one per (DN, group); the key is encrypted by the proxy manager.",
)

submission_proxies = Table(
    "submission_proxies",
    metadata,
    text("id", key=True),
    text("dn"),
    text("grp"),
    text("chain"),
    Column("key", LargeBinary, nullable=False),
    real("not_after"),
    real("stored"),
    number("submission", null=True),
    real("warned", null=True),
    Index(None, "submission"),
    comment="Longer proxies, each for the jobs of one submission only, and gone with the last of them.",
)

proxy_care = Table(
    "proxy_care",
    metadata,
    text("dn"),
    text("grp"),
    real("idle_since", null=True),
    real("warned", null=True),
    real("not_before", null=True),
    number("failures"),
    text("trouble"),
    PrimaryKeyConstraint("dn", "grp"),
    comment="What the proxy manager keeps in mind of a stored proxy: warnings, idleness, tries at renewal.",
)

proxy_issues = Table(
    "proxy_issues",
    metadata,
    serial(),
    text("client"),
    text("owner"),
    text("grp"),
    real("not_after"),
    number("job"),
    number("attempt"),
    real("time"),
    # Added by 0002.
    text("thumbprint", null=True),
    Index(None, "client", "owner", "grp"),
    Index(None, "owner", "time"),
    Index(None, "thumbprint"),
    comment="Limited proxies given to pilots.",
)
