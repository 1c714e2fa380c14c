"""Results of a run: `result`, made by `summary`, `paired`; shown by `tables`, `report`; `wording`, `metric_names`."""
