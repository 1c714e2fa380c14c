"""What a run says: `result`, `summary`, `tables`, `report`, `metric_names`."""
