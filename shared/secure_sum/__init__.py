"""Sum vectors of many nodes so that the server opens the sum and no part of it: no IO, primitives of one library.

`SECURITY_ARGUMENT.md` says what that promises and why it holds. Reading order: `refusals` (the one error and its public
codes), `encoding` (bytes that all sides read the same way), `thresholds` (the public numbers of a run, and the rule by
which a node takes them), `keys` (of a node, for one run), `entries` (a node's signed line), `roster` (all of them),
`context` (what one sum is of), `shares` and `boxes` (how an own mask is dealt to the others), `masks` (what hides a
vector), `survivors` (the set that is summed), `messages` (what travels), `node` (a node's part), `session` (the
server's part: its rules and states).
"""
