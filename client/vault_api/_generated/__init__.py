"""Generated from `vault.proto` by `make proto`; never edited."""
