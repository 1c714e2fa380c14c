"""The mathematics of privacy: no training and no network.

Reading order: `grid` (where gradients are rounded and noise is drawn), `releases` (what was released), `moments` (of
one step), `accounting` (their cost), `calibration` (the noise that a budget needs), `noise_schedule` (the noise of
one study, a function of the study alone), `cost_by_round` (the cost of its rounds), `signal_to_noise` (the chance to
learn anything through the noise), `study_steps` (a study's steps as that needs them), `update_bounds` (the length of
an honest update), `adapter_bound` (where honest rounds can have led an adapter), `collusion` (what shared noise
promises, by who colludes), `sum_numbers` (of a run's secure sum), `in_words` (an epsilon in plain words).
"""
