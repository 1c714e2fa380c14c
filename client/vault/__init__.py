"""The only part that can read records.

Reading order: `ledger` (what they have spent), `records` (what is kept of them), `training` (one private round),
`secure_sum` (its part in sums of many nodes), `review` (what an operator decides), `service` (what the process
answers).
"""
