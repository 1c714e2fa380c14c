"""Token classification: tags sit on words' first tokens, bad rows are named, entities are counted whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.errors import SettingsError
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.token_classification import split_cell

LABELS = ["O", "B-PER", "I-PER", "B-LOC"]
TASK = {"kind": "token-classification", "labels": LABELS, "max_length": 16}
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(tokens: list[str], tags: list[str], family: str = "bert", **changed: Any) -> Encoded:
        study = text_study(TASK | changed, family)
        return task_kind(study.task).encode({"tokens": tokens, "tags": tags}, load_tokenizer_of(study))

    return run


def load_tokenizer_of(study: Study) -> Any:
    from shared.base_models.locate import find

    return load_tokenizer(find(study.model))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_words_first_token_bears_its_tag_and_no_other_does(encode: Callable[..., Encoded], family: str) -> None:
    records, problems = encode(["ada lovelace-x lives"], ["B-PER I-PER O"], family)
    word, target = records["word"][0].tolist(), records["target"][0].tolist()
    assert [tag for tag in target if tag >= 0] == [1, 2, 0] and not problems
    assert [w for w in word if w >= 0] == [0, 1, 2] and len(word) > 5  # marks and later pieces have none
    assert word[0] == word[-1] == -1


def test_a_cell_is_words_with_spaces_or_a_json_list(encode: Callable[..., Encoded]) -> None:
    plain, listed = encode(["ada lives"], ["B-PER O"]), encode([json.dumps(["ada", "lives"])], ['["B-PER", "O"]'])
    assert plain.records["ids"][0].tolist() == listed.records["ids"][0].tolist()
    assert plain.records["target"][0].tolist() == listed.records["target"][0].tolist()
    assert split_cell("[ not json") == ["[", "not", "json"] and split_cell("[1]") == ["[1]"]


BAD = {
    "": ("", "no words"),
    "ada lives": ("O", "2 words and 1 tags"),
    "ada": ("B-ORG", "'B-ORG' is none"),
}


@pytest.mark.parametrize("tokens", BAD)
def test_a_bad_row_is_named_and_its_neighbours_stay(encode: Callable[..., Encoded], tokens: str) -> None:
    records, problems = encode(["ada", tokens, "paris"], ["B-PER", BAD[tokens][0], "B-LOC"])
    assert records.usable.tolist() == [True, False, True]
    assert [(p.row, BAD[tokens][1] in p.reason) for p in problems] == [(1, True)]


def test_a_text_of_100_000_tokens_is_cut_and_said(encode: Callable[..., Encoded]) -> None:
    records, problems = encode(["ada " * 100_000], ["B-PER " * 100_000])
    assert len(records["ids"][0]) == 16 and len(records["tags"][0]) == 100_000 and records.usable.all()
    assert "cut to its first" in problems[0].reason


def test_entities_are_counted_whole_and_words_one_by_one(text_study: Studies) -> None:
    kind = task_kind(text_study(TASK).task)
    evidence = [
        (["B-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"]),
        (["B-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O"]),  # half a person, and a place that is none
    ]
    found = kind.metrics(evidence)
    assert found == {
        "entity_f1": pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        "entity_precision": pytest.approx(1 / 3),
        "entity_recall": pytest.approx(1 / 2),
        "accuracy": pytest.approx(4 / 6),
    }
    assert set(kind.metrics([]).values()) == {0.0} == set(kind.metrics([(["O"], ["O"])]).values()) - {1.0}


def test_tags_that_name_no_entities_are_judged_by_accuracy(text_study: Studies) -> None:
    kind = task_kind(text_study(TASK | {"labels": ["NOUN", "VERB"]}).task)
    assert kind.metric == "accuracy" and kind.metrics([(["NOUN", "VERB"], ["NOUN", "NOUN"])]) == {"accuracy": 0.5}


def test_words_that_were_cut_off_count_as_outside(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    model = build(text_study(TASK))
    model.head.bias.data[1] = 9.0  # everything that is seen is a person
    encoded = encode(["ada " * 20], ["B-PER " * 20])
    ((guess, truth),) = evaluate(model, encoded.records, tokens=64).evidence
    assert truth == ["B-PER"] * 20 and guess == ["B-PER"] * 14 + ["O"] * 6


def test_a_constant_tag_and_counts_are_over_words(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    kind, records = task_kind(text_study(TASK).task), encode(["ada lives in", "x"], ["B-PER O O", "nonsense"]).records
    assert kind.counts(records) == {"O": 2, "B-PER": 1, "I-PER": 0, "B-LOC": 0}
    assert kind.constant([records], records) == [(["O", "O", "O"], ["B-PER", "O", "O"])]


@pytest.mark.parametrize("labels", [["O"], ["O", "O"], ["O", " "]])
def test_tags_must_be_several_distinct_and_not_empty(text_study: Studies, labels: list[str]) -> None:
    with pytest.raises(SettingsError, match="labels"):
        text_study(TASK | {"labels": labels})


def test_lists_of_a_parquet_file_are_read(tmp_path: Path, encode: Callable[..., Encoded]) -> None:
    import pandas as pd

    from shared.records.tables import read_table

    pd.DataFrame({"tokens": [["ada", "lives"]], "tags": [["B-PER", "O"]]}).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ["tokens", "tags"])
    assert encode(table.tokens.tolist(), table.tags.tolist()).records.usable.all()
