"""What vision scenarios stand on: a ViT pretrained here, and masks that follow from images by a rule."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from shared.adapted_model.model import build
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.datasets import fetch
from simulations.datasets.image import digit_masks
from simulations.datasets.models import small_vit

TASK = {"kind": "image-classification", "labels": ["a", "b"]}


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), generator.integers(0, 10, count)


def test_pretraining_repeats_and_leaves_other_randomness_alone() -> None:
    before = torch.get_rng_state()
    first, second = (small_vit.pretrained(*images(12), epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_varied_images_keep_black_outside() -> None:
    varied = small_vit.varied(torch.full((4, 1, 28, 28), -1.0))
    torch.testing.assert_close(varied, torch.full((4, 1, 28, 28), -1.0))


def test_small_vit_is_a_base_model_once_it_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = fetch.ITEMS["small-vit"]._replace(build=lambda folder: small_vit.write(small_vit.fresh(), folder))
    monkeypatch.setitem(fetch.ITEMS, "small-vit", item)
    folder = fetch.fetch("small-vit", tmp_path)
    declared = {"study": {"name": "test"}, "model": {"source": str(folder)}, "task": TASK}
    model = build(parse(Study, declared, where="test"))
    assert model.kind.image_format.size == (28, 28) and model.kind.fixed_tokens == 49


def test_ink_belongs_to_its_digit_and_all_else_to_the_background(tmp_path: Path) -> None:
    digit_masks.build(tmp_path)
    table = pd.read_parquet(tmp_path / "digit-masks.parquet")
    image, mask = (np.asarray(Image.open(io.BytesIO(table[name][3]))) for name in ("image", "mask"))
    assert image.shape == mask.shape == (8, 8) and set(np.unique(mask)) == {0, 4}
    assert ((image >= 6 * 255 / 16 - 1) == (mask == 4)).all()
