"""The commands of users and operators: one module each, mounted by ``compose.main``.

A command parses words, calls :class:`producers.Client`, prints. Heavy imports stand inside functions.
"""
