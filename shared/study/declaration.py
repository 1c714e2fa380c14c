"""The study: one declaration of what is trained, under which privacy, by how many rounds.

A study travels as data, never as code. Its canonical JSON (sorted keys, defaults filled in) and the SHA-256 of that
identify it everywhere. Performance settings are left out of the identity: they change nothing that is promised, so
each machine may choose its own.
"""

import hashlib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from shared.errors import SettingsError
from shared.protocol.update_encoding import Wire
from shared.section import Positive, Section
from shared.study.tasks import KINDS, Task

Declared = TypeVar("Declared", bound=BaseModel)
RECORD = "record"
UNIT_PATTERN = r"^[a-z][a-z0-9_]*$"
RECORDS_PER_UNIT = 16
BUNDLED_PREFIX, RECORDED_PREFIX = "bundled:", "embedded:"
"""How people write that a base model is known by name, and how a study holds it: either may be declared."""
MOST_WEIGHT = 4
"""How many typical sites one site weighs at most."""
WHITENED_KINDS = ("sequence-classification", "image-classification", "audio-classification")
"""Kinds with one linear head on pooled features of one length."""
ADDED_LATER: dict[str, dict[str, Any]] = {
    "privacy": {"head_share": None},
    "training": {"whitening": False},
    "federation": {"wire": "float32", "cohort": None, "typical_size": None},
}
"""Keys that studies once did not have, with what was so then, whatever their default is now. Left out of the identity
while it still is so: older studies keep their hash, and older nodes read what asks nothing new of them."""


class Identity(Section):
    """[study]: what people call it."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[\w .-]+$")
    """Shown in tables and reports."""
    description: str = Field(default="", max_length=2000)
    """What the study is for, in words that a data-protection officer can judge."""


class Model(Section):
    """[model]: the shared pretrained foundation model."""

    source: str = Field(min_length=1)
    """`bundled:minilm`, a local directory (`./models/bert`), or a hub id (`org/name`)."""
    revision: str | None = None
    """Commit of a hub model. Required for a hub id: a name alone can change under you."""
    fingerprint: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over weights, configuration and tokenizer files; another model is refused. Default: taken as found."""

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
    def bundled_name(self) -> str | None:
        """Name of a bundled model; None for any other source."""
        return self.source.removeprefix(RECORDED_PREFIX) if self.source.startswith(RECORDED_PREFIX) else None


class Adapter(Section):
    """[adapter]: the few parameters that are trained and sent, beside a small head where the task has one."""

    method: Literal["ffa-lora", "lora", "dora", "ia3", "head-only"] = "ffa-lora"
    """`ffa-lora`: LoRA with A fixed from a public seed, B trained. `lora`: A and B trained. `dora`: also a magnitude
    per output (weight-decomposed LoRA). `ia3`: one factor per activation. `head-only`: no adapter."""
    rank: int = Field(default=8, ge=1, le=256)
    """LoRA rank r."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Other ranks for layers whose name ends so, or matches so as a regular expression: `{ "layer.5.*query" = 16 }`."""
    alpha: Positive | None = None
    """LoRA scale is alpha / rank. Default: alpha = rank, so the scale is 1."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732)."""
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    """Names of the layers that are adapted. `auto`: PEFT's own table, attention query and value for BERT."""
    layers: str = Field(default="last:2", pattern=r"^(all|last:[1-9]\d*)$")
    """`all`, or `last:k` for the top k layers. Below them nothing is trained, so those activations can be kept."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Public seed of A. It hides nothing; everyone derives the same A from it instead of sending it."""

    @property
    def linear(self) -> bool:
        """Whether what is trained enters linearly, so that a mean of adapters is the mean of their effects."""
        return self.method in ("ffa-lora", "ia3", "head-only")

    @property
    def has_rank(self) -> bool:
        """Whether it is a kind of LoRA."""
        return self.method in ("ffa-lora", "lora", "dora")


class Privacy(Section):
    """[privacy]: the promise made to every unit. Nothing here can be changed by a performance setting."""

    epsilon: float = Field(default=3.0, gt=0, le=100, allow_inf_nan=False)
    """Total cost of the whole study to one unit, at the stated delta."""
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    """Should lie well below 1 / (number of units of the largest site)."""
    unit: str = Field(default=RECORD, pattern=UNIT_PATTERN)
    """Whose presence is hidden: `record` is one row; any other name, such as `patient`, is all rows of one of these."""
    records_per_unit: int = Field(default=RECORDS_PER_UNIT, ge=1)
    """The most records of one unit that are trained on: bounds time and memory. Only goes with a unit of many rows."""
    sampling_rate: float = Field(default=0.1, gt=0, le=1)
    """q: each unit joins each step independently with this probability (Poisson sampling)."""
    clipping: Literal["automatic", "flat"] = "automatic"
    """`automatic` (AUTO-S, arXiv:2206.07136) scales every gradient to length below 1; `flat` cuts at `clip_norm`."""
    clip_norm: Positive = 1.0
    """Largest length of one unit's gradient, in gradient units. With `automatic` it only rescales learning rates."""
    head_share: float | None = Field(default=0.8, gt=0, lt=1)
    """Where head and adapter are both trained, clip each by itself: the head at clip_norm x sqrt(head_share), the
    adapter at what is left, so that the whole is bounded by clip_norm. None, of studies that were recorded without it:
    as one vector, of which the longer part takes nearly all."""


class Training(Section):
    """[training]: local SGD without momentum, linear decay over all rounds that train."""

    local_steps: int = Field(default=10, ge=1, le=10_000)
    """Noisy steps per round and node."""
    learning_rate: Positive = 16.0
    """Of the head, at the first step. High because clipped gradients are short."""
    adapter_learning_rate: Positive = 1.0
    """Of the adapter, at the first step. `plan` says which one suits the noise."""
    whitening: bool = False
    """Spend round 1 on measuring, through the same noise, how the head's features vary, and train the head on features
    that vary alike in every direction that stands out of that noise. Helps where a few directions hold most of what
    features are, as those of a model that was pretrained on something else; `plan` says whether noise allows it. Costs
    no privacy, a round, and width² more numbers per update. For one linear head on pooled features, and two rounds or
    more. Not part of the identity where it is off; nodes of before this key refuse it."""


class Federation(Section):
    """[federation]: who takes part, and how long the server waits."""

    rounds: int = Field(default=8, ge=1, le=10_000)
    """Rounds of the study. Privacy depends on rounds x local_steps, not on how it is cut."""
    aggregation: Literal["ffa", "fedit"] = "ffa"
    """`ffa`: the plain mean of what is sent, exact where it enters linearly (`ffa-lora`, `ia3`, `head-only`). `fedit`:
    the same mean for `lora` and `dora`, where it only approximates the mean of the products of A and B."""
    quorum: int = Field(default=2, ge=1)
    """Fewest accepted updates that make a round; with fewer the global adapter stays as it was."""
    cohort: int | None = Field(default=None, ge=1)
    """How many of the nodes present are asked in a round, drawn anew for each. Default: all. Noise is set for a node
    that joins every round either way: the draw amplifies nothing. Not part of the identity where it is not set."""
    deadline_s: Positive = 1800.0
    """Longest wait for the replies of one round, in seconds."""
    smallest_declared_size: int = Field(default=50, ge=1)
    """Sites that declare fewer units (records, by default) are left out: they would add nothing but noise."""
    typical_size: int | None = Field(default=None, ge=1)
    """Units of a site of usual size: the mean of what the sites declare, say. Where it is set, every site divides by
    it, so that a unit weighs the same wherever it is and small sites add little noise; a site of more than four times
    this weighs as four. Default: each divides by its own size, and all sites weigh the same. Costs no privacy either
    way. `plan` says what it gains. Not part of the identity where it is not set; nodes of before this key refuse it."""
    wire: Wire = "float32"
    """How a node's update travels: `float32`, in half of that as `bfloat16`, in a quarter as `int8`. The shorter ones
    are rounded at random after the noise, without bias, `int8` in steps of an eighth of the noise. Nodes of before
    protocol version 5 can train `float32` alone."""

    def divisor_size(self, declared_size: int) -> int:
        """The size that a site divides by: a step's divisor is sampling rate x this.

        Guarantee: it follows from the study and the declared size alone.

        Args:
            declared_size: of the site, in units.
        """
        if self.typical_size is None:
            return declared_size
        return max(self.typical_size, math.ceil(declared_size / MOST_WEIGHT))


class Performance(Section):
    """[performance]: how fast. No value here changes noise, sampling, steps or clipping."""

    micro_batch_tokens: int = Field(default=2048, ge=64)
    """Tokens (or image patches, or frames of sound) in one physical batch, padding included."""
    threads: int = Field(default=0, ge=0)
    """Threads per training process; 0 = the cores of the machine shared out fairly."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the trained part's matrix products; DoRA and IA3 stay at `float32` on a GPU. Gradients are summed, clipped and
    noised in float64 either way."""
    activation_cache: bool = True
    """Keep the activations below the lowest adapted layer on disk for the length of the study."""
    activation_cache_limit_bytes: int = Field(default=8 * 2**30, ge=0)
    """A dataset whose activations would be larger is trained without the cache."""
    activation_storage: Literal["float32", "float16"] = "float32"
    """What activations below the lowest adapted layer are kept in. In half precision they take half the room, and each
    record's are rounded once, by itself: gradients are exact for the rounded activations."""


class Study(Section):
    """The whole declaration, and its identity."""

    study: Identity
    model: Model
    task: Task
    adapter: Adapter = Adapter()
    privacy: Privacy = Privacy()
    training: Training = Training()
    federation: Federation = Federation()
    performance: Performance = Performance()

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        source, revision = self.model.source, self.model.revision
        if is_hub_id(source) and revision is None:
            raise ValueError(f"model.source {source!r} is a hub id, so model.revision (a commit) is needed beside it")
        if not is_hub_id(source) and revision is not None:
            raise ValueError("model.revision only goes with a hub id; for other sources set model.fingerprint")
        exact = "ffa" if self.adapter.linear else "fedit"
        if self.federation.aggregation != exact:
            raise ValueError(
                f"federation.aggregation = {exact!r} goes with adapter.method = {self.adapter.method!r}, "
                f"got {self.federation.aggregation!r}"
            )
        if not self.adapter.has_rank and (self.adapter.rank_pattern or self.adapter.rank_stabilized):
            raise ValueError(f"adapter.method = {self.adapter.method!r} has no rank: leave rank settings out")
        cohort, quorum = self.federation.cohort, self.federation.quorum
        if cohort is not None and cohort < quorum:
            raise ValueError(f"federation.cohort must be at least federation.quorum = {quorum}, got {cohort}")
        if self.training.whitening and self.task.kind not in WHITENED_KINDS:
            raise ValueError(
                f"training.whitening goes with task.kind = {', '.join(WHITENED_KINDS)}, got {self.task.kind!r}"
            )
        if self.training.whitening and self.federation.rounds < 2:
            raise ValueError("training.whitening needs federation.rounds of at least 2: the first one only measures")
        if self.privacy.unit == RECORD and self.privacy.records_per_unit != RECORDS_PER_UNIT:
            raise ValueError("privacy.records_per_unit only goes with a privacy.unit other than 'record'")
        return self

    @property
    def total_steps(self) -> int:
        """Noisy steps of a node that joins every round: the worst case, and the one that is accounted."""
        return self.federation.rounds * self.training.local_steps

    @property
    def measuring_rounds(self) -> int:
        """Rounds at the start that train nothing: the first one, with `training.whitening`."""
        return int(self.training.whitening)

    def measures(self, number: int) -> bool:
        """Whether a round, counted from 1, is one of these."""
        return number <= self.measuring_rounds

    def canonical_json(self) -> str:
        """One byte sequence per study: sorted keys, no spaces, defaults filled in, performance left out."""
        declared = self.model_dump(mode="json", exclude={"performance"})
        for section, keys in ADDED_LATER.items():
            declared[section] = {name: v for name, v in declared[section].items() if keys.get(name, ...) != v}
        return json.dumps(declared, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def is_hub_id(source: str) -> bool:
    """Tell a hub id (`org/name`) from a bundled model or a local directory."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None and not Path(source).is_dir()


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file, or say where it breaks."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"Expected a TOML file, got {path}, which is not there.", hint="Check the path.") from None
    except IsADirectoryError:
        raise SettingsError(f"Expected a TOML file, got {path}, which is a folder.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def parse(kind: type[Declared], declared: dict[str, Any], *, where: str) -> Declared:
    """Validate a declaration; every problem becomes one line with the key's path, what was expected and what came."""
    try:
        return kind.model_validate(declared)
    except ValidationError as error:
        lines = [_one_line(problem) for problem in error.errors()]
        raise SettingsError(f"{where} is not a valid {kind.__name__.lower()}:\n  " + "\n  ".join(lines)) from None


def recorded(declared: Any, *, where: str) -> Study:
    """Read a study as it was once written down by `canonical_json` or in full, not as a person declares one: a key that
    it lacks is as it was before there was such a key.

    Guarantee: a study means what it meant when it was recorded, whatever the defaults have become since.

    Raises:
        SettingsError: it is no study.
    """
    if isinstance(declared, dict):
        sections = {name: declared.get(name, {}) for name in ADDED_LATER}
        declared = declared | {
            name: ADDED_LATER[name] | section if isinstance(section, dict) else section
            for name, section in sections.items()
        }
    return parse(Study, declared, where=where)


def load_study(path: Path) -> Study:
    """Read a study from TOML.

    Raises:
        SettingsError: unreadable file, unknown keys, impossible values or contradictions, each with the key's path.
    """
    return parse(Study, read_toml(path), where=str(path))


def _one_line(problem: Any) -> str:
    # pydantic puts the kind of a task into the path, where no key of the file is called so
    path = ".".join(str(part) for part in problem["loc"] if part not in KINDS)
    if problem["type"] == "extra_forbidden":
        return f"{path}: no such key."
    if problem["type"] == "missing":
        return f"{path}: missing."
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return f"{message}."
    shown = repr(problem["input"])
    return f"{path}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}."
