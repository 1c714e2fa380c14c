"""Commands that look at both halves: `doctor`, `status`, `ledger_report`, `receipts`, `withdrawal`, `backup`."""
