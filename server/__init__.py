"""The coordination server.

Reading order: `rounds` (the rules of a round, and which updates it accepts), `aggregation` (how updates become the next
adapter, with `plugins` of other packages), `app` (wires both into a Flower ServerApp). Around them: `settings`,
`run_store`, `certificate_authority` and `operator_authority` (what the server keeps), `certificate_ends` (until when),
`backup` (a copy of it), `earlier_names` (what older versions kept), `secure_sum` (updates that only open as a sum),
`private_evaluation` (how good the model is at the nodes), `gateway` and `flower` (how nodes reach it), `mailbox` (where
messages wait), `wake_pipe` (what wakes them), `forecast` (before a study), `export` (after it), `tracking` (its curves
elsewhere), `runs` (whose turn it is, and whether another try can help), `run_process`, `processes` and `cli` (what an
operator starts), `operator` (what that person does and sees) with `dashboard` (the same in a browser), `identity`,
`health` and `ports` (whether it is this server that answers, and may answer, at its ports).
"""
