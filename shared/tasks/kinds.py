"""The registry of task kinds. Each kind is one file beside this one; `kind` says what it must provide."""

from collections.abc import Callable
from typing import Any

from shared.tasks import declarations
from shared.tasks.causal_lm import CausalLanguageModel
from shared.tasks.kind import TaskKind
from shared.tasks.seq2seq import SequenceToSequence
from shared.tasks.sequence_classification import SequenceClassification

KINDS: dict[type[Any], Callable[[Any], TaskKind]] = {
    declarations.SequenceClassification: SequenceClassification,
    declarations.CausalLanguageModel: CausalLanguageModel,
    declarations.SequenceToSequence: SequenceToSequence,
}


def task_kind(task: declarations.Task) -> TaskKind:
    """The kind that a study names."""
    return KINDS[type(task)](task)
