"""semantic-segmentation through every role: declared, read, trained privately, judged, exported."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import jaccard_score

from server.export.adapter import HEAD_FILE, export
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build, initial_adapter
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.tasks.task_table import counted

Studies = Callable[..., Study]
Pngs = Callable[[Any], bytes]
TASK = {"kind": "semantic-segmentation", "labels": ["ground", "water", "road"]}


@pytest.fixture
def make(media_study: Studies) -> Studies:
    return lambda family="vit", **sections: media_study(family, **{"task": TASK} | sections)


def encode(study: Study, images: list[bytes], masks: list[bytes]) -> Any:
    model = build(study)
    return model.kind.encode({"image": images, "mask": masks}, model.kind.processor(model.base_files))


def test_declaration_with_one_class_is_refused(make: Studies) -> None:
    with pytest.raises(SettingsError, match="labels"):
        make(task=TASK | {"labels": ["ground"]})


def test_model_whose_states_are_coarse_is_refused(make: Studies) -> None:
    with pytest.raises(SettingsError, match="got model type 'swin'"):
        build(make("swin"))


def test_classes_are_never_mixed_where_a_mask_is_resized(make: Studies, png: Pngs) -> None:
    mask = np.zeros((40, 40))
    mask[:, 20:] = 2
    mask[0] = 255
    records = encode(make(), [png(np.zeros((40, 40)))], [png(mask)]).records
    seen = records["mask_values"][0].reshape(16, 16)
    assert set(np.unique(seen)) <= {0, 2, 255}
    assert (seen[1:, :8] == 0).all() and (seen[1:, 8:] == 2).all()


def coloured() -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(target, "PNG")
    return target.getvalue()


BAD: dict[str, tuple[Callable[[Pngs], bytes], str]] = {
    "missing": (lambda _: b"", "its mask is missing"),
    "broken": (lambda png: png(np.zeros((20, 30)))[:40], "its mask cannot be read"),
    "of another size": (lambda png: png(np.zeros((30, 20))), "has 20 x 30 pixels, its image 30 x 20"),
    "of an unknown class": (lambda png: png(np.full((20, 30), 3)), "holds 3, which is none of the study's 3 classes"),
    "in colours": (lambda _: coloured(), "more than one channel"),
    "without a pixel that counts": (lambda png: png(np.full((20, 30), 255)), "no pixel that counts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_mask_is_named_by_row_and_never_fatal(make: Studies, png: Pngs, case: str) -> None:
    image, (spoil, reason) = png(np.zeros((20, 30))), BAD[case]
    records, problems = encode(make(), [image, image], [png(np.ones((20, 30))), spoil(png)])
    assert records.usable.tolist() == [True, False]
    assert [problem.row for problem in problems] == [1] and reason in problems[0].reason


def test_a_mask_of_one_class_beside_ignored_pixels_is_counted(make: Studies, png: Pngs) -> None:
    """In most masks of two classes the second one is 255, which is what counts as no class."""
    image, binary, three = png(np.zeros((20, 30))), np.zeros((20, 30)), np.zeros((20, 30))
    binary[5:], three[5:], three[9:] = 255, 255, 2
    records, problems = encode(make(), [image] * 3, [png(binary), png(three), png(np.ones((20, 30)))])
    assert records.usable.all() and [problem.row for problem in problems] == [0]
    (line,) = counted(problems)
    assert line.startswith("1 masks have one class only beside pixels of 255, which task.ignore=255 leaves out")


def test_notes_on_an_image_with_a_mask_are_counted(make: Studies, png: Pngs) -> None:
    scan = io.BytesIO()
    Image.fromarray(np.full((20, 30), 4095, np.uint16)).save(scan, "PNG")
    records, problems = encode(make(), [scan.getvalue()], [png(np.ones((20, 30)))])
    assert records.usable.all() and ["at most 12 bits" in problem.reason for problem in problems] == [True]


def test_palette_of_a_mask_says_nothing(make: Studies, png: Pngs) -> None:
    mask, target = Image.fromarray(np.full((20, 30), 2, np.uint8)), io.BytesIO()
    mask.putpalette([255, 0, 0] * 3)
    mask.save(target, "PNG")
    records = encode(make(), [png(np.zeros((20, 30)))], [target.getvalue()]).records
    assert np.unique(records["mask_values"][0]).tolist() == [2]


@pytest.mark.parametrize("family", ["vit", "segformer"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora", "dora", "ia3"])
def test_gradients_are_exact(make: Studies, worst_error: Callable[[Study], float], family: str, method: str) -> None:
    names = {"target_modules": ["k_proj", "v_proj", "fc2"]} if method == "ia3" else {}
    assert worst_error(make(family, adapter={"method": method, **names})) < 1e-5


def scenes(study: Study, png: Pngs, count: int = 8) -> Any:
    generator = np.random.default_rng(3)
    masks = [generator.integers(0, 3, (4, 4)).repeat(4, 0).repeat(4, 1) for _ in range(count)]
    return encode(study, [png(mask * 90) for mask in masks], [png(mask) for mask in masks]).records


@pytest.mark.parametrize("family", ["vit", "segformer"])
def test_private_round_trains(make: Studies, private_round: Callable[..., Any], png: Pngs, family: str) -> None:
    study = make(family)
    assert private_round(study, scenes(study, png)).status is Status.TRAINED


def test_mean_intersection_over_union_is_that_of_all_pixels_at_once(make: Studies, png: Pngs) -> None:
    model, records = build(make()), scenes(make(), png)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(4))
    metrics = model.kind.metrics(evaluate(model, records, tokens=64).evidence)
    batch = collate(records, range(len(records)), model.kind.fills, torch.device("cpu"))
    guess = model(batch).argmax(1).flatten().numpy()
    truth = records["mask_values"].values
    assert metrics["mean_iou"] == pytest.approx(jaccard_score(truth, guess, average="macro"))
    assert metrics["pixel_accuracy"] == pytest.approx(float((truth == guess).mean()))


def test_pixels_that_do_not_count_change_neither_loss_nor_metric(make: Studies, png: Pngs) -> None:
    study = make()
    model, image = build(study), png(np.zeros((16, 16)))
    half = np.zeros((16, 16))
    half[8:] = 255
    records = encode(study, [image, image], [png(half), png(np.zeros((16, 16)))]).records
    batch = collate(records, [0, 1], model.kind.fills, torch.device("cpu"))
    assert model.losses(batch).tolist() == pytest.approx([np.log(3)] * 2)
    assert [int(true.sum()) for _, _, true in evaluate(model, records, tokens=64).evidence] == [128, 256]


def test_constant_answer_is_the_most_frequent_class(make: Studies, png: Pngs) -> None:
    model, image = build(make()), png(np.zeros((16, 16)))
    mask = np.full((16, 16), 2)
    mask[:4] = 1
    records = encode(make(), [image], [png(mask)]).records
    found = model.kind.constant([records], records)
    assert found is not None and model.kind.metrics(found)["mean_iou"] == pytest.approx(0.75 / 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an attribute's older name
def test_exported_adapter_draws_the_same_in_plain_peft(
    make: Studies, png: Pngs, tmp_path: Path, media_model: Callable[[str], Path]
) -> None:
    study = make()
    start = initial_adapter(study)
    packed = (start + np.random.default_rng(2).normal(0, 0.1, len(start))).astype(np.float32)
    export(study, packed, tmp_path)
    model = build(study)
    model.load(packed)
    batch = collate(scenes(study, png, 2), [0, 1], model.kind.fills, torch.device("cpu"))

    base = transformers.AutoModel.from_pretrained(media_model("vit"), add_pooling_layer=False)
    adapted, head = PeftModel.from_pretrained(base, tmp_path), load_file(tmp_path / HEAD_FILE)
    pixels = batch["pixels"].view(2, 3, 16, 16) / 127.5 - 1
    states = torch.nn.functional.normalize(adapted(pixel_values=pixels).last_hidden_state[:, 1:], dim=-1)
    by_patch = (4 * states @ head["weight"].T + head["bias"]).transpose(1, 2).view(2, 3, 4, 4)
    plain = torch.nn.functional.interpolate(by_patch, size=(16, 16), mode="bilinear")
    torch.testing.assert_close(model(batch), plain, rtol=1e-4, atol=1e-5)
