"""One study run, round by round.

In reading order: `round` (the rules, without IO), `participants`, `attendance` and `cohort` (who is asked),
`update_bounds` and `update_filter` (which updates are accepted), `replies` (what becomes of them), `questions` and
`asking` (one round, question by question), `coordinator` (drives the rounds), `observer` (what it reports meanwhile),
`checkpoints` (what survives a crash), `evaluation` (measures the adapter on a table of the server's operator).
"""
