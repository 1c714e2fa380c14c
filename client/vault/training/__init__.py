"""One private round.

`discrete_gaussian`, `randomness`, `noise_prefetch`, `linear_gradients`, `vmap_gradients`, `optimizer`, `trainer`
(steps), `gradient_probe`, `rounding`, `round_trainer` (a task).
"""
