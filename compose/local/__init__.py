"""The private stack of one machine: its servers, its processes, its data directory."""
