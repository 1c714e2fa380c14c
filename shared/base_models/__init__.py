"""The pretrained model that a study starts from.

`locate` (by fingerprint), `identity` (what the fingerprint covers), `covered` (what it leaves out changes nothing),
`bundled` (known by name), `model_folder` (its files), `load`, `loaded_keys` (what was loaded), `four_bits` (held in
four bits a number), `loaded_weights` (the fingerprint of how weights are held), `layers` (where to cut),
`checkpointed_layers`, `mapped_weights`, `stateless` (a model that keeps nothing of what it saw).
"""
