"""A private evaluation: counts over held-out units, with noise, and no more than a study declares.

`cells` (what is counted), `counts` (one unit changes them by at most 1), `noise` (that a study's evaluation needs).
"""
