"""Cut an encoder between two of its layers, without copying it and without rewriting its forward pass.

A view is a shallow copy of the model that shares every module but runs only some layers; above the cut its embedding
step hands through the states it is given. Masks and norms stay the model's own code.
"""

import copy
from typing import Any

from torch import Tensor, nn


class _HandThrough(nn.Module):
    """Stands where the embeddings stood: the states are already there."""

    def forward(self, *, inputs_embeds: Tensor, **_: Any) -> Tensor:
        return inputs_embeds


def layer_count(encoder: nn.Module) -> int | None:
    """Number of layers, or None for an architecture that cannot be cut here (then it runs whole)."""
    layers = _stack(encoder)
    return None if layers is None else len(layers)


def below(encoder: nn.Module, cut: int) -> nn.Module:
    """The part from the embeddings up to, not including, layer `cut`."""
    return _view(encoder, slice(None, cut), keep_embeddings=True)


def above(encoder: nn.Module, cut: int) -> nn.Module:
    """The part from layer `cut` to the end; call it with `inputs_embeds`."""
    return _view(encoder, slice(cut, None), keep_embeddings=False)


def _stack(encoder: nn.Module) -> nn.ModuleList | None:
    inner = getattr(encoder, "encoder", None)
    layers = getattr(inner, "layer", None)
    has_both = isinstance(layers, nn.ModuleList) and isinstance(getattr(encoder, "embeddings", None), nn.Module)
    return layers if has_both else None


def _view(encoder: nn.Module, part: slice, *, keep_embeddings: bool) -> nn.Module:
    view, inner = copy.copy(encoder), copy.copy(encoder.encoder)
    assert isinstance(inner, nn.Module)  # noqa: S101 - narrows the type; `_stack` has looked already
    view._modules, inner._modules = dict(encoder._modules), dict(inner._modules)
    layers = _stack(encoder)
    inner._modules["layer"] = nn.ModuleList(list(layers or [])[part])
    view._modules["encoder"] = inner
    if not keep_embeddings:
        view._modules["embeddings"] = _HandThrough()
    return view
