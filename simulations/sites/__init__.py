"""Sites that differ from a real node: `seeded_randomness`, `without_privacy`, `textbook`, `summing`, `troubled`,
`measured`.

`open_sum` has the rounds of `summing`.
"""
