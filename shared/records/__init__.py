"""Records, from an operator's file to tensors: `tables`, `earlier_tables`, `media_files`, `ragged`, `batches`."""
