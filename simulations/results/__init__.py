"""Results of a run: `result`, made by `summary`, `paired`, `subgroups`, `trouble`; shown by `tables`, `report`,
`model_card`, `curves`, `pictures`, `frames` and `stored_tables`.

`wording` and `metric_names` are the words that these share.
"""
