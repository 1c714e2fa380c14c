"""One private round.

`randomness`, `noise_prefetch`, `linear_gradients`, `vmap_gradients`, `optimizer`, `trainer` (steps), `gradient_probe`,
`rounding`, `round_trainer` (a task).
"""
