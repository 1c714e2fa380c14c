"""What a base model is held in has a name; other bytes are refused, and today's studies know nothing of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from server.operator.actions import _pinned_model
from shared.adapted_model.model import build
from shared.base_models.four_bits import FourBitLinear
from shared.base_models.load import load_base
from shared.base_models.loaded_weights import loaded_fingerprint
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.study.declaration import Study, recorded
from shared.tasks.registry import task_kind

Studies = Callable[..., Study]
SHORT = ("bfloat16", "4bit")


def loaded(study: Study) -> Any:
    return load_base(find(study.model), task_kind(study.task).auto, base_weights=study.model.base_weights)


@pytest.mark.guarantee("each changed bit of a base model in short numbers changes the fingerprint of what was loaded.")
@pytest.mark.parametrize("held", SHORT)
def test_one_bit_of_weights_scales_or_codes_is_another_fingerprint(make_study: Studies, held: Any) -> None:
    model = loaded(make_study(model={"base_weights": held}))
    before = loaded_fingerprint(model, held)
    assert loaded_fingerprint(loaded(make_study(model={"base_weights": held})), held) == before
    layer = model.encoder.layer[1].attention.self.query
    assert isinstance(layer, FourBitLinear) == (held == "4bit")
    for tensor in (layer.weight, layer.bias, *([layer.scales] if held == "4bit" else [])):
        bits = tensor.data.view(torch.uint8).flatten()
        bits[3] ^= 1
        assert loaded_fingerprint(model, held) != before
        bits[3] ^= 1
    assert loaded_fingerprint(model, held) == before


@pytest.mark.guarantee("a node trains on no other bytes of a base model than the study names.")
@pytest.mark.parametrize("held", SHORT)
def test_a_server_pins_what_it_holds_and_a_node_that_holds_something_else_refuses(
    make_study: Studies, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(model={"base_weights": held})
    pinned = study.model_copy(update={"model": _pinned_model(study)})
    assert pinned.model.loaded_fingerprint and pinned.sha256 != study.sha256
    assert build(recorded(pinned.model_dump(mode="json"), where="sent")).base_weights == held
    assert _pinned_model(pinned) == pinned.model
    named_other = make_study(model={"base_weights": held, "loaded_fingerprint": "0" * 64})
    with pytest.raises(SettingsError, match=f"Expected a base model whose weights in {held} have the fingerprint 000"):
        _pinned_model(named_other)  # a server never puts its own in the place of what was declared
    quantised = "shared.base_models.four_bits.SMALLEST_SCALE" if held == "4bit" else None
    if quantised:
        monkeypatch.setattr(quantised, 10.0)  # a machine that divides otherwise
    else:
        other = {"loaded_fingerprint": "0" * 64}
        pinned = pinned.model_copy(update={"model": pinned.model.model_copy(update=other)})
    with pytest.raises(SettingsError, match=f"Expected a base model whose weights in {held} have the fingerprint"):
        build(pinned)


def test_in_float32_nothing_is_pinned_and_nothing_is_written_or_hashed(make_study: Studies) -> None:
    study = make_study()
    assert _pinned_model(study).loaded_fingerprint is None
    assert study.sha256 == make_study(model={"base_weights": "float32"}).sha256
    assert {"base_weights", "loaded_fingerprint"}.isdisjoint(study.model_dump()["model"])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"base_weights": "4bit"}, "adapter": {"method": "dora"}}, "goes with adapter.method = ffa-lora"),
        ({"model": {"base_weights": "bfloat16"}, "adapter": {"method": "ia3"}}, "goes with adapter.method = ffa-lora"),
        ({"model": {"loaded_fingerprint": "0" * 64}}, "only goes with model.base_weights other than 'float32'"),
        ({"model": {"base_weights": "8bit"}}, "model.base_weights"),
    ],
)
def test_what_cannot_be_trained_is_refused(make_study: Studies, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_study(**sections)
