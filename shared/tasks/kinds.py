"""The registry of task kinds. Each kind is one file beside this one; `kind` says what it must provide."""

from collections.abc import Callable
from typing import Any

from shared.tasks import declarations
from shared.tasks.audio_classification import AudioClassification
from shared.tasks.image_classification import ImageClassification
from shared.tasks.kind import TaskKind
from shared.tasks.semantic_segmentation import SemanticSegmentation
from shared.tasks.sequence_classification import SequenceClassification
from shared.tasks.speech_recognition import SpeechRecognition

KINDS: dict[type[Any], Callable[[Any], TaskKind]] = {
    declarations.AudioClassification: AudioClassification,
    declarations.ImageClassification: ImageClassification,
    declarations.SemanticSegmentation: SemanticSegmentation,
    declarations.SequenceClassification: SequenceClassification,
    declarations.SpeechRecognition: SpeechRecognition,
}


def task_kind(task: declarations.Task) -> TaskKind:
    """The kind that a study names."""
    return KINDS[type(task)](task)
