"""The model that is trained: a frozen base, an adapter and a head.

`targets` (the layers to adapt), `adapters` (PEFT), `measured`, `whitening`, `whitened_head` and `head_strategy` (how a
head is trained), `model`, `dry_run` (its shapes, when a study is read), `activation_file`, `frozen_activations`,
`evaluation`, `payload_sizes`, `finished` (loads what an export wrote), `export` (writes it).
"""
