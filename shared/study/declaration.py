"""Declare a study: what is trained, under which privacy, in how many rounds.

A study travels as data, never as code. Its canonical JSON (sorted keys, defaults filled in) and the SHA-256 of that
identify it everywhere. Performance settings are left out of the identity: they change no promise, so each machine may
choose its own.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from shared.section import Section
from shared.study.parsing import parse, read_toml
from shared.study.sections import (
    RECORD,
    RECORDS_PER_UNIT,
    Adapter,
    Federation,
    Identity,
    Model,
    Performance,
    Privacy,
    Training,
    is_hub_id,
)
from shared.study.tasks import Task

LINEAR_HEAD_KINDS = ("sequence-classification", "image-classification", "audio-classification")
"""Task kinds with one linear head on pooled features of one length."""
ADDED_LATER: dict[str, dict[str, Any]] = {
    "privacy": {"head_share": None},
    "training": {"whitening": False},
    "federation": {"wire": "float32", "cohort": None, "typical_size": None},
}
"""Keys that older studies lack, each with the value that these studies had in effect, whatever the default is today. A
key is left out of the identity while it has that value: so older studies keep their hash, and older nodes can read a
study that asks nothing new of them."""
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
        if self.training.whitening and self.task.kind not in LINEAR_HEAD_KINDS:
            raise ValueError(
                f"training.whitening goes with task.kind = {', '.join(LINEAR_HEAD_KINDS)}, got {self.task.kind!r}"
            )
        if self.training.whitening and self.federation.rounds < 2:
            raise ValueError("training.whitening needs federation.rounds of at least 2: the first one only measures")
        if self.privacy.unit == RECORD and self.privacy.records_per_unit != RECORDS_PER_UNIT:
            raise ValueError("privacy.records_per_unit only goes with a privacy.unit other than 'record'")
        return self

    @property
    def total_steps(self) -> int:
        """Noisy steps of a node that joins every round: the worst case, which is the one accounted."""
        return self.federation.rounds * self.training.local_steps

    @property
    def measuring_rounds(self) -> int:
        """Number of rounds at the start that only measure: one with `training.whitening`, otherwise none."""
        return int(self.training.whitening)

    def measures(self, number: int) -> bool:
        """Return true if a round, counted from 1, only measures."""
        return number <= self.measuring_rounds

    def canonical_json(self) -> str:
        """Write the study as one byte sequence: sorted keys, no spaces, defaults filled in, without performance."""
        declared = self.model_dump(mode="json", exclude={"performance"})
        for section, keys in ADDED_LATER.items():
            declared[section] = {name: v for name, v in declared[section].items() if keys.get(name, ...) != v}
        return json.dumps(declared, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

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
        sections = {name: declared.get(name, {}) for name in ADDED_LATER}
        declared = declared | {
            name: ADDED_LATER[name] | section if isinstance(section, dict) else section
            for name, section in sections.items()
        }
        performance = declared.get("performance")
        if isinstance(performance, dict):
            renamed = {EARLIER_PERFORMANCE.get(name, name): value for name, value in performance.items()}
            declared = declared | {"performance": renamed}
    return parse(Study, declared, where=where)


def load_study(path: Path) -> Study:
    """Read a study from a TOML file.

    Raises:
        SettingsError: unreadable file, unknown keys, impossible values or contradictions, each with the key's path.
    """
    return parse(Study, read_toml(path), where=str(path))
