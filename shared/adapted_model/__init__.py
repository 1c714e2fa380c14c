"""The model that is trained: a frozen base, an adapter and a head.

`adapters` (PEFT), `measured`, `whitening`, `whitened_head` and `head_strategy` (how a head is trained), `model`,
`activation_file`, `frozen_activations`, `evaluation`, `payload_sizes`.
"""
