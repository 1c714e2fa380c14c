"""A model runs once by shapes alone when a study is read, and once with weights before it is trained."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shared.adapted_model.dry_run import rehearse
from shared.adapted_model.model import build, layout_of
from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.study.parsing import parse
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


def test_a_model_that_cannot_write_as_its_settings_ask_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    make_folder("t5", tmp_path)
    declared = {
        "study": {"name": "test"},
        "model": {"source": str(tmp_path)},
        "task": {"kind": "seq2seq", "max_length": 16, "max_target_length": 8},
        "adapter": {"layers": "all"},
    }
    study = parse(Study, declared, where="test")
    rehearse(build(study))
    (tmp_path / "generation_config.json").write_text(json.dumps({"forced_bos_token_id": 999}))
    with pytest.raises(SettingsError, match="computes what the task needs, got from model type 't5'") as refusal:
        rehearse(build(study))
    assert "generation_config.json" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("factor", "got"), [(float("inf"), "numbers that are not finite"), (0.0, "the same for two different records")]
)
def test_a_model_whose_numbers_overflow_or_that_sees_no_difference_is_refused(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, factor: float, got: str
) -> None:
    model, honest = build(make_study()), SequenceClassification.features
    rehearse(model)
    monkeypatch.setattr(SequenceClassification, "features", lambda *given: honest(*given) * factor)
    with pytest.raises(SettingsError, match=got):
        rehearse(model)
