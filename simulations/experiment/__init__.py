"""From a TOML file to sites on disk: `scenario`, `partition_kinds`, `partition`, `partition_file`,
`partition_plugin`, `plugins_used`, `split_rules`, `trouble`, `sites`, `data_notes`, `unseen_labels`, `prepare`,
`arms`, `catalogue`.
"""
