"""Benchmarks of memory and bytes.

`peak` (of one process), `node_memory`, `server_memory`, `update_sizes`, `big_models` (what one GPU holds:
`python -m simulations.benchmarks.memory`).
"""
