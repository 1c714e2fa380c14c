"""Evidence of a node's operator: `run_report` (the facts of a run's report), `history` (the ledger as sentences)."""
