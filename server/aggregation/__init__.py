"""Combines updates.

`fixed_point` (a sum that ignores order), then one file per `method`, such as `mean`; `opened_sum` (the step that
follows from a secure sum).
"""
