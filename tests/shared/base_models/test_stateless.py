"""Base models that keep something of what they saw, and those that do not."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.base_models.stateless import refuse_what_remembers, state_of_modules
from shared.errors import ExactnessError

TEXTS = (9, 5, 7, 1)
"""Lengths of what the models here are given, the longest first."""


class Model(nn.Module):
    """Adds up a text of ones, and does what a test says beside it."""

    def __init__(self, beside: Callable[["Model", Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer("moments", torch.zeros(2))
        self.settings = {"kind": ["dense"]}
        self.longest: int | None = None
        self.beside = [beside]

    def forward(self, text: Tensor) -> Tensor:
        more = self.beside[0](self, text)
        answer: Tensor = self.layer(text.sum().view(1)).detach() + (0.0 if more is None else more)
        return answer


def flips(model: Model, text: Tensor) -> None:
    if len(text) < 6:
        model.settings["kind"][0] = "full"


def counts(model: Model, text: Tensor) -> None:
    model.longest = max(model.longest or 0, len(text))


def averages(model: Model, text: Tensor) -> None:
    model.get_buffer("moments").add_(float(text.sum()))


def writes(model: Model, _text: Tensor) -> None:
    with torch.no_grad():
        model.layer.weight.mul_(1.0)


def holds(model: Model, text: Tensor) -> None:
    model.state = text.clone()


class Slotted:
    __slots__ = ("longest",)

    def __init__(self) -> None:
        self.longest = 0


PLACES: dict[str, tuple[Any, Callable[[Any, Tensor], Any]]] = {
    "a set": (set[int](), lambda place, text: place.add(len(text))),
    "a deque": (deque[int](maxlen=9), lambda place, text: place.append(len(text))),
    "an array": (np.zeros(2), lambda place, text: place.fill(len(text))),
    "a slot": (Slotted(), lambda place, text: setattr(place, "longest", len(text))),
    "a list of NumPy's numbers": ([np.int64(0)], lambda place, text: place.__setitem__(0, np.int64(len(text)))),
    "a buffer of bytes": (bytearray(b"0"), lambda place, text: place.append(len(text))),
    "a function's argument": (partial(print, [0]), lambda place, text: place.args[0].append(len(text))),
    "a generator": (torch.Generator(), lambda place, text: place.manual_seed(len(text)) and None),
    "a module in a list": ([nn.Linear(1, 1)], lambda place, text: setattr(place[0], "longest", len(text))),
    "a weight in a list": (
        [nn.Linear(1, 1)],
        lambda place, text: place[0].requires_grad_(False).weight.fill_(len(text)) and None,
    ),
    "which of two": ([[0], [1]], lambda place, text: place.reverse()),
}
"""Objects that hold something, and how a text gets into one."""


def refuse(model: Model) -> None:
    refuse_what_remembers([model], lambda length: model(torch.ones(length)), TEXTS)


@pytest.mark.guarantee(
    "a base model that keeps anything of a record for the next one is refused before it sees a real one."
)
@pytest.mark.parametrize(
    ("beside", "named"),
    [(flips, "settings"), (counts, "longest"), (averages, "moments"), (writes, "layer.weight"), (holds, "state")],
)
def test_a_base_model_that_keeps_anything_of_a_record_for_the_next_one_is_refused_before_it_sees_a_real_one(
    beside: Callable[[Model, Tensor], Any], named: str
) -> None:
    with pytest.raises(ExactnessError, match=rf"keeps nothing of the records it sees, {named}.* changed") as refusal:
        refuse(Model(beside))
    assert "Choose another base model" in (refusal.value.hint or "")


@pytest.mark.parametrize("name", PLACES)
def test_what_is_kept_in_any_kind_of_object_is_seen(name: str) -> None:
    place, keep = PLACES[name]
    model = Model(lambda _model, text: keep(place, text))
    model.place = place
    with pytest.raises(ExactnessError, match="place changed"):
        refuse(model)


def test_what_stays_as_it_is_is_described_alike_however_memory_was_used_meanwhile() -> None:
    model = Model(lambda _model, _text: None)
    model.place = {letter: ({letter}, object(), deque([letter])) for letter in "abc"}
    before = state_of_modules([model])["place"]
    assert before.count("{'a'}") == before.count("{'b'}") == before.count("{'c'}") == 1
    held = [object() for _ in range(1000)]
    assert state_of_modules([model])["place"] == before and held


def test_what_the_last_record_puts_back_is_seen_after_the_first() -> None:
    def grows(model: Model, text: Tensor) -> None:
        model.settings["kind"][0] = "long" if len(text) > 6 else "dense"

    with pytest.raises(ExactnessError, match="settings changed"):
        refuse(Model(grows))


def test_an_answer_that_depends_on_the_record_before_is_another_one_in_the_opposite_order() -> None:
    before = [1]

    def of_the_last(_model: Model, text: Tensor) -> float:
        last, before[0] = before[0], len(text)
        return float(last)

    with pytest.raises(ExactnessError, match="a record's answer was another one afterwards"):
        refuse(Model(of_the_last))


def test_another_tensor_in_a_weights_place_is_seen() -> None:
    def replaces(model: Model, _text: Tensor) -> None:
        model.layer.weight = nn.Parameter(model.layer.weight.detach().clone())

    with pytest.raises(ExactnessError, match=r"layer.weight changed"):
        refuse(Model(replaces))


def test_a_part_has_a_name_that_no_module_of_another_has() -> None:
    numbered = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    before = state_of_modules([numbered, nn.Linear(1, 1)])
    with torch.no_grad():
        numbered[1].weight.fill_(1.0)
    assert state_of_modules([numbered, nn.Linear(1, 1)])["1.weight"] != before["1.weight"]


def test_what_cannot_be_looked_at_is_refused_by_name() -> None:
    model = Model(lambda _model, _text: None)
    model.table = torch.eye(2).to_sparse()
    with pytest.raises(ExactnessError, match="Expected state that can be looked at, table cannot"):
        refuse(model)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    model.table = deep
    with pytest.raises(ExactnessError, match="Expected state that can be looked at, table cannot"):
        refuse(model)


def test_state_that_no_attribute_shows_is_found_by_what_it_does_to_an_answer() -> None:
    seen: list[int] = []

    def hidden(_model: Model, text: Tensor) -> float:
        seen.append(len(text))
        return float(min(seen))

    with pytest.raises(ExactnessError, match="a record's answer was another one afterwards"):
        refuse(Model(hidden))


def test_a_model_that_keeps_nothing_passes_and_a_number_that_is_none_agrees_with_itself() -> None:
    refuse(Model(lambda _model, _text: None))
    refuse(Model(lambda _model, _text: float("nan")))


def test_what_is_kept_has_names_and_objects_in_a_circle_end() -> None:
    model = Model(lambda _model, _text: None)
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    model.settings = circle
    state = state_of_modules([model, model.layer])
    assert {"settings", "moments", "layer", "layer.weight", "part 1", "part 1.weight"} <= state.keys()
