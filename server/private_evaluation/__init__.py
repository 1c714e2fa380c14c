"""Ask the nodes for their noisy counts over held-out records, and keep what follows from them.

In reading order: `waiting` (whom to ask, and for how long), `answers` (judges one), `asking` (asks after rounds that a
study declares), `stored` (in the run store).
"""
