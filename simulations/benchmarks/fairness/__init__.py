"""What privacy does to small groups, on real people's records: gaps between subgroups over epsilon.

Reading order: `cases` (which sets, and each run's scenario), `gaps` (results become rows), `page` (table and picture).
`python -m simulations.benchmarks.fairness` runs what is not done yet.
"""
