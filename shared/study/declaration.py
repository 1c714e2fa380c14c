"""Declare a study: what is trained, under which privacy, in how many rounds.

A study travels as data, never as code. Its canonical JSON (sorted keys, defaults filled in) and the SHA-256 of that
identify it everywhere. Performance settings are left out of the identity: they change no promise, so each machine may
choose its own.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from shared.protocol.update_encoding import Wire
from shared.protocol.versions import (
    FREE_AGGREGATION,
    SAYS_EVALUATION,
    SAYS_PURPOSE,
    SAYS_SECURE_SUM,
    SAYS_SUMMED_EVALUATION,
    SAYS_WIRE,
    SPOKEN,
    Versions,
)
from shared.section import Section
from shared.study.evaluation import Evaluation, check_evaluation
from shared.study.model_folder import name_model_beside
from shared.study.parsing import parse, read_toml
from shared.study.sections import (
    AGGREGATIONS_BEFORE_FREE_NAMES,
    RECORD,
    RECORDS_PER_UNIT,
    STATED,
    Adapter,
    Federation,
    Identity,
    Model,
    Performance,
    Privacy,
    Training,
    is_hub_id,
)
from shared.study.secure_sum import check_secure_sum
from shared.study.tasks import Task

LINEAR_HEAD_KINDS = ("sequence-classification", "image-classification", "audio-classification")
"""Task kinds with one linear head on pooled features of one length."""
OF_LINEAR_LAYERS = ("ffa-lora", "lora", "head-only")
"""Adapters whose gradients need no vectorised model: only these train on a base model in short numbers."""
ADDED_LATER: dict[str, Any] = {
    **{f"study.{name}": "" for name in STATED},
    "privacy.head_share": None,
    "training.whitening": False,
    "federation.wire": "float32",
    "federation.cohort": None,
    "federation.typical_size": None,
    "federation.secure_sum": None,
    "federation.threshold": None,
    "federation.colluders": None,
    "model.fingerprint_version": 1,
    "model.base_weights": "float32",
    "model.loaded_fingerprint": None,
    "evaluation": None,
    "evaluation.keep": "last",
    "evaluation.stop_after": None,
    "evaluation.measure": None,
}
"""Paths of keys and of whole sections that older studies lack, each with the value that these studies had in effect,
whatever the default is today: as JSON has it, and None for a section that was not there. What has that value is left
out of the identity: so older studies keep their hash, and older nodes can read a study that asks nothing new of them. A
section stands before keys that it got later still."""
KNOWN_SINCE: dict[str, int] = {
    "federation.wire": SAYS_WIRE,
    "federation.secure_sum": SAYS_SECURE_SUM,
    "evaluation": SAYS_EVALUATION,
    **{f"study.{name}": SAYS_PURPOSE for name in STATED},
}
"""First version of the protocol whose nodes know a key or section of `ADDED_LATER`. Studies that use it are offered in
no older one, so an older node refuses the version by name. What is not listed here was added without a new version."""
EARLIER_PERFORMANCE = {
    "prefix_cache": "activation_cache",
    "prefix_cache_limit_bytes": "activation_cache_limit_bytes",
    "prefix_storage": "activation_storage",
}
"""Names that older run stores and exported adapters record for keys of [performance]; nobody types them any more."""


class Study(Section):
    """A whole declaration, and its identity."""

    study: Identity
    model: Model
    task: Task
    adapter: Adapter = Adapter()
    privacy: Privacy = Privacy()
    training: Training = Training()
    federation: Federation = Federation()
    performance: Performance = Performance()
    # left out of every dump while it is not there: folders, stores and adapters from before it go on as they are
    evaluation: Evaluation | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        source, revision = self.model.source, self.model.revision
        if is_hub_id(source) and revision is None:
            raise ValueError(f"model.source {source!r} is a hub id, so model.revision (a commit) is needed beside it")
        if not is_hub_id(source) and revision is not None:
            raise ValueError("model.revision only goes with a hub id; for other sources set model.fingerprint")
        if not self.adapter.has_rank and (self.adapter.rank_pattern or self.adapter.rank_stabilized):
            raise ValueError(f"adapter.method = {self.adapter.method!r} has no rank: leave rank settings out")
        if self.model.base_weights != "float32" and self.adapter.method not in OF_LINEAR_LAYERS:
            raise ValueError(
                f"model.base_weights = {self.model.base_weights!r} goes with adapter.method = "
                f"{', '.join(OF_LINEAR_LAYERS)}, got {self.adapter.method!r}"
            )
        if self.model.loaded_fingerprint is not None and self.model.base_weights == "float32":
            raise ValueError("model.loaded_fingerprint only goes with model.base_weights other than 'float32'")
        cohort, quorum = self.federation.cohort, self.federation.quorum
        if cohort is not None and cohort < quorum:
            raise ValueError(f"federation.cohort must be at least federation.quorum = {quorum}, got {cohort}")
        if self.training.whitening and self.task.kind not in LINEAR_HEAD_KINDS:
            raise ValueError(
                f"training.whitening goes with task.kind = {', '.join(LINEAR_HEAD_KINDS)}, got {self.task.kind!r}"
            )
        if self.training.whitening and self.federation.rounds < 2:
            raise ValueError("training.whitening needs federation.rounds of at least 2: the first one only measures")
        if self.privacy.unit == RECORD and self.privacy.records_per_unit != RECORDS_PER_UNIT:
            raise ValueError("privacy.records_per_unit only goes with a privacy.unit other than 'record'")
        check_secure_sum(self.federation, self.adapter, self.training)
        check_evaluation(self.evaluation, self.task, self.federation)
        return self

    @property
    def total_steps(self) -> int:
        """Noisy steps of a node that joins every round: the worst case, which is the one accounted."""
        return self.federation.rounds * self.training.local_steps

    @property
    def sent_as(self) -> Wire:
        """Encoding of what a node sends in a round: whole numbers if they are summed behind masks."""
        return self.federation.wire if self.federation.secure_sum is None else "int64"

    @property
    def measuring_rounds(self) -> int:
        """Number of rounds at the start that only measure: one with `training.whitening`, otherwise none."""
        return int(self.training.whitening)

    @property
    def evaluated_after(self) -> tuple[int, ...]:
        """Rounds after which the nodes evaluate the adapter, ascending; empty for a study without an evaluation."""
        if self.evaluation is None:
            return ()
        return tuple(sorted({*self.evaluation.rounds, self.federation.rounds}))

    @property
    def chosen_among(self) -> tuple[int, ...]:
        """Rounds whose adapters a run chooses among; empty for a study that hands out the last round's."""
        best = self.evaluation is not None and self.evaluation.keep == "best"
        return self.evaluated_after if best else ()

    def measures(self, number: int) -> bool:
        """Return true if a round, counted from 1, only measures."""
        return number <= self.measuring_rounds

    def canonical_json(self) -> str:
        """Write the study as one byte sequence: sorted keys, no spaces, defaults filled in, without performance."""
        declared = self.model_dump(mode="json", exclude={"performance"})
        for path, then in reversed(ADDED_LATER.items()):
            declared = _without(declared, path.split("."), then)
        return json.dumps(declared, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @property
    def versions(self) -> Versions:
        """Our versions of the protocol whose nodes can train this study: they know every key that it uses."""
        declared = json.loads(self.canonical_json())
        needed = [version for path, version in KNOWN_SINCE.items() if _has(declared, path.split("."))]
        if self.federation.aggregation not in AGGREGATIONS_BEFORE_FREE_NAMES:
            needed.append(FREE_AGGREGATION)
        if self.evaluation is not None and self.federation.secure_sum is not None:
            needed.append(SAYS_SUMMED_EVALUATION)
        return Versions(max([SPOKEN.oldest, *needed]), SPOKEN.newest)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the canonical JSON, which identifies the study."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def recorded(declared: Any, *, where: str) -> Study:
    """Read a recorded study, as `canonical_json` or a full dump wrote it; a missing key means what it meant then.

    Guarantee: a study means what it meant when it was recorded, whatever the defaults have become since.

    Raises:
        SettingsError: it is not a study.
    """
    if isinstance(declared, dict):
        for path, then in ADDED_LATER.items():
            declared = _with(declared, path.split("."), then)
        performance = declared.get("performance")
        if isinstance(performance, dict):
            renamed = {EARLIER_PERFORMANCE.get(name, name): value for name, value in performance.items()}
            declared = declared | {"performance": renamed}
    return parse(Study, declared, where=where)


def load_study(path: Path) -> Study:
    """Read a study from a TOML file; a folder that it names is relative to the file.

    Raises:
        SettingsError: unreadable file, unknown keys, impossible values or contradictions, each with the key's path.
    """
    return _study(read_toml(path), path)


def load_study_of(path: Path) -> Study:
    """Read the study in a file, which may be a simulation's scenario: what only a simulation has is ignored.

    Raises:
        SettingsError: as `load_study`.
    """
    declared = read_toml(path)
    declared.pop("simulation", None)
    return _study(declared, path)


def _study(declared: dict[str, Any], path: Path) -> Study:
    name_model_beside(path.parent, declared)
    return parse(Study, declared, where=str(path))


def _with(declared: dict[str, Any], path: list[str], then: Any) -> dict[str, Any]:
    """Fill in the value at a path if nothing stands there; what is no section is left for validation to refuse."""
    name, *rest = path
    if not rest:
        return {name: then} | declared
    section = declared.get(name, {})
    return declared | {name: _with(section, rest, then)} if isinstance(section, dict) else declared


def _without(declared: dict[str, Any], path: list[str], then: Any) -> dict[str, Any]:
    """Leave out what stands at a path if it has this value."""
    name, *rest = path
    value = declared.get(name)
    if rest:
        return declared | {name: _without(value, rest, then)} if isinstance(value, dict) else declared
    return {key: value for key, value in declared.items() if key != name or value != then}


def _has(declared: Any, path: list[str]) -> bool:
    """Return true if something stands at a path."""
    name, *rest = path
    return isinstance(declared, dict) and name in declared and (not rest or _has(declared[name], rest))
