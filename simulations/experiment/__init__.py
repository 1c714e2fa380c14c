"""From a TOML file to sites on disk: `scenario`, `partition`, `prepare`, `arms`, `catalogue`."""
