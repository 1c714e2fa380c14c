"""The study: one declaration of what is trained, under which privacy, by how many rounds.

A study travels as data, never as code. Its canonical JSON (sorted keys, defaults filled in) and the SHA-256 of that
identify it everywhere. Performance settings are left out of the identity: they change nothing that is promised, so
each machine may choose its own.
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
"""Kinds with one linear head on pooled features of one length."""
ADDED_LATER: dict[str, dict[str, Any]] = {
    "privacy": {"head_share": None},
    "training": {"whitening": False},
    "federation": {"wire": "float32", "cohort": None, "typical_size": None},
}
"""Keys that studies once did not have, with what was so then, whatever their default is now. Left out of the identity
while it still is so: older studies keep their hash, and older nodes read what asks nothing new of them."""


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
