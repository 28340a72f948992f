"""Alembic's entry: runs on the connection (and in the transaction) of the caller, nothing else."""

from __future__ import annotations

from alembic import context

from consumers.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
