"""Task kinds: from a record's columns to fields, from features to a loss per record, from predictions to metrics.

`kind` (the interface of a kind), `registry`, `task_table` (an operator's table as a kind reads it), one file for each
kind, what every kind shares (`row_by_row`, `fit`: a study beside its base model), and what several do: `cells`,
`texts`, `text_overlap`, `images`, `stored_images`, `sounds`, `media_content`, `single_label`.
"""
