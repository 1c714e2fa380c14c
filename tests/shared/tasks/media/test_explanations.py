"""What speaks for an answer about an image or a recording: cells, beside cells hidden by hand."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from shared.adapted_model.finished import FinishedModel
from shared.adapted_model.model import build
from shared.explanations.explain import explain
from shared.explanations.page import explanation_page
from shared.explanations.regions import CELLS, RegionAttribution
from shared.records.batches import collate
from shared.study.declaration import Study

Studies = Callable[..., Study]


def drawn(study: Study) -> FinishedModel:
    model = build(study)
    model.load((0.5 * np.random.default_rng(3).standard_normal(model.layout.length)).astype(np.float32))
    return FinishedModel(study, model)


def log_odds(model: FinishedModel, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        outputs = model.model(batch)[0]
    return float(outputs.max() - outputs.min())  # of two labels


def test_a_cell_of_an_image_weighs_the_fall_of_the_score_when_it_is_grey(
    media_study: Studies, png: Callable[[Any], bytes]
) -> None:
    model = drawn(media_study("vit", task={"kind": "image-classification", "labels": ["dark", "light"]}))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    (one,) = explain(model, {"image": [png(pixels)]})
    parts = one.attribution
    assert isinstance(parts, RegionAttribution) and parts.cells.shape == (CELLS, CELLS)
    np.testing.assert_array_equal(parts.shown, pixels.astype(np.uint8))
    batch = collate(model.encode({"image": [png(pixels)]}), [0], model.model.kind.fills, torch.device("cpu"))
    assert parts.score == pytest.approx(log_odds(model, batch), abs=1e-4)
    hidden = batch["pixels"].float().view(3, 16, 16).clone()
    hidden[:, 4:6, 10:12] = 127.5  # row 2, column 5
    with torch.no_grad():
        outputs = model.model({**batch, "pixels": hidden.view(1, -1)})[0]
    index = model.model.kind.labels.index(one.answer)
    assert parts.cells[2, 5] == pytest.approx(parts.score - float(outputs[index] - outputs[1 - index]), abs=1e-3)
    page = explanation_page([one], "Why")
    assert page.count("data:image/png;base64,") == 2 and "img-src data:" in page


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_a_band_that_holds_the_sound_weighs_and_silence_does_not(media_study: Studies, family: str) -> None:
    study = media_study(family, task={"kind": "audio-classification", "labels": ["low", "high"], "seconds": 1.0})
    rate, model = 16_000 if family == "whisper" else 8_000, drawn(study)
    tone = np.sin(2 * np.pi * 0.3 * rate * np.arange(rate) / rate).astype(
        np.float32
    )  # between 5/8 and 6/8 of all tones
    tone[rate // 2 :] = 0
    file = io.BytesIO()
    soundfile.write(file, tone, rate, format="WAV")
    (one,) = explain(model, {"audio": [file.getvalue()]})
    parts = one.attribution
    assert isinstance(parts, RegionAttribution) and np.isfinite(parts.cells).all()
    sounding, silent = np.abs(parts.cells[:, : CELLS // 2]).max(), np.abs(parts.cells[:, CELLS // 2 + 1 :]).max()
    assert sounding > 10 * silent
    if family == "wav2vec2":  # equal bands, high tones on top: 0.3 of the rate is 0.6 of all, row 3 from above
        assert np.abs(parts.cells).max(axis=1).argmax() == 3
