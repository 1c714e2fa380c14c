"""One private round.

`randomness`, `linear_gradients`, `vmap_gradients`, `gradient_probe`, `optimizer`, `trainer`, `rounding`,
`round_trainer`.
"""
