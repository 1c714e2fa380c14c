"""Declare the sections of a study, except its task: model, adapter, privacy, training, federation, performance."""

import math
import re
from collections.abc import Iterable
from operator import not_
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, field_validator

from shared.protocol.update_encoding import DeclaredWire
from shared.section import Positive, Section

RECORD = "record"
UNIT_PATTERN = r"^[a-z][a-z0-9_]*$"
RECORDS_PER_UNIT = 16
BUNDLED_PREFIX, RECORDED_PREFIX = "bundled:", "embedded:"
"""Prefix of a bundled model as people write it, and as a study records it; both may be declared."""
AGGREGATIONS_BEFORE_FREE_NAMES = ("ffa", "fedit")
"""Names that nodes older than protocol version 6 know."""
MOST_WEIGHT = 4
"""The most typical sites that one site may count as."""

LayerPattern = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(\*[A-Za-z0-9_.-]+)?\*?$", max_length=100, min_length=1)
]
"""A regular expression of a server that every machine matches in no time."""
BaseWeights = Literal["float32", "bfloat16", "4bit"]
HELD: dict[BaseWeights, str] = {
    "float32": "",
    "bfloat16": "held in bfloat16",
    "4bit": "held in four bits a number (NF4, blocks of 64), the rest in bfloat16",
}
Stated = Literal["purpose", "requester", "contact", "legal_basis", "retention"]
STATED: tuple[Stated, ...] = get_args(Stated)
"""Keys of [study] that say who asks and why; a node's policy may require them."""


def in_words(names: Iterable[str]) -> str:
    """Return names of keys as words with commas between."""
    return ", ".join(name.replace("_", " ") for name in names)


class Identity(Section):
    """[study]: its name, who asks, and why. Texts that are left out are no part of the identity."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[\w .-]+$")
    """Shown in tables and reports."""
    description: str = Field(default="", max_length=2000)
    """The study in a few sentences. Without a `purpose` it counts as one, as it did before there was that key."""
    # left out of every dump while they are: folders, stores and adapters from before these keys go on as they are
    purpose: str = Field(default="", max_length=2000, exclude_if=not_)
    """Why it is done, in words that a data-protection officer can judge. One line, like the four that follow."""
    requester: str = Field(default="", max_length=200, exclude_if=not_)
    """The organisation or person who asks for it and answers for it."""
    contact: str = Field(default="", max_length=200, exclude_if=not_)
    """Whom to ask about it: an address that is read."""
    legal_basis: str = Field(default="", max_length=500, exclude_if=not_)
    """What allows the use of the records, such as a law's article, a contract or an ethics vote."""
    retention: str = Field(default="", max_length=500, exclude_if=not_)
    """How long the result is kept, and by whom."""

    @field_validator(*STATED)
    @classmethod
    def _one_printable_line(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("must be one line of printable text")
        if text and not text.strip():
            raise ValueError("must say something, or be left out")
        return text

    @property
    def stated_purpose(self) -> str:
        """The purpose, which older studies state as their description."""
        return self.purpose or self.description

    @property
    def unstated(self) -> tuple[str, ...]:
        """Return which of purpose, requester, contact, legal basis and retention are not stated."""
        stated = {"purpose": self.stated_purpose}
        texts = {name: stated.get(name, getattr(self, name)) for name in STATED}
        # blanks of no width are not a purpose
        return tuple(name for name, text in texts.items() if not any(map(str.isalnum, text)))


class Model(Section):
    """[model]: the pretrained base model, the same for everyone."""

    source: str = Field(min_length=1)
    """`bundled:minilm`, a local directory (`./models/bert`), or a hub id (`org/name`)."""
    revision: str | None = None
    """Commit of a hub model. Required for a hub id: the files behind a name can change."""
    fingerprint: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over weights, configuration and tokenizer files; another model is refused. Default:
    none is checked; a server fills in that of its own copy when it starts a run."""
    fingerprint_version: Literal[1, 2] = 1
    """Which files the fingerprint covers. `2`: every file that is read of the model's folder. `1`, as in older studies:
    without special tokens, added tokens and processor; a folder where these change what is computed is refused."""

    # left out of every dump while they say nothing: folders, stores and adapters from before them go on as they are
    base_weights: BaseWeights = Field(default="float32", exclude_if=lambda value: value == "float32")
    """In which numbers the base model is held: `float32`; `bfloat16`, two bytes a weight, in which it also computes; or
    `4bit`, NF4 in blocks of 64, for the matrices of linear layers, and bfloat16 for all else. Adapter, head, gradients
    and sums stay float32 and above. Another choice is another function, so it is part of the identity; not if it is
    `float32`. Only with `ffa-lora`, `lora` and `head-only`. Nodes older than this key refuse it."""
    loaded_fingerprint: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", exclude_if=lambda value: value is None
    )
    """SHA-256 over the weights as they are held, after rounding, and how they are rounded; a node whose own differ
    refuses. Only with other `base_weights` than `float32`, whose bytes `fingerprint` covers. Default: none is checked;
    a server fills in that of its own copy when it starts a run."""

    @field_validator("source")
    @classmethod
    def _as_recorded(cls, source: str) -> str:
        # the prefix that is hashed and sent, since studies were first declared
        return RECORDED_PREFIX + source.removeprefix(BUNDLED_PREFIX) if source.startswith(BUNDLED_PREFIX) else source

    @property
    def shown_source(self) -> str:
        """The source as people write it: `bundled:` and a name, a directory, or a hub id."""
        return self.source if self.bundled_name is None else BUNDLED_PREFIX + self.bundled_name

    @property
    def held(self) -> str:
        """In which numbers the base model is held, in words; empty in float32."""
        return HELD[self.base_weights]

    @property
    def bundled_name(self) -> str | None:
        """Name of a bundled model; None for any other source."""
        return self.source.removeprefix(RECORDED_PREFIX) if self.source.startswith(RECORDED_PREFIX) else None


class Adapter(Section):
    """[adapter]: the few parameters that are trained and sent, with a small head where the task has one."""

    method: Literal["ffa-lora", "lora", "dora", "ia3", "head-only"] = "ffa-lora"
    """`ffa-lora`: LoRA with A fixed from a public seed, B trained. `lora`: A and B trained. `dora`: also a magnitude
    per output (weight-decomposed LoRA). `ia3`: one factor per activation. `head-only`: no adapter."""
    rank: int = Field(default=8, ge=1, le=256)
    """LoRA rank r."""
    rank_pattern: dict[LayerPattern, Annotated[int, Field(ge=1, le=256)]] = Field(default_factory=dict, max_length=100)
    """Other ranks for layers whose name ends in a text or matches a pattern, as in `{ "layer.5.*query" = 16 }`. Of two
    that match a layer, the one that is first in the alphabet counts.
    Letters, digits, `.`, `_`, `-` and at most two `*`: a pattern must not take long to match."""
    alpha: Positive | None = None
    """LoRA scale is alpha / rank. Default: alpha = rank, so the scale is 1."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732)."""
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    """Names of the layers that are adapted. `auto`: query and value of every attention; PEFT's own table for `ia3`."""
    layers: str = Field(default="last:2", pattern=r"^(all|last:[1-9]\d*)$")
    """`all`, or `last:k` for the top k layers. Nothing is trained below them, so activations there can be cached."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Public seed of A. It is no secret: everyone derives the same A from it, so A is never sent."""

    @field_validator("rank_pattern")
    @classmethod
    def _in_order(cls, patterns: dict[str, int]) -> dict[str, int]:
        """Sort, as a study's identity does: of two patterns that match a layer, the first one counts."""
        return dict(sorted(patterns.items()))

    @property
    def linear(self) -> bool:
        """True if the trained parameters enter linearly, so that the mean of adapters is the mean of their effects."""
        return self.method in ("ffa-lora", "ia3", "head-only")

    @property
    def has_rank(self) -> bool:
        """True for LoRA and its variants."""
        return self.method in ("ffa-lora", "lora", "dora")


class Privacy(Section):
    """[privacy]: the promise to every unit. No performance setting can change it."""

    epsilon: float = Field(default=3.0, gt=0, le=100, allow_inf_nan=False)
    """Total cost of the whole study to one unit, at the stated delta."""
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    """Chance that the promise does not hold. Should be well below 1 / (number of units of the largest site)."""
    unit: str = Field(default=RECORD, pattern=UNIT_PATTERN)
    """Whose presence is hidden: `record` is one row; another name, such as `patient`, is all rows of one patient."""
    records_per_unit: int = Field(default=RECORDS_PER_UNIT, ge=1)
    """The most records of one unit that are trained on; limits time and memory. Only for a unit of several rows."""
    sampling_rate: float = Field(default=0.1, gt=0, le=1)
    """q, the probability with which each unit joins each step, independently of all others (Poisson sampling)."""
    clipping: Literal["automatic", "flat"] = "automatic"
    """`automatic` (AUTO-S, arXiv:2206.07136) scales every gradient to a length below 1; `flat` cuts at `clip_norm`."""
    clip_norm: float = Field(default=1.0, ge=1e-6, allow_inf_nan=False)
    """Largest length of one unit's gradient, in gradient units. With `automatic` it only rescales learning rates."""
    head_share: float | None = Field(default=0.8, gt=0, lt=1)
    """If head and adapter are both trained, each is clipped by itself: the head at clip_norm x sqrt(head_share), the
    adapter at the rest, so that both together stay within clip_norm. None, as in older studies: both are clipped as one
    vector, of which the longer part takes nearly everything."""


class Training(Section):
    """[training]: local SGD without momentum; learning rates fall linearly over all rounds that train."""

    local_steps: int = Field(default=10, ge=1, le=10_000)
    """Noisy steps per round and node."""
    learning_rate: Positive = 16.0
    """Learning rate of the head at the first step. High, because clipped gradients are short."""
    adapter_learning_rate: Positive = 1.0
    """Learning rate of the adapter at the first step. `plan` suggests one that suits the noise."""
    whitening: bool = False
    """Spend round 1 on measuring, through the same noise, how the head's features vary; then train the head on features
    that vary alike in every direction that stands out of that noise. Helps if a few directions dominate the features,
    as with a base model that was pretrained on other data; `plan` tells whether the noise allows it. Costs no privacy,
    but one round, and width² more numbers per update. For one linear head on pooled features, and at least two rounds.
    Not part of the identity if it is off; nodes older than this key refuse it."""


class Federation(Section):
    """[federation]: which sites take part, and how long the server waits."""

    rounds: int = Field(default=8, ge=1, le=10_000)
    """Rounds of the study. Privacy depends on rounds x local_steps, not on either of them alone."""
    aggregation: str = Field(default="ffa", max_length=40, pattern=r"^[a-z][a-z0-9._-]*$")
    """How the server combines updates, by the method's name; nodes take any, since it reads only what they released.
    `ffa`: the mean of all updates, exact for adapters that enter linearly (`ffa-lora`, `ia3`, `head-only`). `fedit`:
    the same mean for `lora` and `dora`, where it only approximates the mean of the products of A and B.
    `geometric-median`, for any adapter: one site of five that lies costs about a point of accuracy where it costs
    the mean up to 37, and honest sites lose next to nothing; not with a `secure_sum`. Nodes older than protocol
    version 6 know the first two names only."""
    quorum: int = Field(default=2, ge=1)
    """Fewest accepted updates that make a round; with fewer, it is asked again, and the global adapter stays unchanged
    if it is lost."""
    cohort: int | None = Field(default=None, ge=1)
    """How many of the nodes present each round asks, drawn anew for each. Default: all. The noise is the same either
    way, as for a node that joins every round. Not part of the identity if it is not set."""
    deadline_s: Positive = 1800.0
    """Longest wait for the replies of one round, in seconds; a round without its quorum is asked again, up to ten times
    in all."""
    smallest_declared_size: int = Field(default=50, ge=1)
    """Sites that declare fewer units (by default, records) are left out: they would add little but noise."""
    typical_size: int | None = Field(default=None, ge=1)
    """Units of a site of usual size, such as the mean of what the sites declare. If it is set, every site divides by
    it, so a unit weighs the same at every site and small sites add little noise; a site of more than four times this
    size weighs as four. Default: each site divides by its own size, and all sites weigh the same. Costs no privacy.
    `plan` shows the gain. Not part of the identity if it is not set; nodes older than this key refuse it."""
    wire: DeclaredWire = "float32"
    """Encoding of a node's update: `float32`, `bfloat16` in half of its bytes, or `int8` in a quarter. The shorter ones
    are rounded at random after the noise, without bias; `int8` in steps of an eighth of the noise. Nodes older than
    protocol version 5 can only train `float32`."""
    # left out of every dump while they are: folders, stores and adapters from before these keys go on as they are
    secure_sum: Literal["masked", "shared"] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Hide each node's update behind masks that cancel in the sum, so that the server learns nothing but the sum.
    `masked`: noise as ever, so epsilon holds whoever colludes. `shared`: the nodes share one noise, so the sum is
    nearly as good as training in one place; epsilon then holds while at most `colluders` nodes pool what they know
    with the server, and each round is one step. Not part of the identity if it is not set; nodes older than protocol
    version 8 refuse it by version."""
    threshold: int | None = Field(default=None, ge=2, exclude_if=lambda value: value is None)
    """t, the fewest nodes whose sum is ever opened; more than half of the nodes and `colluders` together. Default:
    all but one of up to five nodes, four fifths of more. Never below `quorum`. Only with `secure_sum`."""
    colluders: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    """c, for how many colluding nodes beside the server the promise holds. Default: 1, or a tenth of more than ten
    nodes. Only with `secure_sum`."""

    def divisor_size(self, declared_size: int) -> int:
        """Return the size that a site divides by: a step's divisor is sampling rate x this size.

        Guarantee: it follows from the study and the declared size alone.

        Args:
            declared_size: public size of the site, in units.
        """
        if self.typical_size is None:
            return declared_size
        return max(self.typical_size, math.ceil(declared_size / MOST_WEIGHT))


class Performance(Section):
    """[performance]: speed and memory. No value here changes noise, sampling, steps or clipping."""

    micro_batch_tokens: int = Field(default=2048, ge=64)
    """Tokens (or image patches, or frames of sound) in one physical batch, padding included."""
    threads: int = Field(default=0, ge=0)
    """Threads per training process; 0: an equal share of the machine's cores."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where to train: `cpu`, `cuda`, `cuda:1`, …; `auto` uses a GPU if there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the trained part's matrix products; DoRA and IA3 stay at `float32` on a GPU. Gradients are summed,
    clipped and noised in float64 either way."""
    activation_checkpointing: bool = False
    """Keep only each layer's inputs for the backward pass and compute the rest again there: much less memory for about
    a third more time. Gradients have the same bits, or the probe refuses. Not for DoRA and IA3."""
    fit_memory: bool = False
    """Halve `micro_batch_tokens` until the longest synthetic records fit into this machine's memory, measured before
    any record is read; and where memory runs out in training, begin the step again with layers computed twice, if the
    probe has shown that gradients keep their bits. Otherwise the round fails."""
    activation_cache: bool = True
    """Store activations below the lowest adapted layer on disk for the length of the study."""
    activation_cache_limit_bytes: int = Field(default=8 * 2**30, ge=0)
    """Largest cache, in bytes; a dataset whose activations need more is trained without a cache."""
    activation_storage: Literal["float32", "float16"] = "float32"
    """Precision of stored activations. Half precision takes half the room; each record's activations are rounded once,
    by themselves, so gradients are exact for the rounded activations."""


def is_hub_id(source: str) -> bool:
    """Tell a hub id (`org/name`) from a bundled model or a local directory."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None and not Path(source).is_dir()
