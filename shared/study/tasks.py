"""Declare the task of a study, for every kind of task. Reading a study loads no PyTorch.

Label lists, ranges and lengths come from the study, never from private data: a set of labels is data, too.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from shared.section import Section


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels) or any(not label.strip() for label in labels):
        raise ValueError("labels must be distinct and not empty")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]
Tokens = Annotated[int, Field(ge=8, le=8192)]
# left out while unset: older studies keep their hash, and older nodes can read a study without it
ImageSize = Annotated[int | None, Field(ge=8, le=2048, exclude_if=lambda size: size is None)]
Range = tuple[
    Annotated[float, Field(allow_inf_nan=False)],
    Annotated[float, Field(allow_inf_nan=False)],
]


class SequenceClassification(Section):
    """[task] of one text, or a pair of texts, with a label, several labels, or a rating."""

    kind: Literal["sequence-classification"]
    """The kind of task; `shared/tasks/` has one file for each."""
    labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = ()
    """All labels, in order, as written in the data. None for a rating."""
    problem: Literal["single-label", "multi-label", "rating"] = "single-label"
    """`single-label`: a cell holds a label; `multi-label`: a list, or a text with | between; `rating`: a number."""
    rating_range: Range | None = None
    """Lowest and highest rating; ratings beyond them count as these. Needed for a rating, and only allowed there."""
    pair: bool = False
    """True if a record has a second text, in the column `text_pair`."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""

    @model_validator(mode="after")
    def _labels_or_range(self) -> Self:
        _check_goal(self.labels, self.rating_range, rating=self.problem == "rating")
        return self


class TokenClassification(Section):
    """[task] of words with one tag each, such as named entities or parts of speech."""

    kind: Literal["token-classification"]
    """The kind of task; `shared/tasks/` has one file for each."""
    labels: Annotated[Labels, Field(max_length=32_767)]
    """All tags; for entities in BIO form, as in O, B-PER, I-PER."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""


class QuestionAnswering(Section):
    """[task] of a question and a context; the answer is a piece of the context."""

    kind: Literal["question-answering"]
    """The kind of task; `shared/tasks/` has one file for each."""
    max_length: Tokens = 256
    """Tokens of question and context together; the rest of the context is cut off."""
    longest_answer: int = Field(default=30, ge=1, le=512)
    """The most tokens that an answer may have."""


class MaskedLanguageModel(Section):
    """[task] of texts in which the model learns to fill in masked words."""

    kind: Literal["masked-lm"]
    """The kind of task; `shared/tasks/` has one file for each."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of a record's tokens that are masked; the record alone decides which."""


class CausalLanguageModel(Section):
    """[task] of texts, or of prompts with responses, that the model learns to continue."""

    kind: Literal["causal-lm"]
    """The kind of task; `shared/tasks/` has one file for each."""
    form: Literal["text", "prompt-response", "chat"] = "text"
    """`text`: every token is learned. `prompt-response`: only the response. `chat`: only the response, in the model's
    own chat template. One record is one training sequence: nothing is packed, split or joined."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""


class SequenceToSequence(Section):
    """[task] of a source text and its target, such as a translation or a summary."""

    kind: Literal["seq2seq"]
    """The kind of task; `shared/tasks/` has one file for each."""
    prefix: str = Field(default="", max_length=200)
    """Text that is put before every source, as in `summarize: `."""
    max_length: Tokens = 128
    """Tokens kept of the source; the rest is cut off."""
    max_target_length: Tokens = 64
    """Tokens kept of the target; the rest is cut off."""
    metric: Literal["rouge", "chrf"] = "rouge"
    """Main metric: `rouge` (ROUGE-L) suits summaries, `chrf` suits translations."""


class ImageClassification(Section):
    """[task] of one image with one label."""

    kind: Literal["image-classification"]
    """The kind of task; `shared/tasks/` has one file for each."""
    labels: Labels
    """All labels, in order, as written in the data."""
    image_size: ImageSize = None
    """Height and width in pixels to which images are resized; fewer cost less. Default: as the base model says. Only
    for models that can fit their positions to other sizes, such as DINOv2 and ViT."""


class SemanticSegmentation(Section):
    """[task] of one image, with a mask that gives every pixel a class."""

    kind: Literal["semantic-segmentation"]
    """The kind of task; `shared/tasks/` has one file for each."""
    labels: Annotated[Labels, Field(max_length=255)]
    """All classes, in the order of the mask's values 0, 1, 2, …"""
    ignore: int = Field(default=255, ge=0, le=255)
    """Value of the mask where a pixel has no class."""
    image_size: ImageSize = None
    """Height and width in pixels to which images and masks are resized. Default: as the base model says."""


class AudioClassification(Section):
    """[task] of a recording with one label, such as a command or an emotion."""

    kind: Literal["audio-classification"]
    """The kind of task; `shared/tasks/` has one file for each."""
    labels: Labels
    """All labels, in order, as written in the data."""
    seconds: float = Field(default=1.0, gt=0, le=30, allow_inf_nan=False)
    """Length of a recording that the model hears; silence fills up shorter ones, the rest of longer ones is cut off."""


class SpeechRecognition(Section):
    """[task] of a recording and its transcript."""

    kind: Literal["speech-recognition"]
    """The kind of task; `shared/tasks/` has one file for each."""
    seconds: float = Field(default=30.0, gt=0, le=30, allow_inf_nan=False)
    """Length of a recording that the model hears; silence fills up shorter ones, the rest of longer ones is cut off."""
    max_target_length: Tokens = 64
    """Tokens kept of the transcript; the rest is cut off."""


class Recommendation(Section):
    """[task] of a text about an item, ids, and the rating that a user gives it."""

    kind: Literal["recommendation"]
    """The kind of task; `shared/tasks/` has one file for each."""
    goal: Literal["rating", "ranking"] = "rating"
    """Main metric: `rating` uses the squared error, `ranking` uses NDCG@10 over the rows that share a `group`."""
    rating_range: Range
    """Lowest and highest rating; ratings beyond them count as these."""
    ids: tuple[str, ...] = ()
    """Columns whose values identify something, such as user or shop. Each value becomes a fixed public direction."""
    id_width: int = Field(default=32, ge=1, le=1024)
    """Dimensions of each direction."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_goal((), self.rating_range, rating=True)
        return self


Part = Annotated[SequenceClassification | TokenClassification | QuestionAnswering, Field(discriminator="kind")]


class MultiTask(Section):
    """[task] of several text tasks on one adapter, each with its own head; a row's column `task` names its task."""

    kind: Literal["multi-task"]
    """The kind of task; `shared/tasks/` has one file for each."""
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Part] = Field(min_length=2)
    """The tasks by name. A node may hold records of only some of them."""


Task = Annotated[
    SequenceClassification
    | TokenClassification
    | QuestionAnswering
    | MaskedLanguageModel
    | CausalLanguageModel
    | SequenceToSequence
    | ImageClassification
    | SemanticSegmentation
    | AudioClassification
    | SpeechRecognition
    | Recommendation
    | MultiTask,
    Field(discriminator="kind"),
]

FEATURE_NORM = 4.0
"""Length to which pooled features are scaled before a linear head."""

CONTENT = (
    "audio", "context", "image", "prompt", "question", "response", "source", "target", "text", "text_pair", "tokens",
)  # fmt: skip
"""Columns, of all kinds, whose cells together say which record a row is; labels do not. Rows of equal content share a
budget, whatever their columns are called: the order here is that in which one text holds them all."""
COLUMNS = (*CONTENT, "answer", "group", "label", "mask", "rating", "tags", "task", "transcript")
"""Columns that kinds name themselves; a study can choose others, such as ids for recommendations."""
MEDIA = ("audio", "image", "mask")
"""Columns, of all kinds, whose cells name a file or hold its bytes."""
TEXTS = ("context", "prompt", "question", "response", "source", "target", "text", "text_pair")
"""Columns, of all kinds, whose cells are one text each: a list in them is none."""
KINDS: dict[str, type[Section]] = {
    kind: declaration
    for declaration in get_args(get_args(Task)[0])
    for kind in get_args(declaration.model_fields["kind"].annotation)
}
"""Every kind of task by its name: the members of `Task`, which is the only list of them."""


def _check_goal(labels: tuple[str, ...], rating_range: Range | None, *, rating: bool) -> None:
    if not rating and (len(labels) < 2 or rating_range is not None):
        raise ValueError("labels: at least two are needed, and no rating_range")
    if rating and (labels or rating_range is None or rating_range[0] >= rating_range[1]):
        raise ValueError("rating_range = [lowest, highest] is needed for a rating, and no labels")
