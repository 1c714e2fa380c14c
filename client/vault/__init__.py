"""The only part that can read records.

Reading order: `sources` and `roles` (which record does what), `datasets` (what is kept; frozen activations are in
`shared/prefix`), `randomness`, `per_example`, `private_optimizer`, `private_training` (one private round), `rounding`
(how it is sent), `exactness` (the probe), `vault`.
"""
