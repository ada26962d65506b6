"""The run directory: one database that is the only truth, immutable checkpoint files, and a lock."""
