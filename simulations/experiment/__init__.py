"""From a TOML file to sites on disk: `scenario`, `partition`, `sites`, `prepare`, `arms`, `catalogue`."""
