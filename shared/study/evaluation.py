"""Declare a private evaluation: what the nodes count over the records that they hold out, and what it may cost."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from shared.section import Section
from shared.study.sections import Federation
from shared.study.tasks import (
    AudioClassification,
    ImageClassification,
    QuestionAnswering,
    SequenceClassification,
    SpeechRecognition,
    Task,
    TokenClassification,
)

CellKind = Literal["right-wrong", "confusion", "scores"]
CELL_KINDS: tuple[CellKind, ...] = get_args(CellKind)
Measure = Literal["accuracy", "macro F1", "mean score"]
OTHER = "other"
"""Group of the units whose value the study does not declare."""
MOST_CELLS = 2**16


def _distinct_values(values: tuple[str, ...]) -> tuple[str, ...]:
    forms = [" ".join(value.split()).casefold() for value in values]
    if len(set(forms)) != len(forms) or not all(forms) or OTHER in forms:
        raise ValueError(f"values must differ in more than case and spacing, none empty, and none {OTHER!r}")
    if not all(value.isprintable() and len(value) <= 80 for value in values):
        raise ValueError("values must be printable lines of at most 80 characters")
    return values


class Subgroup(Section):
    """[evaluation.subgroup]: a column whose declared values are counted apart."""

    column: str = Field(min_length=1, max_length=80)
    """Column of the records; a node's `columns` may say what it is called in its source."""
    values: Annotated[tuple[str, ...], Field(min_length=1, max_length=50), AfterValidator(_distinct_values)]
    """Its values that are counted apart, in any case and spacing. All others are one group, `other`."""


class Evaluation(Section):
    """[evaluation]: noisy counts over records that are held out, which say how good the model is at the nodes."""

    epsilon: float = Field(gt=0, le=100, allow_inf_nan=False)
    """Total cost of one run's evaluation to one unit that is held out, in all its releases, at the study's delta. Units
    that are trained on do not pay it: within a run each one is on one side, and pays the larger of the two."""
    rounds: tuple[int, ...] = Field(default=(), max_length=10_000)
    """Rounds after which the adapter is evaluated, as in [8, 16]. After the last round it always is; default: only
    then. k times cost as much as once if the noise is sqrt(k) times as large."""
    cells: CellKind = "right-wrong"
    """What is counted: `right-wrong`; `confusion`, each true label by each predicted one, for tasks with one label;
    `scores`, bins of a score from 0 to 1: of the answer's quality, or, in tasks with one label, of the model's
    confidence in it, right and wrong apart."""
    bins: int = Field(default=10, ge=2, le=100)
    """Bins of equal width, with cells = "scores"."""
    subgroup: Subgroup | None = None
    """A column whose values are counted apart, so that it shows whom the model fails. Default: one group."""
    keep: Literal["last", "best"] = "last"
    """Whose adapter the run hands out: the `last` round's, or that of the evaluated round whose estimate is `best`. It
    is chosen by what was released anyway, so it costs no privacy; the best of several noisy figures is flattered."""
    stop_after: int | None = Field(default=None, ge=1, le=1000)
    """Ends the run after so many evaluations in a row that are not better than what came before by more than their
    noise. What nodes approved stays as it was; they pay for what was done. Default: all rounds are run."""
    measure: Measure | None = None
    """By which of its estimates evaluations are compared. Default: accuracy, or the mean score where nothing is right
    or wrong."""


def has_one_label(task: Task) -> bool:
    """Return true if each record of a task has exactly one label."""
    if isinstance(task, SequenceClassification):
        return task.problem == "single-label"
    return isinstance(task, ImageClassification | AudioClassification)


def is_right_or_wrong(task: Task) -> bool:
    """Return true if an answer to a record of a task is either right as a whole, or wrong."""
    if isinstance(task, SequenceClassification):
        return task.problem != "rating"
    return has_one_label(task) or isinstance(task, TokenClassification | QuestionAnswering | SpeechRecognition)


def group_names(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the names of the groups that are counted apart; a single one has the name `all`."""
    return ("all",) if evaluation.subgroup is None else (*evaluation.subgroup.values, OTHER)


def cells_shape(evaluation: Evaluation, task: Task) -> tuple[int, ...]:
    """Return how many groups there are, and how many cells each has."""
    groups = len(group_names(evaluation))
    if evaluation.cells == "confusion":
        labels = len(getattr(task, "labels", ()))
        return (groups, labels, labels)
    if evaluation.cells == "scores":
        return (groups, evaluation.bins, 2) if has_one_label(task) else (groups, evaluation.bins)
    return (groups, 2)


def measures(evaluation: Evaluation, task: Task) -> tuple[Measure, ...]:
    """Return the estimates by which evaluations of a task can be compared, the usual one first."""
    if evaluation.cells == "confusion":
        return ("accuracy", "macro F1")
    return ("accuracy",) if evaluation.cells == "right-wrong" or has_one_label(task) else ("mean score",)


def measure_of(evaluation: Evaluation, task: Task) -> Measure:
    """Return the estimate by which evaluations of a task are compared."""
    return evaluation.measure or measures(evaluation, task)[0]


def check_evaluation(evaluation: Evaluation | None, task: Task, federation: Federation) -> None:
    """Refuse an evaluation that a study's task or rounds do not allow.

    Raises:
        ValueError: naming the first rule that it breaks.
    """
    if evaluation is None:
        return
    rounds = evaluation.rounds
    if list(rounds) != sorted(set(rounds)) or not all(1 <= number <= federation.rounds for number in rounds):
        raise ValueError(f"evaluation.rounds must ascend within 1 to federation.rounds = {federation.rounds}")
    if evaluation.cells == "confusion" and not has_one_label(task):
        raise ValueError(f"evaluation.cells = 'confusion' goes with one label for each record, not with {task.kind!r}")
    if evaluation.cells == "right-wrong" and not is_right_or_wrong(task):
        raise ValueError(f"evaluation.cells = 'right-wrong' does not go with {task.kind!r}: use 'scores'")
    cells = 1
    for length in cells_shape(evaluation, task):
        cells *= length
    if cells > MOST_CELLS:
        raise ValueError(
            f"[evaluation] counts in {MOST_CELLS} cells at most, got {cells}: leave out groups or 'confusion'"
        )
    if federation.secure_sum is not None and (evaluation.keep == "best" or evaluation.stop_after is not None):
        raise ValueError(
            "evaluation.keep = 'best' and evaluation.stop_after do not go with federation.secure_sum: sums over "
            "different nodes cannot be compared over the same units"
        )
    _check_choice(evaluation, task, times=len({*rounds, federation.rounds}))


def _check_choice(evaluation: Evaluation, task: Task, *, times: int) -> None:
    """Refuse a choice among evaluations that there cannot be.

    Raises:
        ValueError: naming the first rule that it breaks.
    """
    keep, stop_after, measure = evaluation.keep, evaluation.stop_after, evaluation.measure
    if keep == "best" and times < 2:
        raise ValueError("evaluation.keep = 'best' chooses among evaluations, got only one: name more in rounds")
    if stop_after is not None and times < stop_after + 2:
        raise ValueError(
            f"evaluation.stop_after = {stop_after} needs at least {stop_after + 2} evaluations, got {times}: the first "
            "is what others are compared with, and the last ends the run anyway"
        )
    if measure is not None and keep == "last" and stop_after is None:
        raise ValueError("evaluation.measure only goes with keep = 'best' or with stop_after")
    if measure is not None and measure not in (known := measures(evaluation, task)):
        raise ValueError(f"evaluation.measure must be one of {', '.join(known)} with these cells, got {measure!r}")
