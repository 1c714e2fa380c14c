"""Cut a model between two of its layers, without copying it and without rewriting its forward pass.

A view is a shallow copy of the model that shares every module but runs only some layers. Above the cut, what stands
before the first layer (embeddings, convolutions, places) hands through the states it is given; what stands behind the
last layer (a norm) goes with it. Masks stay the model's own code. Of a model with encoder and decoder, the encoder is
cut: the decoder reads what the encoder's last layers make, so nothing of it can be kept.
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
    """Where in a model of one architecture its layers are, and what stands around them, by path in the cut part."""

    layers: str
    before: Stands = field(default_factory=dict)
    """What takes the place of a module, above a cut."""
    behind: tuple[str, ...] = ()
    """Modules that go with the last layer."""
    encoder: str = ""
    """Path of what is cut, in the model without its head; empty for the whole."""
    above: Callable[[nn.Module], nn.Module] | None = None
    """Runs the part above the cut where the model's own forward cannot be led around what stands before."""


class _Embedded(nn.Module):
    """Stands where embeddings stood: the states are already there."""

    def forward(self, states: Tensor | None = None, *_: Any, inputs_embeds: Tensor | None = None, **__: Any) -> Tensor:
        found = states if inputs_embeds is None else inputs_embeds
        assert found is not None  # noqa: S101 - one of both is always handed in
        return found


class _EmbeddedWords(nn.Module):
    """The same for DistilBERT, which hands its embeddings ids, states and places in this order."""

    def forward(self, _ids: None, states: Tensor, *_: Any) -> Tensor:
        return states


class _EmbeddedPatches(_Embedded):
    """The same for images; the model asks the patch embeddings for their type."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.patch_embeddings = original.patch_embeddings


class _Nowhere(nn.Module):
    """Stands where places were added: they are in the states."""

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return torch.zeros(())


class _Heard(nn.Module):
    """Stands where convolutions heard: turned round, as the model turns what they give."""

    def forward(self, states: Tensor) -> Tensor:
        return states.transpose(1, 2)


class _Projected(nn.Module):
    """Stands where what was heard was projected."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return states, states


class _WhisperAbove(nn.Module):
    """The last layers of a Whisper's encoder, whose own forward always begins with its convolutions."""

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
    "feature_extractor": _instead(_Heard),
    "feature_projection": _instead(_Projected),
    "encoder.pos_conv_embed": NOWHERE,
}
FAMILIES: dict[str, Family] = {
    "bart": Family("layers", {"embed_positions": NOWHERE, "layernorm_embedding": NOTHING}, encoder="encoder"),
    "bert": BERT,
    "camembert": BERT,
    "deit": IMAGES,
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
"""By model type. ALBERT's layers are all one; T5's share a bias that the first computes; Swin's and SegFormer's change
their shape from stage to stage: these are not cut."""


def family_of(model: nn.Module) -> Family | None:
    """How a model is cut; None for an architecture that is not cut here (then it runs whole)."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind == "wav2vec2" and getattr(config, "do_stable_layer_norm", False):
        kind = "wav2vec2-stable"
    alike = len(set(getattr(config, "layer_types", None) or ["one"])) == 1
    found = FAMILIES.get(kind or "")
    if found is None or not alike or getattr(config, "add_adapter", False):
        return None
    return found if isinstance(_find(_cut_part(model, found), found.layers), nn.ModuleList) else None


def layer_count(model: nn.Module) -> int | None:
    """Number of layers, or None for an architecture that cannot be cut here."""
    family = family_of(model)
    return None if family is None else len(_layers(model, family))


def below(model: nn.Module, cut: int) -> nn.Module:
    """The part from the inputs up to, not including, layer `cut`, without a head; of two stacks, the encoder's."""
    family = _known(model)
    layers = _layers(model, family)
    changes: dict[str, nn.Module] = {family.layers: nn.ModuleList(list(layers)[:cut])}
    if cut != len(layers):
        changes |= {path: nn.Identity() for path in family.behind}
    return _view(_cut_part(model, family), changes)


def above(model: nn.Module, cut: int) -> nn.Module:
    """The model from layer `cut` to its end, its head included; what it takes as its first input are the states."""
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
    found = family_of(model)
    if found is None:
        raise ValueError(f"{type(model).__name__} is not cut")
    return found


def _path_of_cut(model: nn.Module, family: Family) -> str:
    """Where in the model the part is that is cut; a language head is put around what bare models are."""
    bare = f"{family.encoder}.{family.layers}".removeprefix(".")
    if _find(model, bare) is not None:
        return family.encoder
    return f"{getattr(model, 'base_model_prefix', '')}.{family.encoder}".removesuffix(".")


def _cut_part(model: nn.Module, family: Family) -> nn.Module:
    found = _find(model, _path_of_cut(model, family))
    return model if found is None else found


def _layers(model: nn.Module, family: Family) -> nn.ModuleList:
    found = _find(_cut_part(model, family), family.layers)
    assert isinstance(found, nn.ModuleList)  # noqa: S101 - narrows the type; `family_of` has looked already
    return found


def _find(model: nn.Module | None, path: str) -> nn.Module | None:
    for name in path.split(".") if path else ():
        model = None if model is None else model._modules.get(name)
    return model


def _view(model: nn.Module, changes: Mapping[str, nn.Module]) -> nn.Module:
    """A shallow copy in which some modules, by path, are others; every other module is shared."""
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
