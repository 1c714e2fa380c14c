"""[task]: what a study declares about each kind of task. Light: whoever only reads studies loads no PyTorch.

Label lists, ranges and lengths come from the study, never from private data: a label set is data too.
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
Range = tuple[
    Annotated[float, Field(allow_inf_nan=False)],
    Annotated[float, Field(allow_inf_nan=False)],
]


class SequenceClassification(Section):
    """One text, or a pair of texts, and a label; several labels; or a rating."""

    kind: Literal["sequence-classification"]
    """One file in `shared/tasks/` for each kind."""
    labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = ()
    """Every label there is, in order, as it stands in the data. None for a rating."""
    problem: Literal["single-label", "multi-label", "rating"] = "single-label"
    """`multi-label`: a cell holds any number of labels, with | between them. `rating`: a cell holds a number."""
    rating_range: Range | None = None
    """Lowest and highest rating; others are cut off there. Only with, and needed for, a rating."""
    pair: bool = False
    """Whether a record has a second text, in the column `text_pair`."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""

    @model_validator(mode="after")
    def _labels_or_range(self) -> Self:
        _check_goal(self.labels, self.rating_range, rating=self.problem == "rating")
        return self


class TokenClassification(Section):
    """Words and one tag for each: named entities, parts of speech."""

    kind: Literal["token-classification"]
    """One file in `shared/tasks/` for each kind."""
    labels: Labels
    """Every tag there is; for entities in BIO form with `O`, as in O, B-PER, I-PER."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""


class QuestionAnswering(Section):
    """A question, a context, and the answer as a piece of that context."""

    kind: Literal["question-answering"]
    """One file in `shared/tasks/` for each kind."""
    max_length: Tokens = 256
    """Tokens of question and context together; the context's rest is cut off."""
    longest_answer: int = Field(default=30, ge=1, le=512)
    """Tokens of the longest answer that is ever given."""


class MaskedLanguageModel(Section):
    """Texts of a domain: the model learns to fill in masked words."""

    kind: Literal["masked-lm"]
    """One file in `shared/tasks/` for each kind."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of a record's tokens that are masked; which ones follows from the record alone."""


class CausalLanguageModel(Section):
    """Texts, or prompts with responses: the model learns to go on."""

    kind: Literal["causal-lm"]
    """One file in `shared/tasks/` for each kind."""
    form: Literal["text", "prompt-response", "chat"] = "text"
    """`text`: every token is learned. `prompt-response`: the response alone. `chat`: the same in the model's own chat
    template. One record is one training sequence: nothing is packed, split or joined."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""


class SequenceToSequence(Section):
    """A source text and its target: translation, summary."""

    kind: Literal["seq2seq"]
    """One file in `shared/tasks/` for each kind."""
    prefix: str = Field(default="", max_length=200)
    """Put before every source, as in `summarize: `."""
    max_length: Tokens = 128
    """Tokens of the source; the rest is cut off."""
    max_target_length: Tokens = 64
    """Tokens of the target; the rest is cut off."""
    metric: Literal["rouge", "chrf"] = "rouge"
    """`rouge` (ROUGE-L) suits summaries, `chrf` translations."""


class ImageClassification(Section):
    """One image, one label."""

    kind: Literal["image-classification"]
    """One file in `shared/tasks/` for each kind."""
    labels: Labels
    """Every label there is, in order, as it stands in the data."""


class SemanticSegmentation(Section):
    """One image, and a mask that gives every pixel a class."""

    kind: Literal["semantic-segmentation"]
    """One file in `shared/tasks/` for each kind."""
    labels: Labels
    """Every class there is, in the order of the mask's values 0, 1, 2, …"""
    ignore: int = Field(default=255, ge=0, le=255)
    """Value of pixels that count for nothing."""


class AudioClassification(Section):
    """A recording and its label: a command, an emotion, a speaker's state."""

    kind: Literal["audio-classification"]
    """One file in `shared/tasks/` for each kind."""
    labels: Labels
    """Every label there is, in order, as it stands in the data."""
    seconds: float = Field(default=1.0, gt=0, le=30, allow_inf_nan=False)
    """Heard of a recording; shorter ones are followed by silence, the rest of longer ones is cut off."""


class SpeechRecognition(Section):
    """A recording and its transcript."""

    kind: Literal["speech-recognition"]
    """One file in `shared/tasks/` for each kind."""
    seconds: float = Field(default=30.0, gt=0, le=30, allow_inf_nan=False)
    """Heard of a recording; shorter ones are followed by silence, the rest of longer ones is cut off."""
    max_target_length: Tokens = 64
    """Tokens of the transcript; the rest is cut off."""


class Recommendation(Section):
    """What a user thinks of an item: a text about it, ids, and a rating."""

    kind: Literal["recommendation"]
    """One file in `shared/tasks/` for each kind."""
    goal: Literal["rating", "ranking"] = "rating"
    """`rating` is judged by the squared error, `ranking` by NDCG@10 over the rows that share a `group`."""
    rating_range: Range
    """Lowest and highest rating; others are cut off there."""
    ids: tuple[str, ...] = ()
    """Columns whose values identify something, as in user or shop. Each value stands for a fixed public direction."""
    id_width: int = Field(default=32, ge=1, le=1024)
    """Dimensions of those directions."""
    max_length: Tokens = 128
    """Tokens kept per record; the rest is cut off."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_goal((), self.rating_range, rating=True)
        return self


Part = Annotated[SequenceClassification | TokenClassification | QuestionAnswering, Field(discriminator="kind")]


class MultiTask(Section):
    """Several text tasks on one adapter, each with a head of its own; a row's column `task` says which it is for."""

    kind: Literal["multi-task"]
    """One file in `shared/tasks/` for each kind."""
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Part] = Field(min_length=2)
    """By name. A node may hold records of some of them only."""


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
"""Length that pooled features are brought to before a linear head."""

CONTENT = (
    "audio", "context", "image", "prompt", "question", "response", "source", "target", "text", "text_pair", "tokens",
)  # fmt: skip
"""Columns, over all kinds, whose cells say which record this is: whoever shares one shares a budget. Labels do not."""
MEDIA = ("audio", "image", "mask")
"""Columns, over all kinds, whose cells name a file or hold its bytes."""
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
