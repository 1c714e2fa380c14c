"""Benchmark of quality: federated private training on real sites, beside its usual alternatives."""
