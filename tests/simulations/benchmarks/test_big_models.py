"""The table of big models: the code that a GPU runs, on tiny ones; and no figure where there is no GPU."""

from pathlib import Path

import pytest
import torch

from client.vault.training.micro_batches import estimated
from shared.base_models.locate import find
from simulations.benchmarks.memory import __main__ as command
from simulations.benchmarks.memory import big_models
from simulations.benchmarks.memory.big_models import CASES, SIZES, Case, Measured, _llama, rows
from simulations.benchmarks.speed.decoder_steps import Work, study_of, write_decoder

TINY = _llama(32, 64, 2, 4, 2, 64, tied=True)


def test_every_case_is_measured_and_a_late_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big_models, "in_own_process", lambda work, *arguments: (work(*arguments), 0.0))
    cases = (Case("tiny", TINY, "4bit", True, 2, 32), Case("late", TINY, "bfloat16", False, 2, 32))
    (found,) = rows(cases[:1], device="cpu", turns=1)
    assert isinstance(found, Measured) and found.peak_gib > 0.01 and found.records_per_s > 0
    assert (found.held_in, found.computed_again, found.micro_batch) == ("4bit", "yes", "2 x 32")
    assert list(rows(cases[1:], device="cpu", limit_s=-1.0)) == ["late in bfloat16: not measured, -1 seconds were over"]


def test_a_case_is_trained_as_it_is_held(tmp_path: Path) -> None:
    study = study_of(Work(tmp_path, 8, 256, "cuda", base_weights="4bit", checkpointing=True))
    assert study.model.base_weights == "4bit" and study.performance.activation_checkpointing
    assert {case.name for case in CASES} == set(SIZES) == {"135M", "0.5B", "1.2B", "8B"}
    assert {case.base_weights for case in CASES if case.name == "8B"} == {"4bit"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured")
def test_without_a_gpu_nothing_is_measured_and_it_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command.main()
    assert "Nothing was measured: PyTorch finds no CUDA device here" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


def test_what_a_decoder_needs_is_estimated_without_weights(tmp_path: Path) -> None:
    write_decoder(tmp_path, TINY)
    kept, again = (
        study_of(Work(tmp_path, 2, 32, "cpu", base_weights="4bit", checkpointing=on)) for on in (False, True)
    )
    files = find(kept.model)
    needs = [estimated(study, files, tokens=64).batch for study in (kept, again)]
    assert needs[0] is not None and needs[1] is not None and 0 < needs[1] < needs[0]
