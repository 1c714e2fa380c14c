"""Sites that are no nodes: `seeded_randomness`, `without_privacy`, `textbook`."""
