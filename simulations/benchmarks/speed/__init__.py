"""Benchmarks of speed: private steps, rounds, engines and clients, each beside what a user would otherwise run."""
