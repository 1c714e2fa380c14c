"""The protocol between server and nodes.

`messages`, `flower_records` and `sum_records` (their form on the wire), `versions` (how sides of different age agree),
`update_encoding` (the bytes of an update), `fixed_point` (updates as whole numbers), `invite`, `long_poll`.
"""
