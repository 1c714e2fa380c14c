"""Task kinds: from a record's columns to fields, from features to a loss per record, from predictions to metrics.

`declarations` is what a study says about each, `kind` what a kind provides, `kinds` the registry; each kind is one file
beside them.
"""
