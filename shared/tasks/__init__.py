"""Task kinds: from a record's columns to tokens, from features to a loss per record, from predictions to metrics.

`kinds` is the registry; each kind is one file beside it.
"""
