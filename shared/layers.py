"""Cut an encoder or decoder between two of its layers, without copying it and without rewriting its forward pass.

A view is a shallow copy of the model that shares every module but runs only some layers; above the cut its embedding
step hands through the states it is given. Masks and norms stay the model's own code.
"""

import copy
from typing import Any

from torch import Tensor, nn

DECODERS = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are alike and know places by rotation alone, so that states can be handed in as they are."""


class _HandThrough(nn.Module):
    """Stands where the embeddings stood: the states are already there."""

    def forward(self, *, inputs_embeds: Tensor, **_: Any) -> Tensor:
        return inputs_embeds


def layer_count(encoder: nn.Module) -> int | None:
    """Number of layers, or None for an architecture that cannot be cut here (then it runs whole)."""
    layers = _stack(encoder)
    return None if layers is None else len(layers)


def below(encoder: nn.Module, cut: int) -> nn.Module:
    """The part from the embeddings up to, not including, layer `cut`; of a model with a language head, states too."""
    if _is_decoder(encoder):
        return _decoder_view(encoder, slice(None, cut), norm=cut == layer_count(encoder), head=False)
    return _view(encoder, slice(None, cut), keep_embeddings=True)


def above(encoder: nn.Module, cut: int) -> nn.Module:
    """The part from layer `cut` to the end; call it with `inputs_embeds`."""
    if _is_decoder(encoder):
        return _decoder_view(encoder, slice(cut, None), norm=cut != layer_count(encoder), head=True)
    return _view(encoder, slice(cut, None), keep_embeddings=False)


def _stack(encoder: nn.Module) -> nn.ModuleList | None:
    if _is_decoder(encoder):
        found = getattr(getattr(encoder, "model", encoder), "layers", None)
        return found if isinstance(found, nn.ModuleList) else None
    inner = getattr(encoder, "encoder", None)
    layers = getattr(inner, "layer", None)
    has_both = isinstance(layers, nn.ModuleList) and isinstance(getattr(encoder, "embeddings", None), nn.Module)
    return layers if has_both else None


def _is_decoder(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    alike = len(set(getattr(config, "layer_types", None) or ["one"])) == 1
    return alike and getattr(config, "model_type", None) in DECODERS


def _decoder_view(model: nn.Module, part: slice, *, norm: bool, head: bool) -> nn.Module:
    """A decoder, bare or with its language head; the last norm goes with the last layer, the head comes after a cut."""
    view = copy.copy(model)
    view._modules = dict(model._modules)
    inner = view
    if isinstance(model._modules.get("model"), nn.Module):
        inner = copy.copy(model._modules["model"])  # type: ignore[assignment]
        inner._modules = dict(inner._modules)
        view._modules["model"] = inner
    inner._modules["layers"] = nn.ModuleList(list(_stack(model) or [])[part])
    if not norm:
        inner._modules["norm"] = nn.Identity()
    if not head and "lm_head" in view._modules:
        view._modules["lm_head"] = nn.Identity()
    return view


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
