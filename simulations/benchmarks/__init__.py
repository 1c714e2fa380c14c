"""Benchmarks (`make bench`): ours and what a user would otherwise run, measured turn by turn.

`measure` (ratios and their quartiles), `speed`, `memory`, `quality`, `fairness`, `secure_sum` (beside SecAgg+), and
`stock` (peers, as their users write them).
"""
