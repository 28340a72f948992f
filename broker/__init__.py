"""How it is carried: connection, topology, signing, authorization and identity. Imports only ``schemas``."""
