"""Records, from an operator's file to tensors: `tables`, `ragged` (named ragged arrays), `batches`."""
