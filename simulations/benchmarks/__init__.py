"""Ratios against what a user would otherwise run, interleaved in one process run: `make bench`."""
