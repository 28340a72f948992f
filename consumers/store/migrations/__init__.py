"""Migrations in pre/post pairs; see :mod:`consumers.store.upgrades` for the rule."""
