"""Federations of real processes on loopback: what `make e2e` runs, and the tests in a shorter form.

`federation` (processes), `scene` (a study underway), `faults`, `budgets`, `certificates`, `crowd` (too many, too
often, too slow), `rogue` (a member that misbehaves); `secure_sums` (a server that opens sums alone, nodes that are
killed); `light_nodes` (many in one process), `soak` (a storm of kills over them); `walkthrough` and `walkthrough_text`
(what `make federation` leaves running for a newcomer); `postgresql` (a database server beside them).
"""
