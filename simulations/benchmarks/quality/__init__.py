"""Benchmark of quality: federated private training on real sites, beside its usual alternatives.

`sets`, `recipe` (what a plan suggests for each), `figures`, `plot`; `heads` compares learning rates of a head.
"""
