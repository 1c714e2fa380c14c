"""One declaration and a few rows for every task kind; a media cell holds the bytes that its file has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from shared.study.tasks import MEDIA


class Example(NamedTuple):
    """A task as a study declares it, and a table that it can read."""

    declared: Mapping[str, Any]
    rows: Mapping[str, Sequence[str]]


EXAMPLES: dict[str, Example] = {
    "sequence-classification": Example(
        {"labels": ["no", "yes"], "pair": True, "max_length": 24},
        {
            "text": ["good word1", "bad", "Good  WORD1", "word2 word3", "", "bad"],
            "text_pair": ["word2", "", "word2", "good", "bad", "bad"],
            "label": ["yes", "no", "no", "yes", "no", "other"],
        },
    ),
    "token-classification": Example(
        {"labels": ["O", "B-PER", "I-PER"], "max_length": 24},
        {
            "tokens": ["ada lives in paris", "paris ada", '["who", "lives"]', "ada lives in paris", "bad", ""],
            "tags": ["B-PER O O O", "O B-PER", "O O", "O O O B-PER", "?", ""],
        },
    ),
    "question-answering": Example(
        {"max_length": 24},
        {
            "question": ["who lives", "where lives ada", "who", "who lives", "", "where"],
            "context": ["ada lives in paris", "in paris ada lives .", "bad", "ada in paris", "ada", "paris"],
            "answer": ["ada", "paris", "good", "ada", "ada", '{"text": ["paris"], "answer_start": [0]}'],
        },
    ),
    "masked-lm": Example(
        {"max_length": 24, "masked": 0.3},
        {"text": ["ada lives in paris .", "good bad word1 word2", "", "Ada lives in Paris .", "who", "where"]},
    ),
    "causal-lm": Example(
        {"form": "prompt-response", "max_length": 24},
        {
            "prompt": ["who lives in paris", "where lives ada", "who", "who lives in paris", "", "good"],
            "response": ["ada", "paris", "ada", "bad", "good", ""],
        },
    ),
    "seq2seq": Example(
        {"max_length": 24, "max_target_length": 8},
        {
            "source": ["ada lives in paris", "who", "good word1", "ada lives in paris", "", "bad"],
            "target": ["ada", "word1", "bad", "paris", "good", ""],
        },
    ),
    "image-classification": Example(
        {"labels": ["a", "b"]},
        {"image": ["one", "two", "three", "one", "", "four"], "label": ["a", "b", "a", "b", "a", "c"]},
    ),
    "semantic-segmentation": Example(
        {"labels": ["a", "b"]},
        {"image": ["one", "two", "three", "one", "", "four"], "mask": ["five", "six", "one", "seven", "eight", ""]},
    ),
    "audio-classification": Example(
        {"labels": ["a", "b"], "seconds": 0.4},
        {"audio": ["one", "two", "three", "one", "", "four"], "label": ["a", "b", "a", "b", "a", "c"]},
    ),
    "speech-recognition": Example(
        {"seconds": 0.4, "max_target_length": 16},
        {"audio": ["one", "two", "three", "one", "", "four"], "transcript": ["who", "ada", "", "who", "bad", "good"]},
    ),
    "recommendation": Example(
        {"goal": "ranking", "rating_range": [1, 5], "ids": ["user"], "id_width": 12, "max_length": 24},
        {
            "text": ["good word1", "bad", "word2 word3 good", "", "good word1", "bad"],
            "rating": ["5", "1", "4", "3", "2", "x"],
            "user": ["u1", "", "u2", "u1", "u2", "u3"],
            "group": ["g", "g", "g", "g", "h", ""],
        },
    ),
    "multi-task": Example(
        {
            "tasks": {
                "mood": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
                "names": {"kind": "token-classification", "labels": ["O", "B-PER", "I-PER"], "max_length": 24},
                "reading": {"kind": "question-answering", "max_length": 24},
            },
        },
        {
            "task": ["mood", "names", "reading", "who knows", "mood", "reading"],
            "text": ["good word1", "", "", "bad", "ada", ""],
            "label": ["yes", "", "", "no", "no", ""],
            "tokens": ["", "ada lives", "", "", "", ""],
            "tags": ["", "B-PER O", "", "", "", ""],
            "question": ["", "", "who lives in paris", "", "", "who"],
            "context": ["", "", "ada lives in paris", "", "", "ada lives in paris"],
            "answer": ["", "", "ada", "", "", "ada"],
        },
    ),
}


def write_example(example: Example, folder: Path) -> Path:
    """Write an example's table, and a file for each of its media cells; return the table's path."""
    table = pd.DataFrame(dict(example.rows))
    for name in MEDIA:
        for content in {*table.get(name, ())} - {""}:
            (folder / f"{content}.bin").write_bytes(content.encode())
        if name in table:
            table[name] = [f"{content}.bin" if content else "" for content in table[name]]
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return path
