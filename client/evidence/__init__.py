"""What a node's operator can show somebody else, or read of the ledger: `run_report` (facts of a report), `history`."""
