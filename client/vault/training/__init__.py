"""One private round.

`discrete_gaussian`, `randomness`, `noise_prefetch`, `linear_gradients`, `vmap_gradients`, `optimizer`, `micro_batches`
(what fits into memory), `trainer` (steps), `gradient_probe`, `thrift_probe` (ways to need less memory), `rounding`,
`summand` (of a secure sum), `round_trainer` (a task); `evaluator` (counts over what is held out).
"""
