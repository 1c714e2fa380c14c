"""From one table to sites on disk: split, give every record its role, tokenise once."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.vault.records.splits import Split, splits_of
from server.forecast.forecast import forecast_study
from server.forecast.text import verdict
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.errors import DataError
from shared.files import write_atomically
from shared.privacy.noise_schedule import declared_size
from shared.privacy.signal_to_noise import Prospect
from shared.records.ragged import load
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table, in_words
from simulations.experiment.partition import ByColumn, split
from simulations.experiment.scenario import Scenario

WARNED_OF = 20


@dataclass(frozen=True)
class Site:
    """One simulated organisation."""

    index: int
    name: str
    rows: int
    train: int
    holdout: int
    dropped: int
    unusable: int
    """Training records that contribute nothing: an unknown label, no text, a missing file."""
    declared_size: int
    """What its operator would declare: the training records, rounded to two digits."""
    problems: tuple[str, ...] = ()
    """The first few rows that something is wrong with, and what."""


@dataclass(frozen=True)
class Prepared:
    """All sites, and what was left out."""

    folder: Path
    sites: tuple[Site, ...]
    warnings: tuple[str, ...]

    def train_path(self, site: Site) -> Path:
        """Records to train on."""
        return self.folder / f"{site.index}.train.npz"

    def holdout_path(self, site: Site) -> Path:
        """Records never trained on."""
        return self.folder / f"{site.index}.holdout.npz"


def prepare(scenario: Scenario, source: Path, folder: Path) -> Prepared:
    """Read, split and tokenise; everything that can be wrong with the data is said here, before any training.

    Sites that declare fewer records than the study admits are left out, as a real node would refuse.

    Raises:
        DataError: no record carries one of the study's labels, or fewer sites than the quorum are left.
    """
    reader, table, parts = _split(scenario, source)
    processor = reader.kind.processor(find(scenario.model))
    warnings = _left_without_site(len(table), parts.values())
    sites = [
        _site(scenario, reader, processor, folder, index, name, part)
        for index, (name, part) in enumerate(parts.items())
    ]
    smallest = scenario.federation.smallest_declared_size
    kept = tuple(site for site in sites if site.declared_size >= smallest)
    warnings += _first([_too_small(site, scenario) for site in sites if site.declared_size < smallest], "left out")
    unusable = [
        f"{s.name}: {s.unusable} of {s.train} training records unusable; {'; '.join(s.problems)}."
        for s in kept
        if s.unusable
    ]
    warnings += _first(unusable, "with unusable records")
    warnings += _delta_warnings(scenario, kept) + (_noise_warnings(scenario, kept) if kept else [])
    if len(kept) < scenario.federation.quorum:
        raise DataError(
            f"Expected at least federation.quorum={scenario.federation.quorum} usable sites, got {len(kept)}.",
            hint="; ".join(warnings) or "Split the data into more sites, or lower federation.quorum.",
        )
    prepared = Prepared(folder, kept, tuple(warnings))
    if not any(load(prepared.holdout_path(site)).usable.any() for site in kept):
        raise DataError(
            "Expected usable held-out records at some site, got none.", hint="Raise simulation.data.holdout."
        )
    write_atomically(folder / "sites.json", json.dumps([asdict(s) for s in kept], indent=1).encode())
    write_atomically(folder / "warnings.json", json.dumps(warnings).encode())
    return prepared


def sizes_of(scenario: Scenario, source: Path) -> dict[str, int]:
    """Training records of every site, by name: who would train on what, without reading more than the table."""
    reader, _, parts = _split(scenario, source)
    return {name: int((_roles(scenario, reader, part) == Split.TRAIN).sum()) for name, part in parts.items()}


def reopen(folder: Path) -> Prepared:
    """What `prepare` left in a folder."""
    sites = json.loads((folder / "sites.json").read_text())
    warnings = json.loads((folder / "warnings.json").read_text())
    return Prepared(
        folder, tuple(Site(**site | {"problems": tuple(site["problems"])}) for site in sites), tuple(warnings)
    )


def _split(scenario: Scenario, source: Path) -> tuple[Table, pd.DataFrame, dict[str, pd.DataFrame]]:
    data = scenario.simulation.data
    reader = Table(task_kind(scenario.task), data.columns)
    others = [data.partition.column] if isinstance(data.partition, ByColumn) else []
    table = reader.read(source, *others)
    _check_labels(scenario, reader, table, source)
    parts = split(table, data.partition, label_column=_label_column(reader), seed=scenario.simulation.seed)
    return reader, table, parts


def _roles(scenario: Scenario, reader: Table, part: pd.DataFrame) -> NDArray[np.object_]:
    data = scenario.simulation.data
    key = hashlib.sha256(f"fedvault simulation roles {scenario.simulation.seed}".encode()).digest()
    return np.array(splits_of(reader.contents(part), key=key, holdout=data.holdout, used=data.used), dtype=object)


def _site(
    scenario: Scenario, reader: Table, processor: object, folder: Path, index: int, name: str, part: pd.DataFrame
) -> Site:
    decided = _roles(scenario, reader, part)
    train, problems = reader.encode(part[decided == Split.TRAIN], processor)
    holdout, others = reader.encode(part[decided == Split.HOLDOUT], processor)
    train.save(folder / f"{index}.train.npz")
    holdout.save(folder / f"{index}.holdout.npz")
    return Site(
        index=index,
        name=name,
        rows=len(part),
        train=len(train),
        holdout=len(holdout),
        dropped=int((decided == Split.DROPPED).sum()),
        unusable=train.unusable,
        declared_size=declared_size(len(train)),
        problems=tuple(in_words(problems + others, most=3)),
    )


def _label_column(reader: Table) -> str | None:
    """The column that says what a record is, if there is one: sites may be skewed by it."""
    named = [column.name for column in reader.kind.columns if column.name == "label"]
    return reader.names[named[0]] if named else None


def _check_labels(scenario: Scenario, reader: Table, table: pd.DataFrame, source: Path) -> None:
    labels: tuple[str, ...] = getattr(scenario.task, "labels", ())
    column = _label_column(reader)
    if not labels or column is None or getattr(scenario.task, "problem", "single-label") != "single-label":
        return
    found = table[column].str.strip()
    if not found.isin(labels).any():
        seen = ", ".join(map(repr, sorted(found.unique())[:5]))
        raise DataError(
            f"Expected labels {list(labels)} in column {column!r} of {source}, got {seen}.",
            hint="Write task.labels as they stand in the data.",
        )


def _left_without_site(rows: int, parts: Iterable[pd.DataFrame]) -> list[str]:
    lost = rows - sum(len(part) for part in parts)
    return [f"{lost} rows name no site and were left out."] if lost else []


def _first(warnings: list[str], what: str) -> list[str]:
    """The first few warnings of a kind; of thousands of sites nobody reads each."""
    left = len(warnings) - WARNED_OF
    return [*warnings[:WARNED_OF], f"{left} more sites {what}."] if left > 0 else warnings


def _too_small(site: Site, scenario: Scenario) -> str:
    smallest = scenario.federation.smallest_declared_size
    return f"Site {site.name!r} left out: {site.train} training records, federation.smallest_declared_size={smallest}."


def _noise_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    study = scenario.as_study()
    forecast = forecast_study(study, layout_of(study), {site.name: site.declared_size for site in sites})
    if forecast.prospect is Prospect.ENOUGH:
        return []
    return [verdict(forecast, [])[0] + " `fedvault-sim plan` says what would help."]


def _delta_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    delta, largest = scenario.privacy.delta, max((site.declared_size for site in sites), default=1)
    if delta <= 1 / (10 * largest):
        return []
    return [f"privacy.delta={delta:g} is above 1/(10 x {largest}), the usual limit for the largest site."]
