"""A model runs once by shapes alone when a study is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.tasks.sequence_classification import SequenceClassification
from tests.support.mutated_models import make_folder


def test_a_model_whose_code_refuses_the_task_is_refused_when_the_study_is_read(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    make_folder("t5", tmp_path)
    study = make_study(model={"source": str(tmp_path)}, adapter={"layers": "all"})
    message = (
        r"^Expected a base model that can run task.kind='sequence-classification', got model type 't5': ValueError"
    )
    with pytest.raises(SettingsError, match=message) as refusal:
        layout_of(study)
    assert refusal.value.hint


@pytest.mark.parametrize(
    "fault", [NotImplementedError("no such kernel"), RuntimeError("cannot be called on meta tensors")]
)
def test_code_that_asks_for_values_proves_nothing(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def asks(*_: object) -> torch.Tensor:
        raise fault

    monkeypatch.setattr(SequenceClassification, "run", asks)
    assert layout_of(make_study()).length > 0
