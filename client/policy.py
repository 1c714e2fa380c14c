"""The rules of a node's operator: pure decisions over `node.toml`, the study and the clock.

The stricter of study and policy wins. Everything here is public: the server may hear it before anything is
reserved. No setting lets a study without privacy in, because a study cannot be declared without it.
"""

import math
import re
from collections.abc import Collection
from datetime import datetime, time
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.protocol.update_encoding import packed_bytes
from shared.section import Section
from shared.secure_sum.messages import most_masked_bytes
from shared.study.declaration import Study
from shared.study.sections import RECORD, UNIT_PATTERN, Stated, in_words
from shared.study.tasks import COLUMNS

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVALUATIONS = ("no", "ask", "yes")
"""What a policy may say of evaluations, the strictest first."""
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class DatasetPolicy(Section):
    """[datasets.NAME]: one dataset, and what may be done with it."""

    source: str = Field(min_length=1)
    """A CSV, TSV, JSONL, JSON (each also packed, as .csv.gz) or Parquet file, or a dataset folder. Relative to
    node.toml."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What the task's columns are called in the source, as in { text = "report" }; default: the same."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What studies call the labels that the source holds, as in { "1" = "positive", "0" = "negative" }; default: the
    same. Cells without an entry stay as they are; `doctor` names them."""
    readable_columns: tuple[str, ...] | None = None
    """Columns of the source that studies may read. Default: those that the task kinds name themselves, under the names
    that `columns` gives them. A column that a study chooses, such as an id for recommendations, is refused unless it
    stands here or in `columns`."""
    unit: str = Field(default=RECORD, pattern=UNIT_PATTERN)
    """Whose presence is hidden: `record` is one row; any other name, such as `patient`, is all rows of one of these."""
    unit_column: str | None = Field(default=None, min_length=1)
    """Column that names each row's unit. Needed for any unit but `record`; a row without a value is left out."""
    epsilon: float = Field(gt=0, le=100, allow_inf_nan=False)
    """The most this dataset may ever spend, over all studies."""
    epsilon_per_study: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """The most one study run may spend of it; default: all of it."""
    epsilon_if_all_collude: float | Literal["no-limit"] | None = Field(default=None)
    """The most this dataset may ever spend if all other nodes collude with the server, in studies that share their
    noise (`federation.secure_sum = "shared"`): a number, or `"no-limit"`. Default: such studies are refused, and this
    node always adds the whole noise itself."""
    delta: float = Field(gt=0, lt=0.1)
    """Belongs to the dataset: well below 1 / (number of units)."""
    declared_size: int = Field(ge=1)
    """Public number of units (rows, unless `unit` says otherwise), rounded to two digits; declared once."""
    holdout: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the units, with all their rows, that is never trained on; this node alone measures on it. Entered at
    registration, and fixed from then on."""
    split_by: str | None = Field(default=None, min_length=1)
    """Column whose rows of one value, such as a document or a context, are all trained on or all held out, while each
    row stays a record of its own. Default: a record's content decides, or its unit. Entered at registration, as
    `holdout` is. A row without a value is not used."""
    tasks: tuple[str, ...] = ("sequence-classification",)
    """Task kinds that may be trained."""
    models: tuple[str, ...] = Field(min_length=1)
    """Base models that may be used: fingerprints, or names that `[models]` gives to fingerprints."""
    study_must_state: tuple[Stated, ...] = ()
    """What a study must state under [study]: some of `purpose`, `requester`, `contact`, `legal_basis`, `retention`."""
    smallest_cohort: int = Field(default=3, ge=1)
    """Studies whose quorum is smaller are refused: with few sites, each one's update shows more. This node opens no
    secure sum of fewer nodes. Of datasets that share records the largest counts, and the largest `colluders`."""
    colluders: int = Field(default=1, ge=1)
    """How many owners of pinned peers may collude with the server in a secure sum; every peer that is not pinned under
    [peers] counts beside them. A run that does not hold against so many is refused."""
    largest_update_bytes: int = Field(default=16 * 2**20, ge=1)
    """Studies that would send more per round are refused."""
    days: tuple[Day, ...] = DAYS
    """Days on which rounds are trained."""
    hours: str = "00:00-00:00"
    """Local time from-to; across midnight if `to` is earlier; the same twice means always."""
    approval: Literal["ask", "within-policy"] = "ask"
    """`ask`: a person says yes to every study run. `within-policy`: what this policy allows is approved by itself, on
    records that were registered before (`fedvault-node register`); rows that came to the source since are left out."""
    evaluation: Literal["ask", "yes", "no"] = "ask"
    """Studies with an [evaluation], which count over held-out records through noise that the ledger pays for. `ask`: a
    person says yes to each such run, whatever `approval` says. `yes`: `approval` decides, as for any other study. `no`:
    they are refused, and evaluations of runs that were approved before are answered no more."""

    @field_validator("epsilon_if_all_collude")
    @classmethod
    def _positive_if_all_collude(cls, limit: float | Literal["no-limit"] | None) -> float | Literal["no-limit"] | None:
        if isinstance(limit, float) and not 0 < limit < math.inf:
            raise ValueError('epsilon_if_all_collude is a number above 0, or "no-limit"')
        return limit

    @property
    def limit_if_all_collude(self) -> float | None:
        """Return `epsilon_if_all_collude` as a number: infinite for "no-limit", None if no noise is shared at all."""
        limit = self.epsilon_if_all_collude
        return math.inf if limit == "no-limit" else limit

    @field_validator("hours")
    @classmethod
    def _readable_hours(cls, hours: str) -> str:
        if not HOURS.fullmatch(hours):
            raise ValueError("hours are written as 22:00-06:00")
        return hours

    @field_validator("models")
    @classmethod
    def _fingerprints(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [model for model in models if not FINGERPRINT.fullmatch(model)]
        if unknown:
            raise ValueError(
                f"models are fingerprints (64 hexadecimal digits) or names in [models], and {unknown[0]!r} is neither; "
                "`fedvault-node models` prints the lines of [models] for what is here"
            )
        return models

    @field_validator("declared_size")
    @classmethod
    def _two_digits(cls, size: int) -> int:
        if len(str(size).rstrip("0")) > 2:
            raise ValueError("declared_size is rounded to two digits, as in 8500")
        return size

    @model_validator(mode="after")
    def _delta_hides_records(self) -> Self:
        if self.delta * self.declared_size > 1:
            raise ValueError(f"delta must lie below 1/declared_size = {1 / self.declared_size:g}")
        return self

    @model_validator(mode="after")
    def _unit_has_its_column(self) -> Self:
        if self.unit != RECORD and self.unit_column is None:
            raise ValueError(f"unit_column is needed with unit = {self.unit!r}: the column that names each row's unit")
        if self.unit == RECORD and self.unit_column is not None:
            raise ValueError("unit_column only goes with a unit other than 'record'")
        if self.unit != RECORD and self.split_by is not None:
            raise ValueError("split_by only goes with unit = 'record': otherwise the unit's rows stay together")
        return self


def objections(
    policy: DatasetPolicy,
    study: Study,
    *,
    dimension: int,
    columns: Collection[str],
    underway: bool = False,
    both_sides: bool = False,
) -> list[str]:
    """Return why this policy forbids a study, in words for both sides; empty if it does not.

    Args:
        policy: of the dataset.
        study: as declared.
        dimension: floats in one update.
        columns: of the source that the study reads.
        underway: it was approved, and its rounds are paid for one by one.
        both_sides: one unit may be trained on and held out; where the policy has `split_by` it may in any case.
    """
    both_sides = both_sides or policy.split_by is not None
    reasons = _about_spending(policy, study, underway=underway, both_sides=both_sides)
    if study.task.kind not in policy.tasks:
        reasons.append(f"task {study.task.kind!r} is not among {list(policy.tasks)}")
    if study.model.fingerprint not in policy.models:
        reasons.append("the base model is not pinned to a fingerprint that this policy lists")
    unstated = [name for name in policy.study_must_state if name in study.study.unstated]
    if unstated:
        reasons.append(f"it does not state its {in_words(unstated)}, which study_must_state asks for")
    if study.privacy.unit != policy.unit:
        reasons.append(f"the study hides one {study.privacy.unit}, the policy one {policy.unit}")
    unreadable = sorted(set(columns) - readable(policy))
    if unreadable:
        reasons.append(f"it reads {', '.join(map(repr, unreadable))}, which readable_columns does not list")
    if study.federation.quorum < policy.smallest_cohort:
        reasons.append(f"its quorum of {study.federation.quorum} is below {policy.smallest_cohort}")
    if policy.declared_size < study.federation.smallest_declared_size:
        reasons.append(
            f"it asks for {study.federation.smallest_declared_size} {policy.unit}s, declared are {policy.declared_size}"
        )
    if study.evaluation is not None and policy.evaluation == "no" and not underway:
        reasons.append('it evaluates on held-out records, and evaluation = "no"')
    size_bytes = largest_reply_bytes(study, dimension)
    if size_bytes > policy.largest_update_bytes:
        reasons.append(f"an update of {size_bytes} bytes is above {policy.largest_update_bytes}")
    return reasons


def largest_reply_bytes(study: Study, dimension: int) -> int:
    """Return the most bytes of one update; behind a mask, with what is dealt to as many nodes as a roster may have."""
    return most_masked_bytes(dimension) if study.federation.secure_sum else packed_bytes(dimension, study.sent_as)


def _about_spending(policy: DatasetPolicy, study: Study, *, underway: bool, both_sides: bool) -> list[str]:
    epsilon, delta, reasons = _epsilon(study, both_sides=both_sides), study.privacy.delta, []
    if delta > policy.delta:
        reasons.append(f"delta {delta:g} is above {policy.delta:g}")
    if epsilon > policy.epsilon and not underway:
        reasons.append(f"epsilon {epsilon:g} is above all that may ever be spent, {policy.epsilon:g}")
    if policy.epsilon_per_study is not None and epsilon > policy.epsilon_per_study:
        reasons.append(f"epsilon {epsilon:g} is above what one study may spend, {policy.epsilon_per_study:g}")
    if study.federation.secure_sum == "shared" and policy.epsilon_if_all_collude is None:
        reasons.append("its nodes share one noise, and epsilon_if_all_collude does not say what all others may see")
    return reasons


def _epsilon(study: Study, *, both_sides: bool) -> float:
    """Return what a study may cost one unit: of training and evaluation what its side costs, or both sides."""
    evaluated = 0.0 if study.evaluation is None else study.evaluation.epsilon
    if both_sides:
        return study.privacy.epsilon + evaluated
    return max(study.privacy.epsilon, evaluated)


def subgroup_columns(policy: DatasetPolicy, study: Study) -> list[str]:
    """Return the column of the source that a study's evaluation groups by, if it does."""
    subgroup = None if study.evaluation is None else study.evaluation.subgroup
    return [] if subgroup is None else [policy.columns.get(subgroup.column, subgroup.column)]


def readable(policy: DatasetPolicy) -> set[str]:
    """Return the columns of the source that studies may read."""
    if policy.readable_columns is not None:
        return set(policy.readable_columns)
    return {policy.columns.get(name, name) for name in COLUMNS} | set(policy.columns.values())


def open_at(policy: DatasetPolicy, now: datetime) -> bool:
    """Return true if rounds may be trained at this local time; a night belongs to the day that it began on."""
    first, last = (time.fromisoformat(part) for part in policy.hours.split("-"))
    today, yesterday = DAYS[now.weekday()], DAYS[now.weekday() - 1]
    if first < last:
        return today in policy.days and first <= now.time() < last
    if first == last:
        return today in policy.days
    return (today in policy.days and now.time() >= first) or (yesterday in policy.days and now.time() < last)
