"""Studies on offer, and the decision about each: the operator's, or the policy's alone.

`node_files` (opened once for each question), `offers`, `peers`, `registering`, `summary`, `review`,
`resuming`, `forgetting`.
"""
