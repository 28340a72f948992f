"""Who decides: one consumer is one file; thinking in ``domain`` (pure), state in ``store``."""
