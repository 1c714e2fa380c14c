"""speech-recognition through every role: declared, heard, trained privately, transcribed, exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel

from server.export.adapter import export
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.records.ragged import text
from shared.study.declaration import Study
from shared.tasks.speech_recognition import normalised, written_ids

Studies = Callable[..., Study]
Waves = Callable[..., bytes]
TASK = {"kind": "speech-recognition", "seconds": 0.4, "max_target_length": 16}


@pytest.fixture
def make(media_study: Studies) -> Studies:
    return lambda **sections: media_study("whisper", **{"task": TASK} | sections)


def encode(study: Study, cells: list[bytes], transcripts: list[str]) -> Any:
    model = build(study)
    return model.kind.encode({"audio": cells, "transcript": transcripts}, model.kind.processor(model.base_files))


def test_transcript_longer_than_the_model_writes_is_refused(make: Studies) -> None:
    with pytest.raises(SettingsError, match="max_target_length of at most 40"):
        build(make(task=TASK | {"max_target_length": 50}))


def test_the_longest_transcript_that_the_model_writes_has_positions_in_every_batch(make: Studies, wav: Waves) -> None:
    model = build(make(task=TASK | {"max_target_length": 40}, adapter={"layers": "all"}))
    rows = {"audio": [wav(300)], "transcript": ["word " * 100]}
    records = model.kind.encode(rows, model.kind.processor(model.base_files)).records
    assert records["ids"].lengths.tolist() == [40] and records.usable.all()
    activations = open_activations(model, records, torch.device("cpu"), folder=None, limit_bytes=0)
    assert model.losses(activations.batch([0])).isfinite().all()


def test_every_token_but_the_prompt_is_learned(make: Studies, wav: Waves) -> None:
    records = encode(make(), [wav(300)], ["Hi."]).records
    assert records["ids"][0].tolist()[:2] == [257, 260] and records["ids"][0].tolist()[-1] == 256
    assert records["target"][0].tolist() == [-1, -1, *records["ids"][0].tolist()[2:]]
    assert text(records["transcript"], 0) == "hi"


def test_bad_rows_are_named_and_never_fatal(make: Studies, wav: Waves) -> None:
    cells, transcripts = [wav(300), b"noise", wav(300), wav(300)], ["one", "two", " ... ", "word " * 100_000]
    records, problems = encode(make(), cells, transcripts)
    assert records.usable.tolist() == [True, False, False, True]
    reasons = {problem.row: problem.reason for problem in problems}
    assert "cannot be read" in reasons[1] and "no words" in reasons[2] and "was cut" in reasons[3]
    assert len(records["ids"][3]) == 16


@pytest.mark.parametrize("method", ["ffa-lora", "lora", "dora", "ia3"])
def test_gradients_are_exact(make: Studies, worst_error: Callable[[Study], float], method: str) -> None:
    names = {"target_modules": ["k_proj", "v_proj", "fc2"]} if method == "ia3" else {}
    assert worst_error(make(adapter={"method": method, **names})) < 1e-5


def test_loss_is_the_mean_over_a_records_own_tokens(make: Studies, wav: Waves) -> None:
    study = make()
    model = build(study)
    records = encode(study, [wav(300), wav(900)], ["a", "a longer one"]).records
    together = model.losses(collate(records, [0, 1], model.kind.fills, torch.device("cpu")))
    for n in range(2):
        sound = torch.from_numpy(records["sound"][n].astype(np.float32)).view(1, 16, 40)
        ids, target = (torch.from_numpy(records[name][n].astype(np.int64))[None] for name in ("ids", "target"))
        labels = target[:, 1:].clone()
        logits = model.base(input_features=sound, decoder_input_ids=ids[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits[0], labels[0], ignore_index=-1)
        torch.testing.assert_close(together[n], expected, rtol=1e-5, atol=1e-5)


def test_private_round_trains(make: Studies, private_round: Callable[..., Any], wav: Waves) -> None:
    study = make()
    records = encode(study, [wav(200 + 150 * n) for n in range(8)], ["low", "high"] * 4).records
    assert private_round(study, records).status is Status.TRAINED


@pytest.mark.filterwarnings("ignore")  # transformers warns about its own defaults when it generates
def test_transcripts_are_those_of_transformers_greedy_search(make: Studies, wav: Waves) -> None:
    model = build(make())
    records = encode(make(), [wav(200), wav(1500)], ["low", "high"]).records
    sound = model.kind.sound_format.shaped(collate(records, [0, 1], model.kind.fills, torch.device("cpu"))["sound"])
    ours = written_ids(model.base, sound, [257, 260], end=256, most=10)
    given = torch.tensor([[257, 260]] * 2)
    whisper = model.base.get_base_model()
    plain = transformers.GenerationMixin.generate(
        whisper, input_features=sound, decoder_input_ids=given, max_new_tokens=10, do_sample=False
    )
    assert ours == [row[: row.index(256)] if 256 in row else row for row in plain[:, 2:].tolist()]


def test_judged_by_word_errors(make: Studies, wav: Waves) -> None:
    model = build(make())
    records = encode(make(), [wav(200), wav(1500)], ["Two", "THREE!"]).records
    assert [truth for _, truth in evaluate(model, records, tokens=64).evidence] == ["two", "three"]
    # one substitution, one deletion and one insertion over six words
    metrics = model.kind.metrics([("a x c", "a b c"), ("d", "d e"), ("f g", "f")])
    assert metrics == {"wer": pytest.approx(3 / 6), "exact_match": 0.0}
    assert model.kind.metrics([])["wer"] == 1.0


def test_normalised_text_has_neither_case_nor_punctuation() -> None:
    assert normalised("  Don't — STOP, it's 5 o’clock!") == "dont stop its 5 oclock"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an attribute's older name
def test_exported_adapter_writes_the_same_in_plain_peft(
    make: Studies, wav: Waves, tmp_path: Path, media_model: Callable[[str], Path]
) -> None:
    study = make(task=TASK | {"seconds": 2.0})  # all that this model hears, so that nothing is cut
    start = initial_adapter(study)
    packed = (start + np.random.default_rng(2).normal(0, 0.1, len(start))).astype(np.float32)
    export(study, packed, tmp_path)
    model = build(study)
    model.load(packed)
    batch = collate(encode(study, [wav(300)], ["one"]).records, [0], model.kind.fills, torch.device("cpu"))

    base = transformers.WhisperForConditionalGeneration.from_pretrained(media_model("whisper"))
    adapted = PeftModel.from_pretrained(base, tmp_path).eval()
    plain = adapted(input_features=batch["sound"].view(1, 16, 200), decoder_input_ids=batch["ids"]).logits
    torch.testing.assert_close(model(batch), plain, rtol=1e-4, atol=1e-5)


def test_recordings_longer_than_the_positions_are_refused_when_the_study_is_read(
    media_study: Callable[..., Study],
) -> None:
    layout_of(media_study("whisper", task={"kind": "speech-recognition", "seconds": 2.0, "max_target_length": 16}))
    with pytest.raises(SettingsError, match=r"^Expected task.seconds of at most 2 for this base model, got 3\.$"):
        layout_of(media_study("whisper", task={"kind": "speech-recognition", "seconds": 3.0, "max_target_length": 16}))
