"""What a release costs: pure mathematics, no training and no network.

Reading order: `releases` (what was released), `accounting` (what it cost), `calibration` (how much noise a budget
needs), `planning` (one study's plan, a function of the study alone), `size` (how large an honest update can be).
"""
