"""One study run.

`round` (rules without IO), `participants`, `cohort`, `update_filter`, `coordinator`, `checkpoints`, `evaluation`.
"""
