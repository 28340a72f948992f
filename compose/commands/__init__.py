"""Commands that put the house together: the private stack."""
