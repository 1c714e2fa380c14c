"""image-classification through every role: declared, read, trained privately, judged, exported."""

import io
import json
import shutil
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

from server.export.adapter import HEAD_FILE, export
from server.export.onnx import write_onnx
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.study.declaration import Study, recorded
from shared.tasks import images
from shared.tasks.images import ImageFormat, image_format_of, open_image

Studies = Callable[..., Study]
TASK = {"kind": "image-classification", "labels": ["dark", "light"]}


@pytest.fixture
def make(media_study: Studies) -> Studies:
    return lambda family="vit", **sections: media_study(family, task=TASK, **sections)


def encode(study: Study, cells: list[Any], labels: list[str]) -> Any:
    model = build(study)
    return model.kind.encode({"image": cells, "label": labels}, model.kind.processor(model.base_files))


def test_declaration_without_labels_is_refused(media_study: Studies) -> None:
    with pytest.raises(SettingsError, match="labels"):
        media_study("vit", task={"kind": "image-classification"})


def test_pixels_are_resized_and_enter_the_model_from_minus_one_to_one(make: Studies, png: Callable[..., bytes]) -> None:
    records, problems = encode(make(), [png(np.full((40, 20), 255))], ["light"])
    assert records["pixels"].values.dtype == np.uint8 and problems == ()
    assert records["pixels"].lengths.tolist() == [3 * 16 * 16]
    kind = build(make()).kind
    assert kind.image_format.normalised(torch.from_numpy(records["pixels"][0])[None]).unique().tolist() == [1.0]


BAD = {
    "missing": (b"", "is missing"),
    "another kind of file": (b"%PDF-1.4", "cannot be read"),
    "truncated": (None, "cannot be read"),
    "vector graphics": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_image_is_named_by_row_and_never_fatal(make: Studies, png: Callable[..., bytes], case: str) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (30, 30)))
    cell, reason = BAD[case]
    records, problems = encode(make(), [whole, whole[:200] if cell is None else cell], ["dark", "light"])
    assert records.usable.tolist() == [True, False]
    assert [problem.row for problem in problems] == [1] and reason in problems[0].reason


def test_colours_that_are_not_converted_are_one_rows_own(make: Studies, png: Callable[..., bytes]) -> None:
    target = io.BytesIO()
    Image.new("LAB", (20, 20)).save(target, "TIFF")
    greys = ImageFormat((8, 8), (8, 8), False, 1, 2, 1 / 255, (0.5,), (0.5,))
    cells = [png(np.zeros((8, 8))), target.getvalue(), png(np.full((8, 8), 255))]
    records, problems = build(make()).kind.encode({"image": cells, "label": ["dark"] * 3}, greys)
    assert records.usable.tolist() == [True, False, True]
    assert problems == ((1, "it cannot be encoded: ValueError"),)
    assert [set(records["pixels"][row].tolist()) for row in range(3)] == [{0}, {0}, {255}]


def test_decompression_bomb_is_refused_before_it_is_unpacked(
    make: Studies, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = io.BytesIO()
    Image.new("1", (9000, 8000)).save(target, "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda _self: pytest.fail("unpacked"))
    records, problems = encode(make(), [target.getvalue()], ["dark"])
    assert not records.usable[0] and "more than 64,000,000" in problems[0].reason


def test_unknown_label_is_named_by_row(make: Studies, png: Callable[..., bytes]) -> None:
    records, problems = encode(make(), [png(np.zeros((8, 8)))], ["grey"])
    assert not records.usable[0] and "'grey'" in problems[0].reason


def test_cell_may_name_a_file(make: Studies, png: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((8, 8))))
    cells = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert encode(make(), cells, ["dark", "dark"]).records.usable.tolist() == [True, False]


@pytest.mark.parametrize("said", [{"image_std": [0.5, 0, 0.5]}, {"image_mean": [0.5, 0.5]}, {"resample": 6}])
def test_preprocessor_that_no_image_survives_is_refused(
    media_model: Any, media_study: Studies, tmp_path: Path, said: dict[str, Any]
) -> None:
    shutil.copytree(media_model("vit"), tmp_path, dirs_exist_ok=True)
    (tmp_path / images.PREPROCESSOR).write_text(json.dumps(said))
    with pytest.raises(SettingsError, match=images.PREPROCESSOR):
        layout_of(media_study("vit", task=TASK, model={"source": str(tmp_path)}))


def test_preprocessor_of_the_model_is_followed(tmp_path: Path, png: Callable[..., bytes]) -> None:
    said = {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 4, "width": 4}}
    said |= {"image_mean": [0.25] * 3, "image_std": [0.5] * 3, "resample": 0}
    (tmp_path / images.PREPROCESSOR).write_text(json.dumps(said))
    image_format = image_format_of(tmp_path, transformers.ViTConfig(image_size=4, patch_size=2))
    picture = np.zeros((8, 16))
    picture[2:6, 6:10] = 255
    found = image_format.pixels(open_image(png(picture)))
    assert (found == 255).all()
    assert image_format.normalised(torch.from_numpy(found)[None]).unique().tolist() == [1.5]


def entering(folder: Path, **declared: Any) -> list[float]:
    """Return a red pixel as a model with this preprocessor reads it."""
    (folder / images.PREPROCESSOR).write_text(json.dumps(declared))
    image_format = image_format_of(folder, transformers.ViTConfig(image_size=2, patch_size=1))
    pixels = image_format.pixels(Image.new("RGB", (2, 2), "red"))
    values = image_format.normalised(torch.from_numpy(pixels)[None])[0, :, 0, 0]
    return [float(value) for value in values]


def test_pixels_are_rescaled_and_ordered_as_the_preprocessor_says(tmp_path: Path) -> None:
    assert entering(tmp_path) == [1, -1, -1]
    middle = {"image_mean": [127.5] * 3, "image_std": [127.5] * 3}
    assert entering(tmp_path, do_rescale=False, **middle) == [1, -1, -1]
    assert entering(tmp_path, do_rescale=False, do_normalize=False) == [255, 0, 0]
    assert entering(tmp_path, do_flip_channel_order=True) == [-1, -1, 1]


@pytest.mark.parametrize(
    "declared",
    [
        {"image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"image_mean": [123.7] * 3, "image_std": [1] * 3},
        {"do_rescale": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ],
)
def test_means_in_other_units_than_the_pixels_are_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"image_mean and image_std in .* in the units of pixels"):
        entering(tmp_path, **declared)


def test_sixteen_bit_greys_keep_their_contrast() -> None:
    target = io.BytesIO()
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)).save(target, "PNG")
    assert np.asarray(open_image(target.getvalue())).tolist() == [[0, 128, 255]]


def test_dinov2_reads_images_of_its_preprocessors_size_and_not_of_its_positions(make: Studies) -> None:
    kind = build(make("dinov2")).kind
    assert kind.image_format.size == (16, 16) and kind.fixed_tokens == 16, "not 32, for which it has positions"


@pytest.mark.parametrize("family", ["vit", "deit", "swin", "dinov2"])
def test_a_study_chooses_the_size_of_its_images(
    media_study: Studies, worst_error: Callable[[Study], float], png: Callable[..., bytes], family: str
) -> None:
    study = media_study(family, task=TASK | {"image_size": 24})
    kind = build(study).kind
    assert kind.image_format.size == (24, 24)
    assert encode(study, [png(np.zeros((8, 8)))], ["dark"]).records["pixels"].lengths.tolist() == [3 * 24 * 24]
    assert worst_error(study) < 1e-5


def test_another_size_cuts_off_the_same_share(tmp_path: Path) -> None:
    said = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
    (tmp_path / images.PREPROCESSOR).write_text(json.dumps(said))
    config = transformers.Dinov2Config(image_size=518, patch_size=14)
    assert image_format_of(tmp_path, config).resized == (256, 256)
    image_format = image_format_of(tmp_path, config, side=84)
    assert (image_format.size, image_format.resized, image_format.keep_aspect) == ((84, 84), (96, 96), True)
    with pytest.raises(SettingsError, match="at least one patch of 14 pixels"):
        image_format_of(tmp_path, config, side=13)


def test_a_model_with_positions_for_one_size_refuses_another(make: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    base = build(make()).base
    assert images.positions(base, (16, 16)) == {}
    monkeypatch.setattr(type(base), "forward", lambda self, pixel_values: None)
    with pytest.raises(SettingsError, match=r"task\.image_size=16 for a vit, got 24"):
        images.positions(base, (24, 24))


def test_a_study_that_chooses_no_size_is_hashed_as_before_sizes_could_be_chosen(media_study: Studies) -> None:
    study = media_study("vit", task=TASK)
    assert "image_size" not in study.canonical_json() and "image_size" not in study.model_dump()["task"]
    assert media_study("vit", task=TASK | {"image_size": 24}).sha256 != study.sha256
    assert recorded(study.model_dump(), where="dump") == study


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "swin"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
def test_gradients_are_exact(make: Studies, worst_error: Callable[[Study], float], family: str, method: str) -> None:
    assert worst_error(make(family, adapter={"method": method})) < 1e-5


@pytest.mark.parametrize("family", ["vit", "dinov2", "swin"])
@pytest.mark.parametrize(
    "adapter", [{"method": "dora"}, {"method": "ia3", "target_modules": ["k_proj", "v_proj", "fc2"]}]
)
def test_vectorised_gradients_are_exact(
    make: Studies, worst_error: Callable[[Study], float], family: str, adapter: dict[str, Any]
) -> None:
    assert worst_error(make(family, adapter=adapter)) < 1e-5


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_last_layers_of_a_vit_are_adapted_alone(make: Studies, method: str) -> None:
    names = {"target_modules": ["k_proj", "v_proj", "fc2"]} if method == "ia3" else {}
    model = build(make(adapter={"layers": "last:1", "method": method, **names}))
    trained = [name for name, _ in model.layout.tensors if not name.startswith("head.")]
    assert trained and all(".layers.1." in name for name in trained)


def test_last_layers_of_a_model_of_stages_are_refused(make: Studies) -> None:
    with pytest.raises(SettingsError, match="'all' for a swin"):
        build(make("swin", adapter={"layers": "last:1"}))


def shades(study: Study, png: Callable[..., bytes], count: int = 12) -> Any:
    generator = np.random.default_rng(1)
    cells = [png(generator.integers(0, 60, (16, 16)) + 190 * (n % 2)) for n in range(count)]
    return encode(study, cells, [("dark", "light")[n % 2] for n in range(count)]).records


def test_private_round_trains(make: Studies, private_round: Callable[..., Any], png: Callable[..., bytes]) -> None:
    study = make()
    assert private_round(study, shades(study, png)).status is Status.TRAINED


def test_judged_by_accuracy_and_macro_f1(make: Studies, png: Callable[..., bytes]) -> None:
    model = build(make())
    found = evaluate(model, shades(make(), png, 6), tokens=64)
    assert [truth for _, truth in found.evidence] == [0, 1, 0, 1, 0, 1]
    metrics = model.kind.metrics([(0, 0), (1, 0), (1, 1), (1, 1)])
    assert metrics["accuracy"] == 0.75 and metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an attribute's older name
def test_exported_adapter_answers_the_same_in_plain_peft(
    make: Studies, png: Callable[..., bytes], tmp_path: Path, media_model: Callable[[str], Path]
) -> None:
    study = make()
    packed = initial_adapter(study) + np.random.default_rng(2).normal(0, 0.1, len(initial_adapter(study)))
    export(study, packed.astype(np.float32), tmp_path)
    model = build(study)
    model.load(packed.astype(np.float32))
    records = shades(study, png, 3)
    batch = collate(records, [0, 1, 2], model.kind.fills, torch.device("cpu"))

    base = transformers.AutoModel.from_pretrained(media_model("vit"), add_pooling_layer=False)
    adapted, head = PeftModel.from_pretrained(base, tmp_path), load_file(tmp_path / HEAD_FILE)
    pixels = torch.from_numpy(records["pixels"].values.reshape(3, 3, 16, 16)) / 127.5 - 1
    mean = adapted(pixel_values=pixels).last_hidden_state[:, 1:].mean(1)
    plain = 4 * torch.nn.functional.normalize(mean, dim=-1) @ head["weight"].T + head["bias"]
    torch.testing.assert_close(model(batch), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_an_image_model_leaves_as_onnx(make: Studies, tmp_path: Path, family: str) -> None:
    study = make(family)
    adapter = 0.3 * np.random.default_rng(0).standard_normal(layout_of(study).length).astype(np.float32)
    export(study, adapter, tmp_path / "adapter")
    assert write_onnx(tmp_path / "adapter", tmp_path / "onnx") <= 1e-4
