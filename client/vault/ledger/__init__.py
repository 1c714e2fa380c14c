"""The ledger: what records have spent.

Without IO: `rows` (values), `budget` (does it fit?), `state` (the rules), `account` (what rows add up to, and have room
for). On disk: `storage` (SQLite), `lock`, `positions`, `outbox`, `ledger`. Entering: `record_index`, `registration`,
`approval`. When it does not open: `damage`, `recovery`.
"""
