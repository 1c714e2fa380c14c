"""A dataset's rows: `dataset`, `source`, `splits` (train, held out), `privacy_units`, `snapshot`, `approved_runs`."""
