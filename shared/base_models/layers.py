"""Cut a model between two of its layers, without copying it and without rewriting its forward pass.

A view is a shallow copy of the model that shares every module but runs only some layers. Above the cut, the modules
before the first layer (embeddings, convolutions, positions) are replaced by ones that pass on the states they get; the
modules after the last layer (a norm) belong to the upper part. Masks stay the model's own code. In a model with encoder
and decoder, the encoder is cut: the decoder reads the output of the encoder's last layers, so none of its states could
be stored.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

Stands = Mapping[str, Callable[[nn.Module], nn.Module]]


@dataclass(frozen=True)
class Family:
    """The places of a model family's layers, and of the modules around them, as paths inside the part that is cut."""

    layers: str
    before: Stands = field(default_factory=dict)
    """Modules before the first layer, and what replaces each of them above a cut."""
    behind: tuple[str, ...] = ()
    """Modules after the last layer, which belong to the part above a cut."""
    encoder: str = ""
    """Path of the part that is cut, in the model without its head; empty for the model itself."""
    above: Callable[[nn.Module], nn.Module] | None = None
    """Makes the module that runs the part above a cut, where the model's own forward cannot skip its first modules."""


class _Embedded(nn.Module):
    """Replaces embeddings above a cut: returns the states that it is given."""

    def forward(self, states: Tensor | None = None, *_: Any, inputs_embeds: Tensor | None = None, **__: Any) -> Tensor:
        given = states if inputs_embeds is None else inputs_embeds
        assert given is not None  # noqa: S101 - the model passes one of the two
        return given


class _EmbeddedWords(nn.Module):
    """Replaces DistilBERT's embeddings, which receive ids, states and positions in this order."""

    def forward(self, _ids: None, states: Tensor, *_: Any) -> Tensor:
        return states


class _EmbeddedPatches(_Embedded):
    """Replaces the embeddings of an image model, which asks its patch embeddings for their type."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.patch_embeddings = original.patch_embeddings


class _Nowhere(nn.Module):
    """Replaces position embeddings, which the states contain already."""

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return torch.zeros(())


class _Transposed(nn.Module):
    """Replaces a speech model's convolutions: returns states transposed, as the model then transposes them."""

    def forward(self, states: Tensor) -> Tensor:
        return states.transpose(1, 2)


class _Projected(nn.Module):
    """Replaces the projection behind a speech model's convolutions."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return states, states


class _WhisperAbove(nn.Module):
    """Runs the last layers of a Whisper encoder, whose own forward always begins with its convolutions."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.layers: Any = encoder.layers
        self.layer_norm: Any = encoder.layer_norm

    def forward(self, states: Tensor, *_: Any, **__: Any) -> BaseModelOutput:
        for layer in self.layers:
            states = layer(states, None)
        return BaseModelOutput(last_hidden_state=self.layer_norm(states))


def _instead(kind: type[nn.Module]) -> Callable[[nn.Module], nn.Module]:
    return lambda _original: kind()


EMBEDDED, NOWHERE, NOTHING = _instead(_Embedded), _instead(_Nowhere), _instead(nn.Identity)
BERT = Family("encoder.layer", {"embeddings": EMBEDDED})
DECODER = Family("layers", behind=("norm",))
IMAGES = Family("layers", {"embeddings": _EmbeddedPatches}, ("layernorm",))
MARIAN = Family("layers", {"embed_positions": NOWHERE}, encoder="encoder")
HEARS = {
    "feature_extractor": _instead(_Transposed),
    "feature_projection": _instead(_Projected),
    "encoder.pos_conv_embed": NOWHERE,
}
FAMILIES: dict[str, Family] = {
    "bart": Family("layers", {"embed_positions": NOWHERE, "layernorm_embedding": NOTHING}, encoder="encoder"),
    "bert": BERT,
    "camembert": BERT,
    "deit": IMAGES,
    "dinov2": Family("encoder.layer", {"embeddings": EMBEDDED}, ("layernorm",)),
    "distilbert": Family("transformer.layer", {"embeddings": _instead(_EmbeddedWords)}),
    "electra": Family("encoder.layer", {"embeddings": EMBEDDED, "embeddings_project": NOTHING}),
    "gpt2": Family("h", {"wpe": NOWHERE}, ("ln_f",)),
    "llama": DECODER,
    "marian": MARIAN,
    "mistral": DECODER,
    "mpnet": BERT,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "roberta": BERT,
    "vit": IMAGES,
    "wav2vec2": Family("encoder.layers", HEARS | {"encoder.layer_norm": NOTHING}),
    "wav2vec2-stable": Family("encoder.layers", HEARS, ("encoder.layer_norm",)),
    "whisper": Family("layers", behind=("layer_norm",), encoder="encoder", above=_WhisperAbove),
    "xlm-roberta": BERT,
}
"""Families that can be cut, by model type. Not among them: ALBERT, whose layers are all one; T5, whose layers share a
bias that the first one computes; Swin and SegFormer, whose layers change shape from stage to stage."""


def family_of(model: nn.Module) -> Family | None:
    """Return the family by which a model is cut; None for an architecture that always runs uncut."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind == "wav2vec2" and getattr(config, "do_stable_layer_norm", False):
        kind = "wav2vec2-stable"
    alike = len(set(getattr(config, "layer_types", None) or ["one"])) == 1
    family = FAMILIES.get(kind or "")
    if family is None or not alike or getattr(config, "add_adapter", False):
        return None
    return family if isinstance(_find(_cut_part(model, family), family.layers), nn.ModuleList) else None


def layer_count(model: nn.Module) -> int | None:
    """Return the number of layers; None for an architecture that cannot be cut."""
    family = family_of(model)
    return None if family is None else len(_layers(model, family))


def below(model: nn.Module, cut: int) -> nn.Module:
    """Return the part from the inputs up to layer `cut`, which is not included, without a head.

    In a model with encoder and decoder this is a part of the encoder.
    """
    family = _known(model)
    layers = _layers(model, family)
    changes: dict[str, nn.Module] = {family.layers: nn.ModuleList(list(layers)[:cut])}
    if cut != len(layers):
        changes |= {path: nn.Identity() for path in family.behind}
    return _view(_cut_part(model, family), changes)


def above(model: nn.Module, cut: int) -> nn.Module:
    """Return the part from layer `cut` to the model's end, with its head; its first input are the states at the cut."""
    family = _known(model)
    path, layers, part = _path_of_cut(model, family), _layers(model, family), _cut_part(model, family)
    changes: dict[str, nn.Module] = {family.layers: nn.ModuleList(list(layers)[cut:])}
    for place, stand in family.before.items():
        original = _find(part, place)
        if original is not None:
            changes[place] = stand(original)
    if cut == len(layers):
        changes |= {place: nn.Identity() for place in family.behind}
    upper = _view(part, changes)
    if family.above is not None:
        upper = family.above(upper)
    return _view(model, {path: upper}) if path else upper


def _known(model: nn.Module) -> Family:
    family = family_of(model)
    if family is None:
        raise ValueError(f"{type(model).__name__} is not cut")
    return family


def _path_of_cut(model: nn.Module, family: Family) -> str:
    """Return the path of the part that is cut; models with a language head hold the bare model one level deeper."""
    bare = f"{family.encoder}.{family.layers}".removeprefix(".")
    if _find(model, bare) is not None:
        return family.encoder
    return f"{getattr(model, 'base_model_prefix', '')}.{family.encoder}".removesuffix(".")


def _cut_part(model: nn.Module, family: Family) -> nn.Module:
    part = _find(model, _path_of_cut(model, family))
    return model if part is None else part


def _layers(model: nn.Module, family: Family) -> nn.ModuleList:
    layers = _find(_cut_part(model, family), family.layers)
    assert isinstance(layers, nn.ModuleList)  # noqa: S101 - narrows the type; `family_of` has looked already
    return layers


def _find(model: nn.Module | None, path: str) -> nn.Module | None:
    for name in path.split(".") if path else ():
        model = None if model is None else model._modules.get(name)
    return model


def _view(model: nn.Module, changes: Mapping[str, nn.Module]) -> nn.Module:
    """Return a shallow copy in which the modules at some paths are replaced; all others are shared."""
    view = copy.copy(model)
    view._modules = dict(model._modules)
    inner: dict[str, dict[str, nn.Module]] = {}
    for path, module in changes.items():
        first, _, rest = path.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = module
        else:
            view._modules[first] = module
    for first, below_it in inner.items():
        child = model._modules[first]
        assert child is not None  # noqa: S101 - narrows the type
        view._modules[first] = _view(child, below_it)
    return view
