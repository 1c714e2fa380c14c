"""Explanations of a finished model's answers, computed on this machine and never sent.

`scores` (the number that is explained), `words` (integrated gradients over a text), `regions` (occlusion of an image's
or a spectrogram's cells), `explain` (the one that suits the task), `page`, and
`command` with its `options` (what the three commands do).
"""
