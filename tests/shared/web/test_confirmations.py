"""An answer counts for the question that a page asked, once and soon, and for nothing else."""

import pytest

from shared.web.confirmations import LIFE_S, MOST_OPEN, Confirmations

PATH, SHOWN = "/do/stop", {"run": "r-1"}


@pytest.mark.guarantee("a confirmation lets one write do exactly what its question asked, once, and only for a while.")
def test_a_question_is_answered_once_with_what_was_shown() -> None:
    questions = Confirmations()
    first, second = questions.ask(PATH, SHOWN), questions.ask(PATH, SHOWN)
    assert questions.take(first, PATH, SHOWN) and not questions.take(first, PATH, SHOWN)
    assert questions.take(second, PATH, SHOWN), "each question has an answer of its own"
    named = questions.ask(PATH, SHOWN, ["by", "note"])
    assert questions.take(named, PATH, SHOWN | {"by": "Ada"}), "what a person adds may be anything, or left out"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/do/resume", SHOWN),
        (PATH, {"run": "r-2"}),
        (PATH, {}),
        (PATH, SHOWN | {"merged": "on"}),
    ],
)
def test_another_answer_than_the_one_that_was_shown_counts_for_nothing(path: str, form: dict[str, str]) -> None:
    questions = Confirmations()
    confirmation = questions.ask(PATH, SHOWN)
    assert not questions.take(confirmation, path, form)
    assert not questions.take(confirmation, PATH, SHOWN), "it is used up by the try"


def test_a_question_of_long_ago_or_of_another_session_counts_for_nothing() -> None:
    now = [0.0]
    questions = Confirmations(now=lambda: now[0])
    confirmation, in_time = questions.ask(PATH, SHOWN), questions.ask(PATH, SHOWN)
    assert not Confirmations().take(confirmation, PATH, SHOWN) and not questions.take("", PATH, SHOWN)
    now[0] = LIFE_S
    assert questions.take(in_time, PATH, SHOWN)
    now[0] = LIFE_S + 1
    assert not questions.take(confirmation, PATH, SHOWN)


def test_the_oldest_questions_are_forgotten_first() -> None:
    questions = Confirmations()
    asked = [questions.ask(PATH, SHOWN) for _ in range(MOST_OPEN + 1)]
    assert not questions.take(asked[0], PATH, SHOWN) and questions.take(asked[1], PATH, SHOWN)
