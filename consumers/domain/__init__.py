"""What the consumers think: pure decisions over values; ``now`` is always an argument."""
