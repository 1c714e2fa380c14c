"""Records, from a file to tensors: `formats`, `tables`, `earlier_tables`, `media_files`, `ragged`, `batches`."""
