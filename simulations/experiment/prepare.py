"""From one table to sites on disk: each site's rows are split and tokenised once, by the node's own snapshot code."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.vault.records.identity import unit_name
from client.vault.records.snapshot import take_snapshot
from client.vault.records.splits import Split
from server.forecast.forecast import forecast_study
from server.forecast.text import verdict
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.errors import DataError
from shared.files import write_atomically
from shared.privacy.noise_schedule import declared_size
from shared.privacy.signal_to_noise import Prospect
from shared.records.ragged import Problem
from shared.records.tables import notes_on
from shared.tasks.registry import task_kind
from shared.tasks.sequence_classification import OneLabel
from shared.tasks.task_table import Table, counted, in_words
from simulations.experiment.partition import split
from simulations.experiment.partition_file import write_partition
from simulations.experiment.partition_kinds import ByColumn, Grouped, Partition, column_of
from simulations.experiment.scenario import HELD_OUT, VALIDATION, Scenario, SimulationData
from simulations.experiment.sites import GLOBAL_TEST, Prepared, Site, save, save_groups
from simulations.experiment.split_rules import MARK, TEST, TRAIN, held_out_mark, read_source, rule_of
from simulations.experiment.unseen_labels import unseen_labels

WARNED_OF = 20


def prepare(scenario: Scenario, source: Path, folder: Path) -> Prepared:
    """Read, split and tokenise a table, and report everything that is wrong with it before any training.

    Sites that declare fewer records than the study admits are left out, as a real node would refuse.

    Raises:
        DataError: no record carries one of the study's labels, or fewer sites than the quorum are left.
        SettingsError: the base model cannot carry the study out.
    """
    layout_of(scenario.as_study())
    reader, table, parts, test = _split(scenario, source)
    processor = reader.kind.processor(find(scenario.model))
    warnings = [*notes_on(table), *_left_out(scenario, table, parts.values())]
    read = [
        _site(scenario, reader, processor, folder, index, name, part)
        for index, (name, part) in enumerate(parts.items())
    ]
    sites, smallest = [one.site for one in read], scenario.federation.smallest_declared_size
    large = tuple(site for site in sites if site.declared_size >= smallest)
    warnings += _first([_too_small(site, scenario) for site in sites if site.declared_size < smallest], "left out")
    unusable = [
        f"{s.name}: {s.unusable} of {s.train} training records unusable; {'; '.join(s.problems)}."
        for s in large
        if s.unusable
    ]
    warnings += _first(unusable, "with unusable records")
    warnings += counted([problem for one in read for problem in one.problems])
    warnings += unseen_labels(scenario, [one.labels for one in read if one.site in large])
    held_out = {one.site.name: one.held_out for one in read}
    tested = None if test is None else _tested(scenario, reader, processor, folder, len(parts), test, table)
    warnings += [] if tested is None else tested.warnings
    bare = [
        f"{s.name}: no usable record is held out, so no figure speaks of it."
        for s in large
        if tested is None and not held_out[s.name]
    ]
    warnings += _first(bare, "without held-out records")
    warnings += _delta_warnings(scenario, large) + (_noise_warnings(scenario, large) if large else [])
    if len(large) < scenario.federation.quorum:
        raise DataError(
            f"Expected at least federation.quorum={scenario.federation.quorum} usable sites, got {len(large)}.",
            hint="; ".join(warnings) or "Split the data into more sites, or lower federation.quorum.",
        )
    prepared = Prepared(folder, large, tuple(warnings), None if tested is None else tested.site)
    if not any(held_out[site.name] for site in large) and not (tested and tested.held_out):
        raise DataError(
            "Expected usable held-out records at some site, got none.",
            hint=" ".join(["Raise simulation.data.holdout.", *unusable[:1]]),
        )
    write_partition(folder / "partition.csv", parts)
    save(prepared)
    return prepared


class ReadSite(NamedTuple):
    """A site, and facts about it that are told once."""

    site: Site
    held_out: int
    """Usable records that are never trained on."""
    problems: tuple[Problem, ...]
    labels: Mapping[str, int]
    """Training records by label of the study."""


class SiteSize(NamedTuple):
    """The training records of a site, and the units that they belong to."""

    records: int
    units: int


def sizes_of(scenario: Scenario, source: Path) -> dict[str, SiteSize]:
    """Count every site's training records and units, by its name, without reading more than the table."""
    reader, _, parts, _ = _split(scenario, source)
    return {name: _size(scenario, reader, part) for name, part in parts.items()}


def _size(scenario: Scenario, reader: Table, part: pd.DataFrame) -> SiteSize:
    rule = rule_of(scenario, part)
    rows = part[rule.splits(reader, part, rule.contents(part)) == Split.TRAIN]
    if rule.unit_column is None:
        records = len(set(reader.contents(rows)))
        return SiteSize(records, records)
    by_unit = rows[rule.unit_column].map(unit_name).value_counts()
    return SiteSize(int(by_unit.clip(upper=scenario.privacy.records_per_unit).sum()), len(by_unit))


class Tables(NamedTuple):
    """The table of a scenario, split into sites."""

    reader: Table
    table: pd.DataFrame
    parts: dict[str, pd.DataFrame]
    test: pd.DataFrame | None
    """Rows that the global adapter is evaluated on, and that belong to no site."""


def _split(scenario: Scenario, source: Path) -> Tables:
    data = scenario.simulation.data
    reader, by = Table(task_kind(scenario.task), data.columns), column_of(data.partition)
    named = (by, data.unit_column, data.split_by, *data.subgroups, *_evaluated_columns(scenario, reader))
    table = read_source(reader, data, source, list(dict.fromkeys(one for one in named if one is not None)), by or "")
    _check_labels(scenario, reader, table, source)
    test = None
    # for choosing settings, test rows are none to evaluate on, also where the data have no validation rows
    if data.global_test and (mark := held_out_mark(data, table)) == (TEST if data.evaluate == HELD_OUT else VALIDATION):
        test, table = table[table[MARK] == mark], table[table[MARK] != mark]
    parts = split(
        table,
        data.partition,
        label_column=_label_column(reader),
        unit_column=data.unit_column,
        seed=scenario.simulation.seed_of("split"),
        folder=source if source.is_dir() else source.parent,
    )
    return Tables(reader, table, parts, test)


def _evaluated_columns(scenario: Scenario, reader: Table) -> list[str]:
    """Return the column whose values a private evaluation counts apart, unless the task reads it anyway."""
    subgroup = None if scenario.evaluation is None else scenario.evaluation.subgroup
    if subgroup is None:
        return []
    column = scenario.simulation.data.columns.get(subgroup.column, subgroup.column)
    return [] if column in reader.names.values() else [column]


def _site(
    scenario: Scenario, reader: Table, processor: object, folder: Path, index: int, name: str, part: pd.DataFrame
) -> ReadSite:
    rule = rule_of(scenario, part)
    snapshot = take_snapshot(part, reader, processor, rule, records_per_unit=scenario.privacy.records_per_unit)
    facts = snapshot.facts
    site = Site(
        index=index,
        name=name,
        rows=facts.rows,
        train=facts.train,
        holdout=facts.holdout,
        dropped=facts.dropped,
        unusable=facts.unusable,
        declared_size=declared_size(facts.units),
        problems=tuple(in_words(snapshot.problems, most=3)),
        units=None if snapshot.train.units is None else facts.units,
    )
    files = Prepared(folder, (site,), ())
    snapshot.train.save(files.train_path(site))
    snapshot.holdout.save(files.holdout_path(site))
    if scenario.simulation.trouble.poison_of(name) == "flipped-labels":
        flipped = _flipped(part, _label_column(reader), getattr(scenario.task, "labels", ()))
        poisoned = take_snapshot(flipped, reader, processor, rule, records_per_unit=scenario.privacy.records_per_unit)
        poisoned.train.save(files.flipped_path(site))
    if scenario.evaluation is not None:
        most, evaluation = scenario.privacy.records_per_unit, scenario.evaluation
        counted_units = take_snapshot(part, reader, processor, rule, records_per_unit=most, evaluation=evaluation)
        counted_units.holdout.save(files.evaluation_path(site))
    held_out = part[rule.splits(reader, part, rule.contents(part)) == Split.HOLDOUT]
    _save_groups(scenario, files, site, held_out, snapshot.holdout.usable)
    return ReadSite(site, int(snapshot.holdout.usable.sum()), snapshot.problems, facts.labels)


class Tested(NamedTuple):
    """The table that the global adapter is evaluated on."""

    site: Site
    held_out: int
    warnings: list[str]


def _tested(
    scenario: Scenario,
    reader: Table,
    processor: object,
    folder: Path,
    index: int,
    rows: pd.DataFrame,
    others: pd.DataFrame,
) -> Tested:
    """Write the rows of a global test, as a site's held-out ones."""
    encoded, rule = reader.encode(rows, processor), rule_of(scenario, others)
    site = Site(index, GLOBAL_TEST, len(rows), 0, len(encoded.records), 0, 0, 0)
    files = Prepared(folder, (site,), ())
    encoded.records.save(files.holdout_path(site))
    _save_groups(scenario, files, site, rows, encoded.records.usable)
    trained_on = set(rule.contents(others))
    twice = sum(content in trained_on for content in rule.contents(rows))
    warnings = [f"{twice} of {len(rows)} test rows have the content of a row that is trained on."] if twice else []
    return Tested(site, int(encoded.records.usable.sum()), warnings)


def _save_groups(
    scenario: Scenario, files: Prepared, site: Site, held_out: pd.DataFrame, usable: NDArray[np.bool_]
) -> None:
    data = scenario.simulation.data
    together = data.unit_column or data.split_by
    if together is None:
        return
    save_groups(held_out[together][usable].map(unit_name).tolist(), files.groups_path(site))
    if data.subgroups:
        values = {column: [*map(str, held_out[column][usable])] for column in data.subgroups}
        write_atomically(files.subgroups_path(site), json.dumps(values).encode())


def _flipped(part: pd.DataFrame, column: str | None, labels: Sequence[str]) -> pd.DataFrame:
    """Return rows with the next label in place of each; what is no label of the study stays.

    Raises:
        DataError: the task's rows have no single label.
    """
    if column is None:
        raise DataError("Expected a task of one label a row for poison='flipped-labels', got another.")
    wrong = dict(zip(labels, (*labels[1:], labels[0]), strict=True))
    flipped = part.assign(**{column: [wrong.get(str(cell).strip(), cell) for cell in part[column]]})
    flipped.attrs = part.attrs
    if (flipped[column] == part[column]).all():
        raise DataError(f"Expected labels of the study in column {column!r} to flip, got none as task.labels has them.")
    return flipped


def _label_column(reader: Table) -> str | None:
    """Return the column of labels, if there is one: sites may be skewed by it."""
    named = [column.name for column in reader.kind.columns if column.name == "label"]
    return reader.names[named[0]] if named else None


def _check_labels(scenario: Scenario, reader: Table, table: pd.DataFrame, source: Path) -> None:
    labels: tuple[str, ...] = getattr(scenario.task, "labels", ())
    column = _label_column(reader)
    if not labels or column is None or getattr(scenario.task, "problem", "single-label") != "single-label":
        return
    goal, cells = OneLabel(labels), sorted({str(cell).strip() for cell in reader.rows(table)["label"]})
    if not any(goal.target(cell) is not None for cell in cells):
        seen = ", ".join(map(repr, cells[:5]))
        raise DataError(
            f"Expected labels {list(labels)} in column {column!r} of {source}, got {seen}.",
            hint=" ".join(["Write task.labels as they stand in the data.", *notes_on(table)]),
        )


def _left_out(scenario: Scenario, table: pd.DataFrame, parts: Iterable[pd.DataFrame]) -> list[str]:
    data, counts = scenario.simulation.data, {"site": len(table) - sum(len(part) for part in parts)}
    both_sides = _units_on_both_sides(data, table)
    if data.unit_column is not None:
        counts[scenario.privacy.unit] = _nameless(table, data.unit_column)
    if data.split_by is not None:
        counts[data.split_by] = _nameless(table, data.split_by)
    left_out = [f"{rows} rows name no {what} and were left out." for what, rows in counts.items() if rows]
    if both_sides:
        left_out.append(
            f"{both_sides} {scenario.privacy.unit}s have rows on both sides of the split that the data declare."
        )
    return left_out + _trimmed(data.partition, table)


def _units_on_both_sides(data: SimulationData, table: pd.DataFrame) -> int:
    if data.unit_column is None or MARK not in table:
        return 0
    names, mark = table[data.unit_column].map(unit_name), held_out_mark(data, table)
    trained_on, held_out = (set(names[table[MARK] == one]) for one in (TRAIN, mark))
    return len((trained_on & held_out) - {""})


def _trimmed(partition: Partition, table: pd.DataFrame) -> list[str]:
    """Tell of names of sites with blanks around them: they are the sites of the names without."""
    if not isinstance(partition, ByColumn | Grouped):
        return []
    names = table[partition.column]
    padded = int(((names != names.str.strip()) & (names.str.strip() != "")).sum())
    return [f"{padded} names of sites have blanks around them, which do not count."] if padded else []


def _nameless(table: pd.DataFrame, column: str) -> int:
    return int((table[column].map(unit_name) == "").sum())


def _first(warnings: list[str], what: str) -> list[str]:
    """Keep the first few warnings of a kind; nobody reads one for each of thousands of sites."""
    left = len(warnings) - WARNED_OF
    return [*warnings[:WARNED_OF], f"{left} more sites {what}."] if left > 0 else warnings


def _too_small(site: Site, scenario: Scenario) -> str:
    smallest = scenario.federation.smallest_declared_size
    trained = f"{site.unit_count} training {scenario.privacy.unit}s"
    return f"Site {site.name!r} left out: {trained}, federation.smallest_declared_size={smallest}."


def _noise_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    study = scenario.as_study()
    forecast = forecast_study(study, layout_of(study), {site.name: site.declared_size for site in sites})
    if forecast.prospect in (Prospect.ENOUGH, Prospect.UNKNOWN):
        return []
    return [verdict(forecast, [])[0] + " `fedvault-sim plan` says what would help."]


def _delta_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    delta, largest = scenario.privacy.delta, max((site.declared_size for site in sites), default=1)
    if delta <= 1 / (10 * largest):
        return []
    return [f"privacy.delta={delta:g} is above 1/(10 x {largest}), the usual limit for the largest site."]
