"""Rows that somebody made on purpose, in every kind: none makes encoding fail, none changes another row."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers.convert_slow_tokenizer import bytes_to_unicode

from shared.records.ragged import Encoded, Records
from shared.study.tasks import KINDS, MEDIA, Task
from shared.tasks.images import ImageFormat
from shared.tasks.kind import MOST_CHARACTERS, TaskKind
from shared.tasks.registry import task_kind
from shared.tasks.semantic_segmentation import UNCOUNTED
from shared.tasks.sounds import SoundFormat
from shared.tasks.speech_recognition import Processor
from tests.support.hostile_cells import any_cell, images, media_cell, recordings
from tests.support.task_examples import EXAMPLES

FEW, MANY = 60, 10_000
RATE, SAMPLES = 8000, 3200
FORMS: dict[str, list[dict[str, Any]]] = {
    "sequence-classification": [
        {},
        {"problem": "multi-label"},
        {"problem": "rating", "labels": [], "rating_range": [1, 5]},
    ],
    "causal-lm": [{}, {"form": "text"}, {"form": "chat"}],
}
"""Of kinds whose encoders differ by what a study declares: changes of the example."""
CASES = [(kind, number) for kind in KINDS for number in range(len(FORMS.get(kind, [{}])))]


class Fuzzed(NamedTuple):
    """A kind, what turns its cells into arrays, some good rows, and cells for each column."""

    kind: TaskKind
    task: Any
    processor: Any
    good: Mapping[str, list[Any]]
    hostile: st.SearchStrategy[dict[str, Any]]


def _plain(tokenizer: Any, **marks: str) -> Any:
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
    made.chat_template = "{% for m in messages %}<turn>{{ m['content'] }}</s>{% endfor %}"
    return made


def _tokenizer(kind: str, text_bert: Path) -> Any:
    if kind in ("causal-lm", "seq2seq"):
        trained = tokenizers.ByteLevelBPETokenizer()
        marks = ["<pad>", "</s>", "<unk>", "<turn>"]
        words = ["ada lives in paris", "who where good bad word1"]
        trained.train_from_iterator(words * 3, vocab_size=300, special_tokens=marks, show_progress=False)
        return _plain(trained._tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")  # noqa: S106
    return transformers.AutoTokenizer.from_pretrained(text_bert)


def _processor(kind: str, text_bert: Path) -> Any:
    if kind in ("image-classification", "semantic-segmentation"):
        return ImageFormat((8, 8), (10, 10), True, 3, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    if kind not in ("audio-classification", "speech-recognition"):
        return _tokenizer(kind, text_bert)
    sound_format = SoundFormat(transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE), SAMPLES, (SAMPLES,), 4)
    if kind == "audio-classification":
        return sound_format
    letters = [*bytes_to_unicode().values(), "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    return Processor(sound_format, transformers.WhisperTokenizer(vocab=vocabulary, merges=[]))


@pytest.fixture
def fuzzed(text_bert: Path) -> Callable[[str, int], Fuzzed]:
    def make(name: str, form: int) -> Fuzzed:
        example = EXAMPLES[name]
        declared = {"kind": name, **example.declared, **FORMS.get(name, [{}])[form]}
        task: Task = TypeAdapter(Task).validate_python(declared)
        kind = task_kind(task)
        good = {column.name: list(example.rows.get(column.name, ["ada", "in", "", "x"]))[:4] for column in kind.columns}
        if getattr(task, "problem", "") == "rating":
            good["label"] = ["5", "1", "2.5", "x"]
        files = {"audio": recordings(), "image": images(), "mask": images()}
        whole = {"audio": files["audio"][4], "image": files["image"][0], "mask": files["image"][4]}
        good |= {column: [whole[column]] * 4 for column in MEDIA if column in good}
        cells = {column: media_cell(files[column]) if column in MEDIA else any_cell() for column in good}
        # one cell of a row, or all of them: the others are those of a good row
        mixed = {name: st.one_of(st.just(good[name][0]), cell) for name, cell in cells.items()}
        hostile = st.one_of(st.fixed_dictionaries(mixed), st.fixed_dictionaries(cells))
        return Fuzzed(kind, task, _processor(name, text_bert), good, hostile)

    return make


def check(case: Fuzzed, examples: int) -> None:
    alone = case.kind.encode(case.good, case.processor)
    count = len(alone.records)
    assert alone.records.usable.any()

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(rows=st.lists(case.hostile, min_size=1, max_size=3), places=st.lists(st.integers(0, count), max_size=3))
    def property_of(rows: list[dict[str, Any]], places: list[int]) -> None:
        table = [{name: cells[row] for name, cells in case.good.items()} for row in range(count)]
        for row, place in zip(rows, [*places, 0, count, 1], strict=False):
            table.insert(place, row)
        encoded = case.kind.encode({name: [row[name] for row in table] for name in case.good}, case.processor)
        assert len(encoded.records) == count + len(rows)
        good = [number for number, row in enumerate(table) if not any(row is other for other in rows)]
        for number, row in zip(good, range(count), strict=True):
            assert encoded.records.content(number) == alone.records.content(row)
            assert encoded.records.usable[number] == alone.records.usable[row]
        check_each(case, encoded)

    property_of()


def check_each(case: Fuzzed, encoded: Encoded) -> None:
    """A row is usable and in range, or there is a reason why it is not."""
    reasons = {problem.row for problem in encoded.problems}
    for row in range(len(encoded.records)):
        if encoded.records.usable[row]:
            check_in_range(case, encoded.records, row)
        else:
            assert row in reasons


def check_in_range(case: Fuzzed, records: Records, row: int) -> None:
    tokenizer = getattr(case.processor, "tokenizer", case.processor)
    lengths = {"ids": getattr(case.task, "max_length", getattr(case.task, "max_target_length", 24))}
    lengths["target"] = max(lengths["ids"], getattr(case.task, "max_target_length", 0))
    for name, field in records.fields.items():
        values = field[row]
        if values.dtype.kind == "f":
            assert np.isfinite(values).all()
        if name == "ids":
            assert 1 <= len(values) <= lengths["ids"] and values.min() >= 0 and values.max() < len(tokenizer)
        if name.endswith("target") and values.dtype.kind == "i":
            labels = len(getattr(case.task, "labels", ()))
            most = labels or (lengths["ids"] if case.task.kind in ("question-answering", "multi-task") else None)
            assert values.min(initial=-1) >= -1 and values.max(initial=-1) < (most or len(tokenizer))
            assert len(values) <= lengths["target"]
        if name == "mask_values":
            assert ((values < len(case.task.labels)) | (values == UNCOUNTED)).all() and (values != UNCOUNTED).any()


@pytest.mark.guarantee("nothing in a row makes encoding fail, or changes what another row is encoded to.")
@pytest.mark.filterwarnings("ignore")  # as where it runs: what only warns is encoded
@pytest.mark.parametrize(("kind", "form"), CASES)
def test_no_row_makes_encoding_fail_or_changes_another(fuzzed: Any, kind: str, form: int) -> None:
    check(fuzzed(kind, form), FEW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "form"), CASES)
def test_no_row_of_very_many_makes_encoding_fail(fuzzed: Any, kind: str, form: int) -> None:
    check(fuzzed(kind, form), MANY)


def test_a_cell_longer_than_any_record_may_be_is_not_looked_into(fuzzed: Any) -> None:
    case = fuzzed("sequence-classification", 0)
    rows = {**case.good, "text": [*case.good["text"][:3], "a" * (MOST_CHARACTERS + 1)]}
    encoded = case.kind.encode(rows, case.processor)
    assert encoded.records.usable.tolist()[3] is False
    assert dict(encoded.problems)[3] == "one of its cells has 5000001 characters, more than 5,000,000"


def test_what_the_study_or_the_machine_makes_fail_is_no_rows_fault(fuzzed: Any, monkeypatch: Any) -> None:
    case = fuzzed("masked-lm", 0)
    for error in (MemoryError, ImportError, KeyboardInterrupt):

        def fail(*_: Any, error: type[BaseException] = error, **__: Any) -> Sequence[Any]:
            raise error

        monkeypatch.setattr("shared.tasks.masked_lm.tokenise", fail)
        with pytest.raises(error):
            case.kind.encode(case.good, case.processor)
