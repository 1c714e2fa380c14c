"""Records, from an operator's file to tensors: `tables`, `earlier_tables`, `ragged` (named arrays), `batches`."""
