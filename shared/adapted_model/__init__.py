"""The model that is trained: `adapters` (PEFT), `model`, `frozen_activations`, `evaluation`, `payload_sizes`."""
