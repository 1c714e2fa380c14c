"""Keep only each layer's inputs for the backward pass, and compute the rest of it again there."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def layers_to_checkpoint(model: nn.Module) -> list[nn.Module]:
    """Return the layers that the model's authors say can be computed again."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Let forward passes of a deterministic model keep each layer's inputs only.

    What is computed again has the same shapes and runs the same kernels, so gradients have the same bits.
    """
    layers = layers_to_checkpoint(model)
    for layer in layers:
        # no random state is kept: base models are deterministic
        again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        layer.__dict__["forward"] = again
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
