"""Commands that look at both halves.

`doctor` with its checks (`server_checks`, `dataset_checks`, `record_checks`, `trial`, `finding`), `status` with
`status_text`, `ledger_report` with `ledger_text`, `receipts`, `withdrawal`, `forgetting`, `backup`.
"""
