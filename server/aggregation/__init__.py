"""Combines updates: `fixed_point` (a sum that ignores order), then one method per file behind `method`."""
