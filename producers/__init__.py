"""Who asks: the submission tool's commands and its Python client."""
