"""An adapter of a base model in short numbers says so, and is loaded on what it was trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.export.adapter import as_peft, export, load_finished
from server.export.model_card import page
from shared.base_models.four_bits import FourBitLinear
from shared.study.declaration import Study

Studies = Callable[..., Study]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_what_was_trained_in_four_bits_is_loaded_in_four_bits_and_peft_gets_the_published_weights(
    make_study: Studies, tmp_path: Path
) -> None:
    study = make_study(model={"base_weights": "4bit"})
    length = sum(int(np.prod(shape)) for _, shape in load_layout(study))
    adapter = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    export(study, adapter, tmp_path)
    finished = load_finished(tmp_path)
    assert any(isinstance(module, FourBitLinear) for module in finished.model.modules())
    assert np.array_equal(finished.model.packed(), adapter) and finished.classify(["good bad"])
    assert not any(isinstance(module, FourBitLinear) for module in as_peft(tmp_path).modules())


def load_layout(study: Study) -> Any:
    from shared.adapted_model.model import layout_of

    return layout_of(study).tensors


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ("float32", None),
        ("bfloat16", "held in bfloat16. With weights as they were published"),
        ("4bit", 'bnb_4bit_quant_type="nf4"'),
    ],
)
def test_the_card_says_in_which_numbers_the_base_model_was_held(
    make_study: Studies, held: str, says: str | None
) -> None:
    study = make_study(model={"base_weights": held})
    text = page(
        study, fingerprint="0" * 64, trained_by="one in run `r` of", sections=[], merging="Merged:", tags=("a",)
    )
    assert ("While it was trained" in text) == (says is not None) and (says is None or says in text)
