"""Cut an encoder between two of its layers, without copying it and without rewriting its forward pass.

A view is a shallow copy of the model that shares every module but runs only some layers; above the cut its embedding
step hands through the states it is given. Masks and norms stay the model's own code.
"""

import copy
from typing import Any

import torch
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


def run(part: nn.Module, mask: Tensor, **inputs: Tensor) -> Tensor:
    """Last hidden states (records, tokens, width) of a view."""
    states: Tensor = part(attention_mask=mask, **inputs).last_hidden_state
    return states


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


def pad(states: list[Tensor], length: int) -> Tensor:
    """Stack (tokens, width) tensors into (records, length, width), zeros behind the end."""
    padded = states[0].new_zeros(len(states), length, states[0].shape[-1])
    for row, record in zip(padded, states, strict=True):
        row[: len(record)] = record
    return padded


def mask_of(lengths: list[int], length: int) -> Tensor:
    """Attention mask (records, length): 1 on real tokens."""
    return (torch.arange(length)[None] < torch.tensor(lengths)[:, None]).long()
