"""A private evaluation: counts over held-out units, with noise, and no more than a study declares.

`cells` (what is counted), `counts` (one unit changes them by at most 1), `noise` (that a study's evaluation needs);
then what follows from noisy counts: `intervals`, `averages` and `conditional` (on a row being shown), all of them pure
numbers; `estimates` (of sites and subgroups),
`choice` (which evaluation is best, and whether further rounds help), `precision` (what to expect, before anybody
agrees), `wording` (for people).
"""
