"""Benchmarks of memory and bytes: a node, the server, an update on its way."""
