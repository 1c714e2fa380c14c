"""From a TOML file to sites on disk: `scenario`, `partition_kinds`, `partition`, `partition_file`, `split_rules`,
`trouble`, `sites`, `prepare`, `arms`, `catalogue`.
"""
