"""A dataset's rows: `identity`, `splits`, `privacy_units`, `dataset`, `source`, `snapshot`, `approved_runs`."""
