"""A dataset's rows: `splits` (train, held out), `privacy_units`, `snapshot`, `approved_runs`."""
