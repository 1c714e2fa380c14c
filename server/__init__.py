"""The coordination side.

Reading order: `rounds` (the rules of a round), `intake` (what is let in), `aggregation` (what it becomes),
`checkpoints` (what survives), `coordinator` (drives it all over a Flower Grid), `app` (the ServerApp), `export`.
"""
