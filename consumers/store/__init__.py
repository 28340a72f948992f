"""What the consumers remember: the only room that issues SQL."""
