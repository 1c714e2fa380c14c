"""Results of a run: `result`, made by `summary`; shown by `tables` and `report`; `metric_names`."""
