"""Ask the nodes for their noisy counts over held-out records, and keep what follows from them.

In reading order: `waiting` (whom to ask, and for how long), `answers` (judges one), `collecting` (each site's own, or a
sum that alone is opened), `asking` (asks after rounds that a study declares), `stored` (in the run store),
`results` (read from there).
"""
