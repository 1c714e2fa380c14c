"""The run store: studies, rounds, nodes and events, in SQLite by default or PostgreSQL by URL.

In reading order: `values` (a run, a node, an event), `tables` (how they lie in the database), `database` (opens it, and
migrates what an older version wrote), `evaluations`, `operators` and `store` (read and write), `copies` (for a backup).
"""
