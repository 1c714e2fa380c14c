"""Benchmarks (`make bench`): ours and what a user would otherwise run, measured turn by turn."""
