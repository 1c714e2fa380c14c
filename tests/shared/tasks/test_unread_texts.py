"""Texts of which a tokenizer reads nothing, or knows nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.records.ragged import Encoded, Note
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.task_table import counted

ZERO_WIDTH, UNKNOWN = "\u200b\u200b", "\u3042 \u3043"
LABELS: dict[str, Any] = {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 12}
RATING: dict[str, Any] = {"kind": "recommendation", "rating_range": [1, 5], "max_length": 12}
TAGS: dict[str, Any] = {"kind": "token-classification", "labels": ["O", "X"], "max_length": 12}
CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "one label": (LABELS, {"label": "yes"}),
    "a pair": (LABELS | {"pair": True}, {"label": "yes", "text_pair": "bad"}),
    "a rating": (RATING, {"rating": "2"}),
    "tags": (TAGS, {"tags": "O"}),
}


@pytest.fixture
def encode(text_study: Callable[..., Study]) -> Callable[..., Encoded]:
    def run(task: dict[str, Any], beside: dict[str, str], texts: list[str]) -> Encoded:
        study = text_study(task)
        cells = {name: [cell] * len(texts) for name, cell in beside.items()}
        name = "tokens" if "tags" in beside else "text"
        return task_kind(study.task).encode({name: texts} | cells, load_tokenizer(find(study.model)))

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_text_without_a_token_cannot_be_used(encode: Callable[..., Encoded], case: str) -> None:
    records, problems = encode(*CASES[case], ["good", ZERO_WIDTH])
    assert records.usable.tolist() == [True, False]
    assert [(row, reason) for row, reason in problems if not isinstance(reason, Note)] == [
        (1, "its text holds no character that the tokenizer reads")
    ]
    assert [len(field[1]) > 0 for name, field in records.fields.items() if name in ("ids", "target")] == [True, True]


def test_texts_that_a_tokenizer_does_not_know_are_counted_and_stay_in_use(encode: Callable[..., Encoded]) -> None:
    records, problems = encode(*CASES["one label"], ["good", UNKNOWN, "good \u3042"])
    assert records.usable.all() and [row for row, _ in problems] == [1]
    assert counted(problems) == ["1 texts have no token that the tokenizer knows."]


def test_a_text_that_writes_a_mark_out_is_read(encode: Callable[..., Encoded]) -> None:
    records, problems = encode(*CASES["one label"], ["[SEP]"])
    assert records.usable.all() and not problems
