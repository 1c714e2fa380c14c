"""Records: `tables` (an operator's file), `ragged` (named ragged arrays), `batches` (tensors)."""
