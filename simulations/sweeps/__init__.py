"""One scenario at many settings and seeds: `cells` (which runs), `execution` (each in a folder of its own),
`statistics` (means, intervals, paired tests), `tuning_cost` (what choosing would cost in privacy), `outcome` (files),
`text` (tables), `order` (all of it), `search` and `search_command` (settings between bounds), `command`, and `changes`
(what Python gives, in the words of `--set` and `--over`).
"""
