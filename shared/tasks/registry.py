"""The registry of task kinds. Each kind is one file beside this one; `kind` says what it must provide."""

from collections.abc import Callable
from typing import Any

from shared.study import tasks as declarations
from shared.tasks.audio_classification import AudioClassification
from shared.tasks.causal_lm import CausalLanguageModel
from shared.tasks.image_classification import ImageClassification
from shared.tasks.kind import TaskKind
from shared.tasks.masked_language_model import MaskedLanguageModel
from shared.tasks.multi_task import MultiTask
from shared.tasks.question_answering import QuestionAnswering
from shared.tasks.recommendation import Recommendation
from shared.tasks.semantic_segmentation import SemanticSegmentation
from shared.tasks.seq2seq import SequenceToSequence
from shared.tasks.sequence_classification import SequenceClassification
from shared.tasks.speech_recognition import SpeechRecognition
from shared.tasks.token_classification import TokenClassification

KINDS: dict[type[Any], Callable[[Any], TaskKind]] = {
    declarations.AudioClassification: AudioClassification,
    declarations.CausalLanguageModel: CausalLanguageModel,
    declarations.ImageClassification: ImageClassification,
    declarations.MaskedLanguageModel: MaskedLanguageModel,
    declarations.MultiTask: MultiTask,
    declarations.QuestionAnswering: QuestionAnswering,
    declarations.Recommendation: Recommendation,
    declarations.SemanticSegmentation: SemanticSegmentation,
    declarations.SequenceClassification: SequenceClassification,
    declarations.SequenceToSequence: SequenceToSequence,
    declarations.SpeechRecognition: SpeechRecognition,
    declarations.TokenClassification: TokenClassification,
}


def task_kind(task: declarations.Task) -> TaskKind:
    """The kind that a study names."""
    return KINDS[type(task)](task)
