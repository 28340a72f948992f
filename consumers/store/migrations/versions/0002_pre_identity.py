"""What identity, delegation and authorization need."""

from __future__ import annotations

import json
import time

import sqlalchemy as sa
from alembic import op

revision = "0002_pre"
down_revision = "0001_post"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Each topic adds its own tables and columns in a function of its own."""
    _registry()
    _enrolments()
    _audit_chain()
    _trails()
    _usage()
    _proxies()
    _voms()


def _registry() -> None:
    op.add_column("users", sa.Column("mail", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("reason", sa.Text(), nullable=True))
    op.create_table(
        "computing_elements",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_computing_elements")),
        comment="Registry: computing elements with their queues.",
    )
    op.create_table(
        "access_rules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_access_rules")),
        comment="Registry: exceptions from the authorization table.",
    )
    op.create_table(
        "limits",
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("who", "measure", name=op.f("pk_limits")),
        comment="Registry: limits that differ from the built-in ones.",
    )
    op.create_table(
        "registry_claims",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "scope", "source", name=op.f("pk_registry_claims")),
        comment="Registry: what each source says about each entry. The tables of entries hold what follows from it.",
    )
    op.create_index(op.f("ix_registry_claims_source"), "registry_claims", ["source"], unique=False)
    op.create_table(
        "registry_history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_history")),
        comment="Registry: every change of every entry, for ever.",
    )
    op.create_index(op.f("ix_registry_history_kind_name"), "registry_history", ["kind", "name"], unique=False)
    op.create_table(
        "job_blocks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("after", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_blocks")),
        comment="Owners who were blocked, and whose jobs are still to be dealt with.",
    )
    _claim_what_is_there()


def _claim_what_is_there() -> None:
    """All that 0.1.0 knew came from the seed, but for suspensions and bans, which may be operators'."""
    bind = op.get_bind()
    rows: list[tuple[str, str, str, str, bool, dict[str, object]]] = []
    for dn, nickname, suspended in bind.execute(sa.text("SELECT dn, nickname, suspended FROM users")):
        rows.append(("user", dn, "", "seed", True, {"dn": dn, "nickname": nickname}))
        if suspended:
            rows.append(("user", dn, "", "operator", False, {"dn": dn, "suspended": True}))
    for name, fqan, properties, share, background in bind.execute(
        sa.text("SELECT name, fqan, properties, share, background FROM vo_groups")
    ):
        values = {"name": name, "fqan": fqan, "properties": json.loads(properties), "share": share}
        rows.append(("group", name, "", "seed", True, {**values, "background": bool(background)}))
    for dn, grp, place in bind.execute(sa.text("SELECT dn, grp, place FROM memberships")):
        rows.append(("member", dn, grp, "seed", True, {"dn": dn, "group": grp, "place": place}))
    for dn, name, sends in bind.execute(sa.text("SELECT dn, name, sends FROM services")):
        rows.append(("service", dn, "", "seed", True, {"dn": dn, "name": name, "sends": json.loads(sends)}))
    for name, usable, reason in bind.execute(sa.text("SELECT name, usable, reason FROM sites")):
        rows.append(("site", name, "", "seed", True, {"name": name}))
        if not usable:
            rows.append(("site", name, "", "operator", False, {"name": name, "usable": False, "reason": reason}))
    for name, near in bind.execute(sa.text("SELECT name, sites FROM storage_elements")):
        rows.append(("se", name, "", "seed", True, {"name": name, "sites": json.loads(near)}))
    insert = sa.text(
        "INSERT INTO registry_claims (kind, name, scope, source, own, content, time) "
        "VALUES (:kind, :name, :scope, :source, :own, :content, :time)"
    )
    now = time.time()
    for kind, name, scope, source, own, values in rows:
        content = json.dumps({"kind": kind, **values})
        bind.execute(
            insert,
            {"kind": kind, "name": name, "scope": scope, "source": source, "own": own, "content": content, "time": now},
        )


def _enrolments() -> None:
    pending = sa.text("pilot_key <> '' AND not_after IS NULL")
    op.create_table(
        "enrolments",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("life", sa.Double(), nullable=False),
        sa.Column("used", sa.Double(), nullable=True),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("pilot_key", sa.Text(), nullable=False),
        sa.Column("assertion", sa.Text(), nullable=False),
        sa.Column("ends", sa.Double(), nullable=True),
        sa.Column("issued", sa.Double(), nullable=True),
        sa.Column("not_after", sa.Double(), nullable=True),
        sa.Column("reused", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_enrolments")),
        comment="Enrolments of pilots: the public half of a one-time secret, who used it, and the identity it made.",
    )
    op.create_index(op.f("ix_enrolments_id"), "enrolments", ["id"], unique=True)
    op.create_index(op.f("ix_enrolments_identity"), "enrolments", ["identity"], unique=True)
    op.create_index(op.f("ix_enrolments_site_number"), "enrolments", ["site", "number"], unique=False)
    op.create_index(
        "ix_enrolments_pending", "enrolments", ["number"], unique=False, postgresql_where=pending, sqlite_where=pending
    )


def _audit_chain() -> None:
    op.create_table(
        "audit_unsealed",
        sa.Column("entry", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_audit_unsealed")),
        comment="Entries that have no place in the chain yet; written with them, so that none is passed over.",
    )
    op.create_table(
        "audit_links",
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_audit_links")),
        comment="The audit's chain: place, entry, and the hash that binds it to all before it.",
    )
    op.create_index(op.f("ix_audit_links_entry"), "audit_links", ["entry"], unique=False)
    op.create_table(
        "audit_seals",
        sa.Column("last", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("thumbprint", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("last", name=op.f("pk_audit_seals")),
        comment="The auditor's signatures: each binds the chain up to its last place.",
    )
    op.create_table(
        "audit_signers",
        sa.Column("thumbprint", sa.Text(), nullable=False),
        sa.Column("ders", sa.LargeBinary(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("thumbprint", name=op.f("pk_audit_signers")),
        comment="Certificate chains of the auditor; kept as long as their seals.",
    )
    # What 0.1.0 wrote down gets its place in the chain as well.
    op.execute("INSERT INTO audit_unsealed (entry, time) SELECT id, time FROM audit")


ACTIVE = (
    "status IN ('Received', 'Checking', 'Staging', 'Waiting', 'Matched', 'Running', 'Completing', 'Stalled', "
    "'Rescheduled')"
)


def _usage() -> None:
    op.create_index(
        "ix_jobs_active",
        "jobs",
        ["grp", "owner"],
        unique=False,
        postgresql_where=sa.text(ACTIVE),
        sqlite_where=sa.text(ACTIVE),
    )
    numbers = ("minute", "submissions", "hour", "jobs", "bytes")
    op.create_table(
        "usage",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("active", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("counted", sa.Double(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in numbers),
        sa.PrimaryKeyConstraint("owner", "grp", name=op.f("pk_usage")),
        comment="What each owner has and asked for in each group, for the limits; `active` is never below the truth.",
    )
    op.create_index(op.f("ix_usage_grp"), "usage", ["grp"], unique=False)
    # What is there already; later numbers are added by each submission.
    active = f"SELECT owner, grp, count(*) AS n FROM jobs WHERE {ACTIVE} GROUP BY owner, grp"  # noqa: S608 - ours
    left = "sum(count - expanded) AS n FROM submissions WHERE expanded < count"
    to_come = f"SELECT owner, grp, {left} GROUP BY owner, grp"
    op.execute(
        "INSERT INTO usage (owner, grp, active, counted, minute, submissions, hour, jobs, bytes) "  # noqa: S608 - ours
        f"SELECT owner, grp, sum(n), 0, 0, 0, 0, 0, 0 FROM ({active} UNION ALL {to_come}) AS found GROUP BY owner, grp"
    )


def _proxies() -> None:
    op.add_column("delegations", sa.Column("purpose", sa.Text(), nullable=True))
    op.add_column("proxy_issues", sa.Column("thumbprint", sa.Text(), nullable=True))
    op.create_index(op.f("ix_proxy_issues_owner_time"), "proxy_issues", ["owner", "time"], unique=False)
    op.create_index(op.f("ix_proxy_issues_thumbprint"), "proxy_issues", ["thumbprint"], unique=False)
    op.create_table(
        "submission_proxies",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("dn", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("not_after", sa.Double(), nullable=False),
        sa.Column("stored", sa.Double(), nullable=False),
        sa.Column("submission", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("warned", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submission_proxies")),
        comment="Longer proxies, each for the jobs of one submission only, and gone with the last of them.",
    )
    op.create_index(op.f("ix_submission_proxies_submission"), "submission_proxies", ["submission"], unique=False)
    op.create_table(
        "proxy_care",
        sa.Column("dn", sa.Text(), nullable=False),
        sa.Column("grp", sa.Text(), nullable=False),
        sa.Column("idle_since", sa.Double(), nullable=True),
        sa.Column("warned", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("failures", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dn", "grp", name=op.f("pk_proxy_care")),
        comment="What the proxy manager keeps in mind of a stored proxy: warnings, idleness, tries at renewal.",
    )


def _trails() -> None:
    """By whom something was done: what a search for a stolen credential asks."""
    op.create_index(op.f("ix_attempts_pilot"), "attempts", ["pilot"], unique=False)
    op.create_index("ix_submissions_owner", "submissions", ["owner", "id"], unique=False)


def _voms() -> None:
    op.add_column("vo_groups", sa.Column("voms_required", sa.Boolean(), nullable=True))
