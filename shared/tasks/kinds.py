"""The registry of task kinds. Each kind is one file beside this one; `kind` says what it must provide."""

from collections.abc import Callable
from typing import Any

from shared.tasks import declarations
from shared.tasks.kind import TaskKind
from shared.tasks.masked_language_model import MaskedLanguageModel
from shared.tasks.multi_task import MultiTask
from shared.tasks.question_answering import QuestionAnswering
from shared.tasks.recommendation import Recommendation
from shared.tasks.sequence_classification import SequenceClassification
from shared.tasks.token_classification import TokenClassification

KINDS: dict[type[Any], Callable[[Any], TaskKind]] = {
    declarations.SequenceClassification: SequenceClassification,
    declarations.TokenClassification: TokenClassification,
    declarations.QuestionAnswering: QuestionAnswering,
    declarations.MaskedLanguageModel: MaskedLanguageModel,
    declarations.MultiTask: MultiTask,
    declarations.Recommendation: Recommendation,
}


def task_kind(task: declarations.Task) -> TaskKind:
    """The kind that a study names."""
    return KINDS[type(task)](task)
