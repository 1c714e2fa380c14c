"""Question answering: the answer's first and last token, answers that are not there, SQuAD's evaluation."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.records.ragged import Encoded, text
from shared.study.declaration import Study
from shared.tasks.question_answering import answers_in, best_piece, normalised, word_f1
from shared.tasks.registry import task_kind

TASK = {"kind": "question-answering", "max_length": 24}
CONTEXT = "In Paris lives Ada Lovelace."
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(rows: list[tuple[str, str, str]], family: str = "bert", **changed: Any) -> Encoded:
        study = text_study(TASK | changed, family)
        columns = ("question", "context", "answer")
        cells = {name: [row[number] for row in rows] for number, name in enumerate(columns)}
        return task_kind(study.task).encode(cells, load_tokenizer(find(study.model)))

    return run


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_target_is_the_answers_own_tokens(encode: Callable[..., Encoded], family: str) -> None:
    records, problems = encode([("who", CONTEXT, "Ada Lovelace")], family, max_length=48)
    first, last = records["target"][0].tolist()
    spans = records["spans"][0].reshape(-1, 2)
    assert CONTEXT[spans[first, 0] : spans[last, 1]].strip() == "Ada Lovelace" and not problems
    assert records["inside"][0][first : last + 1].all() and not records["inside"][0][0]
    assert text(records["context"], 0) == CONTEXT


BAD = {
    "answer elsewhere": (("who", CONTEXT, "Grace"), "'Grace' is not in its context"),
    "no answer": (("who", CONTEXT, " "), "is not in its context"),
    "no context": (("who", "", "Ada"), "is not in its context"),
    "no question": (("", CONTEXT, "Ada"), "its question is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named_and_its_neighbours_stay(encode: Callable[..., Encoded], case: str) -> None:
    row, reason = BAD[case]
    good = ("who", CONTEXT, "Ada")
    records, problems = encode([good, row, good])
    assert records.usable.tolist() == [True, False, True]
    assert [(p.row, reason in p.reason) for p in problems] == [(1, True)]


def test_an_answer_beyond_the_tokens_kept_teaches_nothing_and_counts_as_wrong(
    text_study: Studies, encode: Callable[..., Encoded]
) -> None:
    records, problems = encode([("who", "in paris lives " * 20 + "ada", "ada"), ("who", CONTEXT, "Ada")])
    assert records.usable.all() and records["target"][0].tolist() == [-1, -1]
    assert [(p.row, "beyond the tokens" in p.reason) for p in problems] == [(0, True)]
    model = build(text_study(TASK))
    first, second = evaluate(model, records, tokens=64).evidence
    assert first[1] == ["ada"] and first[0] != "ada" and second[1] == ["Ada"]
    assert evaluate(model, records.select(np.array([0])), tokens=64, with_loss=True).loss == 0.0


def test_a_context_of_100_000_words_is_cut_and_said(encode: Callable[..., Encoded]) -> None:
    records, problems = encode([("who", "ada lives " * 50_000, "ada")])
    assert len(records["ids"][0]) == 24 and records.usable.all() and "cut to its first" in problems[0].reason


def test_squads_own_answers_are_read_and_any_of_them_is_right(encode: Callable[..., Encoded], text_study: Any) -> None:
    cell = json.dumps({"text": ["Ada Lovelace", "Ada", "Grace"], "answer_start": [15, 15, 0]})
    assert answers_in(CONTEXT, cell) == [(15, 27), (15, 18)]
    assert answers_in("{odd} text", "{odd}") == [(0, 5)]
    second = json.dumps({"text": ["a"], "answer_start": [5]})
    assert answers_in("a is a", second) == [(5, 6)] and answers_in("a is a", "a") == [(0, 1)]
    kind = task_kind(text_study(TASK).task)
    assert kind.metrics([("Ada", ["Ada Lovelace", "Ada"])]) == {"f1": 1.0, "exact_match": 1.0}


def test_answers_are_compared_as_squad_does(text_study: Studies) -> None:
    assert normalised("The  cat, a DOG!") == "cat dog"
    assert word_f1("the Ada Lovelace", "Ada Byron Lovelace.") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert word_f1("", "the") == 1.0 and word_f1("x", "the") == 0.0
    kind = task_kind(text_study(TASK).task)
    found = kind.metrics([("Ada", ["ada!"]), ("Ada Byron", ["Ada"]), ("Grace", ["Ada"])])
    assert found == {"f1": pytest.approx((1 + 2 / 3) / 3), "exact_match": pytest.approx(1 / 3)}
    assert kind.metrics([]) == {"f1": 0.0, "exact_match": 0.0}


def test_the_best_piece_is_the_best_of_all_allowed_ones() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        begins, ends = generator.standard_normal((2, 9)).astype(np.float32)
        allowed = [(i, j) for i in range(9) for j in range(i, min(9, i + 3))]
        assert best_piece(begins, ends, longest=3) == max(allowed, key=lambda piece: begins[piece[0]] + ends[piece[1]])


def test_padding_and_the_question_are_out_of_reach(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    model, records = build(text_study(TASK)), encode([("who lives", "ada", "ada")]).records
    model.head.weight.data.normal_()
    batch = collate(records, [0], model.kind.fills, torch.device("cpu"))
    reachable = model.outputs(batch)[0, :, 0] > -1e8
    assert reachable.tolist() == [bool(n) for n in [0, 0, 0, 0, 1, 0, 0, 0]]


def test_the_constant_answer_is_the_most_frequent_one(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    records = encode([("who", CONTEXT, "Ada"), ("who", CONTEXT, "Ada"), ("where", CONTEXT, "Paris")]).records
    constant = task_kind(text_study(TASK).task).constant([records], records)
    assert constant == [("Ada", ["Ada"]), ("Ada", ["Ada"]), ("Ada", ["Paris"])]


def test_an_answer_of_no_tokens_is_no_study(text_study: Studies) -> None:
    with pytest.raises(SettingsError, match="longest_answer"):
        text_study(TASK | {"longest_answer": 0})
