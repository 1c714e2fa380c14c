"""Task kinds: from a record's columns to fields, from features to a loss per record, from predictions to metrics.

`kind` (the interface of a kind), `registry`, `task_table` (an operator's table as a kind reads it), one file for each
kind, and what several kinds share: `texts`, `text_overlap`, `images`, `sounds`, `media_content`, `single_label`.
"""
