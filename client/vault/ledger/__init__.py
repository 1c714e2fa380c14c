"""What records have spent.

`state` (rules without IO), `storage` (SQLite), `ledger`, `record_index`, `registration`, `approval`, `recovery`.
"""
