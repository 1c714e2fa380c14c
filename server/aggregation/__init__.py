"""Combines updates.

`fixed_point` (a sum that ignores order), then one file per `method`: `mean`, `geometric_median`; `opened_sum` (the step
that follows from a secure sum).
"""
