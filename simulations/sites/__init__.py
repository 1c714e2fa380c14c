"""Sites that differ from a real node: `seeded_randomness`, `without_privacy`, `textbook`, `summing`, `troubled`.

`open_sum` has the rounds of `summing`.
"""
