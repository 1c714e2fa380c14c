"""What a release costs: pure mathematics, no training and no network.

Reading order: `releases` (what was released), `accounting` (what it cost), `calibration` (how much noise a budget
needs), `planning` (one study's plan, a function of the study alone), `spending` (what its rounds cost),
`signal_to_noise` (whether anything can be learned through the noise), `study_steps` (a study as that sees it), `size`
(how large an honest update can be).
"""
