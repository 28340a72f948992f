"""What may be said: messages, job descriptions, job states, identities (pure data: stdlib and msgspec only)."""
