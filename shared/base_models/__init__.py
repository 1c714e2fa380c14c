"""The pretrained model that a study starts from.

`locate` (by fingerprint), `bundled` (known by name), `model_folder` (its files), `load`, `loaded_keys` (what was
loaded), `layers` (where to cut), `mapped_weights`.
"""
