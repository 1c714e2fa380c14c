"""A scenario: a study, and the simulated sites it runs on, from one TOML file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from server.aggregation.method import method_for
from server.plugins.packages import PARTITIONERS, plugin
from shared.base_models.bundled import data_folder, fetch_hint
from shared.errors import SettingsError
from shared.section import Positive, Section
from shared.study.declaration import Study
from shared.study.model_folder import elsewhere, is_name, name_model_beside
from shared.study.parsing import parse, read_toml
from shared.study.sections import RECORD
from simulations.experiment.partition_kinds import WHOLE_UNITS, ByPlugin, Iid, Partition
from simulations.experiment.trouble import Trouble

ARMS = (
    "majority",
    "untrained-head",
    "head-federated",
    "single-site",
    "textbook",
    "federated",
    "personal",
    "untroubled",
    "local-noise",
    "pooled",
    "head-without-privacy",
    "without-privacy",
    "audit",
)
PATHS = ("model.source", "simulation.data.source")
HELD_OUT: Final = "held-out"
VALIDATION: Final = "validation"
USUAL_ARMS = ("majority", "untrained-head", "head-federated", "single-site", "federated", "without-privacy")
NOISELESS_FACTOR = 3.0
"""Of the study's rates, for arms without noise: rates that suit noise are small. Chosen on validation records."""


class SimulationData(Section):
    """[simulation.data]: one table, split into sites."""

    source: str
    """A CSV, TSV, JSONL, JSON (each also packed, as .csv.gz) or Parquet file, a dataset folder (relative to the
    scenario), or `dataset:NAME` for one that `fedvault-sim data fetch NAME` brings."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What the task's columns are called in the source, as in { text = "review" }; default: the same."""
    unit_column: str | None = Field(default=None, min_length=1)
    """Column that names each row's unit of privacy. Needed for any `privacy.unit` but `record`, as in a node's policy;
    a row without a value is left out, and a unit with rows at several sites is a unit of each of them."""
    partition: Partition = Iid(by="iid", sites=4)
    """How rows become sites: one for each value of a column, dealt out evenly (units stay whole), or skewed by label
    (rows that are units of their own)."""
    holdout: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of every site's records, or units with all their rows, that is never trained on; a keyed hash chooses
    each by itself."""
    split_by: str | None = Field(default=None, min_length=1)
    """Column whose rows of one value, such as a document, a context or a thing that several drawings show, are all
    trained on or all held out, at every site, as in a node's policy. Default: a record's content decides, or its
    unit."""
    split_column: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    """Column that says what each row is for: train, validation or test. `holdout` then decides nothing."""
    validation: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    """File of validation rows with the same columns, relative to the folder of `source`."""
    test: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    """File of test rows, likewise. With either file, rows of `source` are for training."""
    global_test: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the test rows are one table for the global adapter, as in most papers, and of no site. Without it they
    are split into sites as the others are."""
    subgroups: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Columns, such as sex, whose values are compared: how good each arm is for each, and how far they are apart. They
    enter no training. Only with a `unit_column` and a task of one label."""
    # left out while it is the default: runs from before it can be resumed
    evaluate: Literal["held-out", "validation"] = Field(default=HELD_OUT, exclude_if=lambda value: value == HELD_OUT)
    """On which records arms are evaluated. `validation` is for choosing settings, such as learning rates: a keyed hash
    takes as large a fraction of the training records as `holdout` is of all, they are not trained on, and the held-out
    ones are not used at all. What is chosen so never saw the records that `held-out` then reports on."""
    used: float = Field(default=1.0, gt=0, le=1)
    """Fraction of every site's records, or units, that is used at all; chosen the same way."""


class Seeds(Section):
    """[simulation.seeds]: seeds apart, to see what each one changes; those left out are `simulation.seed`."""

    split: int | None = Field(default=None, ge=0)
    """Of whatever deals rows or units out to sites."""
    holdout: int | None = Field(default=None, ge=0)
    """Of the keyed hash that decides what is held out, for evaluation and for validation."""
    batches: int | None = Field(default=None, ge=0)
    """Of the records that each step draws, and of the answers that `[simulation.trouble]` drops; also of the noise of
    private evaluations where `noise` is left out."""
    noise: int | None = Field(default=None, ge=0)
    """Of the noise, that of private evaluations too, and of the rounding of updates."""


class Simulation(Section):
    """[simulation]: what only a simulation has."""

    seed: int = Field(default=0, ge=0)
    """Repeats the run to the last bit, noise included. That is why a simulation's releases are not private."""
    seeds: Seeds = Field(default=Seeds(), exclude_if=lambda value: value == Seeds())
    """Seeds apart."""
    data: SimulationData
    engine: Literal["local", "ray"] = "local"
    """`local`: our process pool. `ray`: Flower's simulation engine."""
    processes: int = Field(default=0, ge=0, le=1024)
    """Worker processes; 0 = one per core, or a single one where a GPU is used."""
    arms: tuple[str, ...] = USUAL_ARMS
    """What is run: the study itself (`federated`) and what it is compared with. `textbook` is the recipe of tutorials
    at the same epsilon: LoRA's A and B, Adam begun anew in every round, gradients cut at length 1. `pooled` trains on
    all sites' records in one place, also privately; units of different sites stay different there. `local-noise` is
    the study without its secure sum, where that shares the noise: each site adds all of it. `untroubled` is
    the study without `[simulation.trouble]`, on the same batches and noise. `personal` trains the federated adapter
    further at each site WITHOUT PRIVACY, as `fedvault-node personalise` does for that node's own eyes. `audit` trains
    nothing that is compared: it attacks training, as `fedvault-sim audit` does."""
    textbook_learning_rate: Positive = 0.1
    """Adam's, of the head in the arm `textbook`; chosen on texts that are not measured (Reuters R8, 20 Newsgroups)."""
    textbook_adapter_learning_rate: Positive = 0.01
    """Adam's, of the adapter in that arm."""
    single_site: str = "largest"
    """Which site the arm `single-site` takes: its name, `largest`, or `every` for one arm per site."""
    single_site_learning_rate: Positive | None = Field(default=None, exclude_if=lambda value: value is None)
    """Head learning rate of a site alone, which has other noise; default: the study's."""
    single_site_adapter_learning_rate: Positive | None = Field(default=None, exclude_if=lambda value: value is None)
    """Adapter learning rate of a site alone, likewise."""
    evaluate_every: int = Field(default=1, ge=1)
    """Rounds between evaluations of the federated arm; the last round is always evaluated."""
    curves: Literal["federated", "all"] = Field(default="federated", exclude_if=lambda value: value == "federated")
    """Which arms are evaluated between their first round and their last: the study's own, or every one."""
    update_norms: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the length of each site's update is kept, by round."""
    predictions: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether `tables/predictions.parquet` gets each arm's last answer to each held-out record, beside the truth. The
    file holds what records say."""
    reference: Literal["noiseless", "unclipped"] = "noiseless"
    """How the arms without privacy train. `noiseless`: by the study's own steps and scaled gradients without noise,
    at three times its rates, which noise no longer keeps low. `unclipped`: by plain gradients, at the rates below,
    which only fit where they were chosen for the task."""
    noiseless_factor: Positive = Field(default=NOISELESS_FACTOR, exclude_if=lambda value: value == NOISELESS_FACTOR)
    """How many times the study's rates those without noise are."""
    reference_learning_rate: Positive | None = None
    """Head learning rate of the arm without privacy, if it is unclipped; default: 4."""
    reference_adapter_learning_rate: Positive | None = None
    """Adapter learning rate of that arm, likewise."""
    reference_head_alone_learning_rate: Positive | None = None
    """Of the head that is trained alone, likewise; default: as beside the adapter, which may not bear as much."""

    trouble: Trouble = Field(default=Trouble(), exclude_if=lambda value: value == Trouble())
    """Faults and attacks on purpose."""

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [arm for arm in arms if arm not in ARMS]
        if unknown or "federated" not in arms:
            raise ValueError(f"arms are some of {', '.join(ARMS)}, 'federated' among them")
        return tuple(arm for arm in ARMS if arm in arms)

    def seed_of(self, what: Literal["split", "holdout", "batches", "noise"]) -> int:
        """Return the seed of one source of randomness."""
        own: int | None = getattr(self.seeds, what)
        return self.seed if own is None else own

    @model_validator(mode="after")
    def _only_unclipped_references_have_rates(self) -> Self:
        rates = (
            self.reference_learning_rate,
            self.reference_adapter_learning_rate,
            self.reference_head_alone_learning_rate,
        )
        if self.reference == "noiseless" and any(rates):
            raise ValueError(
                "simulation.reference_… learning rates only go with simulation.reference = 'unclipped'; left out, "
                "the arms without privacy follow the study's own"
            )
        if self.reference == "unclipped" and self.noiseless_factor != NOISELESS_FACTOR:
            raise ValueError("simulation.noiseless_factor only goes with simulation.reference = 'noiseless'")
        return self


class Scenario(Study):
    """A scenario file: a study with its simulation."""

    simulation: Simulation

    @model_validator(mode="after")
    def _unit_has_its_column(self) -> Self:
        unit, data = self.privacy.unit, self.simulation.data
        if unit != RECORD and data.unit_column is None:
            raise ValueError(
                f"simulation.data.unit_column is needed with privacy.unit = {unit!r}: the column that names each "
                "row's unit"
            )
        if unit == RECORD and data.unit_column is not None:
            raise ValueError("simulation.data.unit_column only goes with a privacy.unit other than 'record'")
        if data.subgroups and (unit == RECORD or getattr(self.task, "problem", "") != "single-label"):
            raise ValueError(
                "simulation.data.subgroups only goes with simulation.data.unit_column and a task of kind "
                "'sequence-classification' whose records have one label each"
            )
        own = data.split_column is not None or data.test is not None or data.validation is not None
        if data.split_column is not None and (data.test or data.validation):
            raise ValueError("simulation.data takes either a split_column, or files for test and validation")
        if own and data.split_by is not None:
            raise ValueError("simulation.data.split_by does not go with splits of the data's own: these decide")
        if data.global_test and data.split_column is None and data.test is None:
            raise ValueError("simulation.data.global_test needs a simulation.data.test file or a split_column")
        if data.global_test and "personal" in self.simulation.arms:
            raise ValueError(
                "the arm 'personal' does not go with simulation.data.global_test: no site holds a row back"
            )
        if unit != RECORD and data.split_by is not None:
            raise ValueError("simulation.data.split_by only goes with privacy.unit = 'record': units decide")
        if unit != RECORD and data.partition.by not in WHOLE_UNITS:
            raise ValueError(
                f"partition.by = {data.partition.by!r} deals out single rows, which would part the rows of one {unit}: "
                f"use {' or '.join(map(repr, WHOLE_UNITS))}"
            )
        return self

    @model_validator(mode="after")
    def _trouble_can_be_made(self) -> Self:
        trouble, federation = self.simulation.trouble, self.federation
        if trouble == Trouble():
            return self
        if federation.secure_sum is not None:
            raise ValueError("simulation.trouble does not go with federation.secure_sum")
        if trouble.poison == "scaled-update" and federation.wire != "float32":
            raise ValueError("simulation.trouble.poison = 'scaled-update' only goes with federation.wire = 'float32'")
        if trouble.poison == "flipped-labels" and len(getattr(self.task, "labels", ())) < 2:
            raise ValueError("simulation.trouble.poison = 'flipped-labels' only goes with a task of two labels or more")
        if trouble.server_crash_round is not None:
            if trouble.server_crash_round > federation.rounds:
                raise ValueError("simulation.trouble.server_crash_round is at most federation.rounds")
            if self.simulation.engine != "local":
                raise ValueError("simulation.trouble.server_crash_round only goes with simulation.engine = 'local'")
        return self

    @model_validator(mode="after")
    def _updates_can_be_measured(self) -> Self:
        if self.simulation.update_norms and self.federation.secure_sum is not None:
            raise ValueError("simulation.update_norms does not go with federation.secure_sum, which hides each update")
        return self

    @property
    def held_out_unit(self) -> str:
        """Name of what is held out together: rows of one value, the study's unit of privacy, or a single record."""
        return self.simulation.data.split_by or self.privacy.unit

    def as_study(self) -> Study:
        """Return the study without its simulation: what its hash identifies, and what nodes and server see."""
        return Study.model_validate(self.model_dump(exclude={"simulation"}))


def load(path: Path, changes: Sequence[str] = ()) -> Scenario:
    """Read a scenario and apply `section.key=value` changes, each value as TOML writes it, or bare text.

    Raises:
        SettingsError: as `shared.study.declaration.load_study`; a change that names no key; or an aggregation or
            a partition that neither FedVault nor an installed package knows.
    """
    scenario = parse(Scenario, read_changed(path, changes), where=str(path))
    method_for(scenario)
    if isinstance(how := scenario.simulation.data.partition, ByPlugin):
        plugin(PARTITIONERS, how.name)
    return scenario


def read_changed(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a file and apply changes to it; nothing is validated yet.

    What the file names is relative to the file, what `--set` names to the current folder, where it was typed.

    Raises:
        SettingsError: the model's folder is in the current folder alone, and the file names it.
    """
    declared = read_toml(path)
    for change in changes:
        _apply(declared, change, path.parent)
    name_model_beside(path.parent, declared)
    return declared


def data_path(scenario: Scenario, scenario_file: Path) -> Path:
    """Return the path of the scenario's table.

    Raises:
        SettingsError: it is not there.
    """
    source, folder = scenario.simulation.data.source, scenario_file.parent
    if source.startswith("dataset:"):
        name = source.removeprefix("dataset:")
        tables = [data_folder() / name / f"{name}{suffix}" for suffix in (".csv", ".parquet")]
        table = next((table for table in tables if table.exists()), None)
        if table is None:
            raise SettingsError(f"Expected {tables[0]}, got nothing.", hint=fetch_hint(name))
        return table
    path = folder / Path(source).expanduser()
    if path.exists():
        return path
    if Path(source).exists():
        raise elsewhere("simulation.data.source", source, folder)
    raise SettingsError(
        f"Expected simulation.data.source to be a file or folder, got {source!r}, which is not there.",
        hint=f"Looked in {path.resolve().parent}.",
    )


def _apply(declared: dict[str, Any], change: str, folder: Path) -> None:
    key, equals, value = change.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2 or not all(re.fullmatch(r"[\w-]+", part) for part in path):
        raise SettingsError(f"Expected --set section.key=value, got {change!r}.", hint="For example privacy.epsilon=1")
    section = declared
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise SettingsError(f"Expected a section at {part!r} in --set {change!r}, got a value.")
    section[path[-1]] = parse_value(value.strip())
    if key.strip() in PATHS and not is_name(source := str(section[path[-1]])) and Path(source).exists():
        section[path[-1]] = os.path.relpath(source, folder)


def parse_value(text: str) -> Any:
    """Read a value as TOML writes it, or else as bare text."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
