"""The pretrained model.

`locate` (by fingerprint), `bundled` (known by name), `load`, `layers` (where to cut), `mapped_weights`.
"""
