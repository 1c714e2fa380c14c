"""audio-classification through every role: declared, heard, trained privately, judged, exported."""

import io
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from server.export.adapter import HEAD_FILE, export
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.base_models.model_folder import PREPROCESSOR
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.tasks.sounds import waveform
from shared.tasks.task_table import counted

Studies = Callable[..., Study]
Waves = Callable[..., bytes]
TASK = {"kind": "audio-classification", "labels": ["low", "high"], "seconds": 0.4}


@pytest.fixture
def make(media_study: Studies) -> Studies:
    return lambda family="whisper", **sections: media_study(family, **{"task": TASK} | sections)


def encode(study: Study, cells: list[Any], labels: list[str]) -> Any:
    model = build(study)
    return model.kind.encode({"audio": cells, "label": labels}, model.kind.processor(model.base_files))


@pytest.mark.parametrize("seconds", [0, 31])
def test_declaration_of_impossible_seconds_is_refused(make: Studies, seconds: float) -> None:
    with pytest.raises(SettingsError, match="seconds"):
        make(task=TASK | {"seconds": seconds})


def test_whisper_hears_only_the_seconds_of_the_study(make: Studies, wav: Waves) -> None:
    study = make()
    records = encode(study, [wav(300, seconds=0.2), wav(300, seconds=3)], ["low", "low"]).records
    assert records["sound"].lengths.tolist() == [16 * 40, 16 * 40]
    model = build(study)
    batch = collate(records, [0], model.kind.fills, torch.device("cpu"))
    assert model.kind.run(model.base, batch).shape == (1, 20, 32)
    assert model.kind.fixed_tokens == 20


def test_sound_is_resampled_and_mixed_to_one_channel(wav: Waves) -> None:
    direct = waveform(wav(300, rate=8000), 8000, most_samples=4000)
    other = waveform(wav(300, rate=22_050, channels=2), 8000, most_samples=4000)
    assert len(other) == len(direct) == 4000
    np.testing.assert_allclose(other[200:-200], direct[200:-200], atol=0.02)


def not_numbers() -> bytes:
    target = io.BytesIO()
    soundfile.write(target, np.full(800, np.nan), 8000, format="WAV", subtype="FLOAT")
    return target.getvalue()


def fractions(values: Any) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, np.asarray(values, np.float32), 8000, format="WAV", subtype="FLOAT")
    return target.getvalue()


def test_recordings_that_are_cut_or_silent_are_counted(make: Studies, wav: Waves) -> None:
    opposite = np.sin(np.arange(3200)) / 2
    cells = [wav(300, seconds=1.6), wav(300, seconds=0.4), wav(300, seconds=0.1), fractions(np.zeros(3200))]
    cells.append(fractions(np.stack([opposite, -opposite], axis=1)))
    records, problems = encode(make("wav2vec2"), cells, ["low"] * 5)
    assert records.usable.all() and [problem.row for problem in problems] == [0, 3, 4]
    cut, silent = counted(problems)
    assert cut.startswith("1 recordings are longer than the 0.4 seconds that task.seconds allows")
    assert cut.endswith(" (75 % of their length).")
    assert silent == "2 recordings are silent in the seconds that are read."


def test_fractions_that_overshoot_a_little_are_cut_off(make: Studies) -> None:
    records, problems = encode(make(), [fractions(1.5 * np.sin(np.arange(3200)))], ["low"])
    assert records.usable.all() and problems == ()


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "missing": (lambda _: b"", "is missing"),
    "another kind of file": (lambda _: b"ID3 no sound", "cannot be read"),
    "damaged header": (lambda whole: b"RIFX" + whole[4:20] + b"\0" * 40, "cannot be read"),
    "cut off": (lambda whole: whole[:500], "is cut off"),
    "empty": (lambda whole: whole[:4] + (36).to_bytes(4, "little") + whole[8:40] + b"\0" * 4, "holds no sound"),
    "whole numbers stored as fractions": (
        lambda _: fractions(32_767 * np.sin(np.arange(800))),
        "and sound is read from -1 to 1",
    ),
    "not numbers": (lambda _: not_numbers(), "no numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recording_is_named_by_row_and_never_fatal(make: Studies, wav: Waves, case: str) -> None:
    spoil, reason = BAD[case]
    records, problems = encode(make(), [wav(300, seconds=0.4), spoil(wav(300))], ["low", "low"])
    assert records.usable.tolist() == [True, False]
    assert [problem.row for problem in problems] == [1] and reason in problems[0].reason


def test_hours_of_silence_in_a_small_file_are_not_unpacked(make: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    target = io.BytesIO()
    soundfile.write(target, np.zeros(8000 * 60), 8000, format="FLAC")
    taken: list[int] = []
    read = soundfile.SoundFile.read

    def counted(self: Any, frames: int, **options: Any) -> Any:
        taken.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert encode(make(), [target.getvalue()], ["low"]).records.usable.tolist() == [True]
    assert taken == [3200]


@pytest.mark.parametrize(("rate", "channels", "usable"), [(767_957, 2, True), (1009, 1, True), (768_000, 16, False)])
def test_what_a_recording_costs_in_memory_has_a_public_bound(
    make: Studies, wav: Waves, rate: int, channels: int, usable: bool
) -> None:
    cell = wav(300, seconds=0.1, rate=rate, channels=channels)
    kind = build(make()).kind
    processor = kind.processor(build(make()).base_files)
    kind.encode({"audio": [wav(300)], "label": ["low"]}, processor)  # what is loaded once
    tracemalloc.start()
    records, problems = kind.encode({"audio": [cell], "label": ["low"]}, processor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert records.usable.tolist() == [usable] and bool(problems) != usable
    assert peak < 64 * 2**20


def test_a_feature_extractor_of_another_model_is_refused(
    media_model: Any, media_study: Studies, tmp_path: Path
) -> None:
    shutil.copytree(media_model("whisper"), tmp_path, dirs_exist_ok=True)
    transformers.WhisperFeatureExtractor(feature_size=20).save_pretrained(tmp_path)
    study = media_study("whisper", task=TASK, model={"source": str(tmp_path)})
    with pytest.raises(SettingsError, match=r"gives the base model \(16, 40\) numbers, got \(20, 40\)"):
        layout_of(study)


@pytest.mark.parametrize("rate", ["8000", 8000.5])
def test_a_rate_that_is_no_whole_number_is_named(
    media_model: Any, media_study: Studies, tmp_path: Path, rate: Any
) -> None:
    shutil.copytree(media_model("wav2vec2"), tmp_path, dirs_exist_ok=True)
    path = tmp_path / PREPROCESSOR
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling_rate": rate}))
    study = media_study("wav2vec2", task=TASK, model={"source": str(tmp_path)})
    with pytest.raises(SettingsError, match=f"whole number of Hz .* got sampling_rate={rate!r}"):
        layout_of(study)


def test_model_without_a_feature_extractor_is_refused(media_study: Studies) -> None:
    with pytest.raises(SettingsError, match="a base model that reads sound"):
        build(media_study("vit", task=TASK))


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora", "dora"])
def test_gradients_are_exact(make: Studies, worst_error: Callable[[Study], float], family: str, method: str) -> None:
    assert worst_error(make(family, adapter={"method": method})) < 1e-5


def test_factors_are_exact(make: Studies, worst_error: Callable[[Study], float]) -> None:
    adapter = {"method": "ia3", "target_modules": ["k_proj", "v_proj", "fc2"]}
    assert worst_error(make(adapter=adapter)) < 1e-5


def tones(study: Study, wav: Waves, count: int = 8) -> Any:
    return encode(
        study, [wav(200 + 1500 * (n % 2)) for n in range(count)], [("low", "high")[n % 2] for n in range(count)]
    )


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_private_round_trains(make: Studies, private_round: Callable[..., Any], wav: Waves, family: str) -> None:
    study = make(family)
    assert private_round(study, tones(study, wav).records).status is Status.TRAINED


def test_judged_by_accuracy_beside_the_most_frequent_label(make: Studies, wav: Waves) -> None:
    model, records = build(make()), tones(make(), wav, 5).records
    found = evaluate(model, records, tokens=64)
    assert [truth for _, truth in found.evidence] == [0, 1, 0, 1, 0]
    constant = model.kind.constant([records], records)
    assert constant is not None and model.kind.metrics(constant)["accuracy"] == pytest.approx(3 / 5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an attribute's older name
def test_exported_adapter_answers_the_same_in_plain_peft(
    make: Studies, wav: Waves, tmp_path: Path, media_model: Callable[[str], Path]
) -> None:
    study = make("wav2vec2")
    start = initial_adapter(study)
    packed = (start + np.random.default_rng(2).normal(0, 0.1, len(start))).astype(np.float32)
    export(study, packed, tmp_path)
    model = build(study)
    model.load(packed)
    records = tones(study, wav, 3).records
    batch = collate(records, [0, 1, 2], model.kind.fills, torch.device("cpu"))

    base = transformers.AutoModel.from_pretrained(media_model("wav2vec2"))
    adapted, head = PeftModel.from_pretrained(base, tmp_path).eval(), load_file(tmp_path / HEAD_FILE)
    mean = adapted(batch["sound"]).last_hidden_state.mean(1)
    plain = 4 * torch.nn.functional.normalize(mean, dim=-1) @ head["weight"].T + head["bias"]
    torch.testing.assert_close(model(batch), plain, rtol=1e-4, atol=1e-5)
