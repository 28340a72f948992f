"""How it is put together: the composition roots, the private local stack and deployments."""
