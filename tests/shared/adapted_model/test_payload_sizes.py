"""Sizes for comparison are those of real adapters, or none: they never stand in the way of a study."""

from collections.abc import Callable

from shared.adapted_model.model import layout_of
from shared.adapted_model.payload_sizes import adapter_bytes, full_lora_bytes, full_model_bytes
from shared.study.declaration import Study


def test_a_head_alone_is_trained_where_no_lora_would_fit(make_study: Callable[..., Study]) -> None:
    study = make_study(adapter={"method": "head-only", "rank": 64})  # the layers are 32 wide
    assert layout_of(study).length == 2 * 32 + 2
    assert full_lora_bytes(study) is None
    assert full_model_bytes(study) > adapter_bytes(study)["float32"]


def test_lora_on_all_layers_is_counted_where_it_fits(make_study: Callable[..., Study]) -> None:
    assert full_lora_bytes(make_study(adapter={"method": "head-only", "rank": 8})) == 4 * (3 * 2 * 2 * 8 * 32 + 66)
