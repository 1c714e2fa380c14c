"""The protocol between server and nodes.

`messages`, `flower_records`, `sum_records` and `evaluation_records` (their form on the wire), `versions` (how sides of
different age agree), `update_encoding` (the bytes of an update), `fixed_point` (updates as whole numbers), `invite`,
`long_poll`.
"""
