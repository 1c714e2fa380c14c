"""From one table to sites on disk: each site's rows are split and tokenised once, by the node's own snapshot code."""

import json
from collections.abc import Mapping, Sequence
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
from shared.errors import DataError, SettingsError
from shared.files import write_atomically
from shared.privacy.noise_schedule import declared_size
from shared.privacy.signal_to_noise import Prospect
from shared.records.ragged import Problem, Records
from shared.records.tables import notes_on
from shared.spelling import meant
from shared.tasks.registry import task_kind
from shared.tasks.sequence_classification import OneLabel
from shared.tasks.task_table import Table, counted, in_words
from simulations.experiment.data_notes import (
    HINTED,
    SplitSide,
    all_alike,
    check_usable,
    first_of,
    joined_sides,
    left_out,
    near_equal,
    over_sites,
    trained_on_too,
    unusable_held_out,
)
from simulations.experiment.partition import split
from simulations.experiment.partition_file import write_partition
from simulations.experiment.partition_kinds import column_of
from simulations.experiment.scenario import HELD_OUT, VALIDATION, Scenario
from simulations.experiment.sites import GLOBAL_TEST, Prepared, Site, save, save_groups
from simulations.experiment.split_rules import FILES, MARK, TEST, held_out_mark, read_source, rule_of
from simulations.experiment.unseen_labels import unseen_labels


def prepare(scenario: Scenario, source: Path, folder: Path) -> Prepared:
    """Read, split and tokenise a table, and report everything that is wrong with it before any training.

    Sites that declare fewer records than the study admits are left out, as a real node would refuse.

    Raises:
        DataError: no record carries one of the study's labels, fewer sites than the quorum are left, or they have no
            usable records to train on or to evaluate on.
        SettingsError: the base model cannot carry the study out, or `columns` names what the task does not read.
    """
    layout_of(scenario.as_study())
    reader, table, parts, test = _split(scenario, source)
    processor = reader.kind.processor(find(scenario.model))
    unnamed = left_out(scenario, table, parts.values())
    warnings = [*notes_on(table), *unnamed]
    warnings += first_of(near_equal(parts), "with names like others'")
    read = [
        _site(scenario, reader, processor, folder, index, name, part)
        for index, (name, part) in enumerate(parts.items())
    ]
    sites, smallest = [one.site for one in read], scenario.federation.smallest_declared_size
    of_large = [one for one in read if one.site.declared_size >= smallest]
    large = tuple(one.site for one in of_large)
    too_small = [_too_small(site, scenario) for site in sites if site.declared_size < smallest]
    warnings += first_of(too_small, "left out")
    unusable = [
        f"{s.name}: {s.unusable} of {s.train} training records unusable; {'; '.join(s.problems)}."
        for s in large
        if s.unusable
    ]
    warnings += first_of(unusable, "with unusable records")
    warnings += _copies(read) + _trained_on_too(of_large)
    warnings += counted([problem for one in read for problem in one.problems])
    warnings += unseen_labels(scenario, [one.labels for one in read if one.site in large])
    tested = None if test is None else _tested(scenario, reader, processor, folder, len(parts), test, table)
    warnings += [] if tested is None else tested.warnings
    sides = {one.site.name: one.held_out for one in of_large} if tested is None else {GLOBAL_TEST: tested.held_out}
    lost = [note for place, side in sides.items() for note in unusable_held_out(place, side)]
    warnings += first_of(lost, "with unusable held-out records")
    bare = [
        f"{one.site.name}: no usable record is held out, so no figure speaks of it."
        for one in of_large
        if tested is None and not one.held_out.usable
    ]
    warnings += first_of(bare, "without held-out records")
    warnings += _delta_warnings(scenario, large) + (_noise_warnings(scenario, large) if large else [])
    if len(large) < scenario.federation.quorum:
        raise DataError(
            f"Expected at least federation.quorum={scenario.federation.quorum} usable sites, got {len(large)}.",
            hint=" ".join(
                [*all_alike(scenario, table), *unnamed, *first_of(too_small, "left out", most=HINTED)]
                or ["Split the data into more sites, or lower federation.quorum."]
            ),
        )
    prepared = Prepared(folder, large, tuple(warnings), None if tested is None else tested.site)
    check_usable(scenario, table, joined_sides([one.train for one in of_large]), joined_sides([*sides.values()]))
    write_partition(folder / "partition.csv", parts)
    save(prepared)
    return prepared


class ReadSite(NamedTuple):
    """A site, and facts about it that are told once."""

    site: Site
    train: SplitSide
    held_out: SplitSide
    problems: tuple[Problem, ...]
    labels: Mapping[str, int]
    """Training records by label of the study."""
    copies: int
    """Training rows that are encoded as another one is."""
    trained_on: frozenset[str]
    """Contents of the training rows, where the data say what each row is for; by a keyed hash none is held out too."""
    held_out_contents: tuple[str, ...]
    """Of each held-out row, likewise."""


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
    _check_columns(scenario, reader)
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
    if test is not None and GLOBAL_TEST in parts:
        raise DataError(
            f"Expected no site called {GLOBAL_TEST!r}, got one.",
            hint="Results call the table of simulation.data.global_test so: give the site another name in the data.",
        )
    return Tables(reader, table, parts, test)


def _check_columns(scenario: Scenario, reader: Table) -> None:
    """Check that each name in `columns` is one of the task's, or the one that a private evaluation groups by."""
    subgroup = None if scenario.evaluation is None else scenario.evaluation.subgroup
    known = [*reader.names, *([] if subgroup is None else [subgroup.column])]
    unknown = [name for name in scenario.simulation.data.columns if name not in known]
    if unknown:
        column = scenario.simulation.data.columns[unknown[0]]
        raise SettingsError(
            f"Expected simulation.data.columns to name columns of the task, which are {', '.join(known)}, "
            f"got {unknown[0]!r}.",
            hint=f'Write it as in columns = {{ {meant(unknown[0], known) or known[0]} = "{column}" }}.',
        )
    shared = {"group", *getattr(scenario.task, "ids", ())}  # an id may well be what recommendations are grouped by
    apart = {name: column for name, column in reader.names.items() if name not in shared}
    for column in apart.values():
        alike = [name for name, other in apart.items() if other == column]
        if len(alike) > 1:
            raise SettingsError(
                f"Expected a column of its own for each column of the task, got {column!r} for {' and '.join(alike)}.",
                hint="Name another one for one of them in simulation.data.columns.",
            )


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
        problems=tuple(in_words(snapshot.problems, most=3, files=part.attrs.get(FILES, ()))),
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
    contents = rule.contents(part)
    splits, content_of = rule.splits(reader, part, contents), np.array(contents, dtype=object)
    held_out, trained_on = part[splits == Split.HOLDOUT], part[splits == Split.TRAIN]
    _save_held_out(scenario, files, site, held_out, snapshot.holdout.usable)
    declared = MARK in part
    return ReadSite(
        site=site,
        train=_side(snapshot.train, trained_on, snapshot.problems),
        held_out=_side(snapshot.holdout, held_out, snapshot.problems),
        problems=snapshot.problems,
        labels=facts.labels,
        copies=facts.copies,
        trained_on=frozenset(content_of[splits == Split.TRAIN]) if declared else frozenset(),
        held_out_contents=tuple(content_of[splits == Split.HOLDOUT]) if declared else (),
    )


def _side(records: Records, rows: pd.DataFrame, problems: Sequence[Problem]) -> SplitSide:
    numbers = set(rows.index.tolist())
    its_own, files = tuple(one for one in problems if one.row in numbers), tuple(rows.attrs.get(FILES, ()))
    return SplitSide(len(records), int(records.usable.sum()), its_own, files)


def _copies(read: Sequence[ReadSite]) -> list[str]:
    counts = {one.site.name: (one.copies, one.copies + one.site.train) for one in read}
    return over_sites(counts, "training rows are encoded as another one is, and copies count once")


def _trained_on_too(read: Sequence[ReadSite]) -> list[str]:
    """Tell of held-out rows whose content one of the sites trains on."""
    trained_on = frozenset[str]().union(*(one.trained_on for one in read))
    counts = {one.site.name: (trained_on_too(one.held_out_contents, trained_on), one.site.holdout) for one in read}
    return over_sites(counts, "held-out rows have the content of a row that is trained on")


class Tested(NamedTuple):
    """The table that the global adapter is evaluated on."""

    site: Site
    held_out: SplitSide
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
    _save_held_out(scenario, files, site, rows, encoded.records.usable)
    twice = trained_on_too(rule.contents(rows), set(rule.contents(others)))
    warnings = [f"{twice} of {len(rows)} test rows have the content of a row that is trained on."] if twice else []
    return Tested(site, _side(encoded.records, rows, encoded.problems), warnings)


def _save_held_out(
    scenario: Scenario, files: Prepared, site: Site, held_out: pd.DataFrame, usable: NDArray[np.bool_]
) -> None:
    """Write which row of the table each usable held-out record is, counted from 1, and its groups, if there are any."""
    np.save(files.rows_path(site), held_out.index[usable].to_numpy(np.int64) + 1)
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
