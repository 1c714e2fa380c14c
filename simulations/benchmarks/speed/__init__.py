"""Benchmarks of speed, each beside what a user would otherwise run.

Steps: `private_step`, `decoder_steps`, `decoders`. Rounds: `site`, `private_round`, `drawn`, `training`, `rounds`,
`many_nodes`, `store_work`.
Engines: `trivial_app`, `engines`, `clients`. On a GPU: `waiting`.
"""
