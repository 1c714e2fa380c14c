"""One private round.

`discrete_gaussian`, `randomness`, `noise_prefetch`, `linear_gradients`, `vmap_gradients`, `optimizer`, `trainer`
(steps), `gradient_probe`, `rounding`, `summand` (of a secure sum), `round_trainer` (a task); `evaluator` (counts over
what is held out).
"""
