"""A forecast of a study from public numbers: what it will cost every node, and whether it can learn.

In reading order: `whitening` (room for one strategy of the head), `evaluation` (how precise a private one will be),
`values` (the forecast itself), `forecast` (makes it), `rejected_rounds` (updates that the server is sure to reject),
`suggestions` (changes that would help), `text` (the forecast in words and tables).
"""
