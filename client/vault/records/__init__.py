"""A dataset's rows: `identity`, `splits`, `privacy_units`, `dataset`, `source`, `held_out`, `snapshot`,
`approved_runs`.
"""
