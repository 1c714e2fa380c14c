"""The model that is trained: a frozen base, an adapter and a head.

`adapters` (PEFT), `whitening` and `whitened_head`, `model`, `activation_file`, `frozen_activations`, `evaluation`,
`payload_sizes`.
"""
