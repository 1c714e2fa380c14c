"""The pretrained model that a study starts from.

`locate` (by fingerprint), `bundled` (known by name), `load`, `layers` (where to cut), `mapped_weights`.
"""
