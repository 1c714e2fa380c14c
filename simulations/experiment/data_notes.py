"""Tell a scenario's owner about the data: notes that go into the result, and why no record could be used."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from client.vault.records.identity import unit_name
from shared.errors import DataError
from shared.records.ragged import Problem
from shared.records.tables import notes_on
from shared.tasks.task_table import in_words
from simulations.experiment.partition_kinds import ByColumn, Grouped, Partition
from simulations.experiment.scenario import Scenario, SimulationData
from simulations.experiment.split_rules import MARK, TRAIN, DeclaredRule, held_out_mark, rule_of

WARNED_OF, HINTED = 20, 3
"""Sites that the notes of a result name, and those that a hint or a note on all of them does."""


class SplitSide(NamedTuple):
    """The records on one side of the split, at one site or at several."""

    records: int
    usable: int
    problems: tuple[Problem, ...]
    """Their rows that something is wrong with."""
    files: tuple[tuple[int, str], ...] = ()
    """Number of the first row, and name, of each file that was read after the table."""


def joined_sides(sides: Sequence[SplitSide]) -> SplitSide:
    """Return the records of several sites as one side."""
    problems = tuple(problem for side in sides for problem in side.problems)
    files = next((side.files for side in sides), ())
    return SplitSide(sum(side.records for side in sides), sum(side.usable for side in sides), problems, files)


def check_usable(scenario: Scenario, table: pd.DataFrame, train: SplitSide, held_out: SplitSide) -> None:
    """Check that there are usable records on both sides of the split.

    Args:
        scenario: as declared.
        table: all rows of sites.
        train: the records that are trained on, of all sites.
        held_out: those that are never trained on, or of the global test.

    Raises:
        DataError: there are none on one side; with what is wrong with the first few, or else why there are none.
    """
    if train.usable and held_out.usable:
        return
    correct = "Correct the rows, or say in [task] and simulation.data.columns how to read them."
    if not train.usable and not held_out.usable:
        both = joined_sides([train, held_out])
        got, suggestions = f"usable records, got none: none of {both.records} could be used", [*_reasons(both), correct]
    elif not train.usable:
        got, suggestions = f"usable records to train on, got none of {train.records}", [*_reasons(train), correct]
    elif held_out.records:
        got, suggestions = f"usable held-out records, got none of {held_out.records}", [*_reasons(held_out), correct]
    else:
        alike, raised = all_alike(scenario, table), "Raise simulation.data.holdout."
        if isinstance(rule_of(scenario, table), DeclaredRule):
            raised = "No row that the data hold out is at a site that takes part: see which sites these rows name."
        got, suggestions = "usable held-out records at some site, got none", alike or [raised]
    raise DataError(f"Expected {got}.", hint=" ".join([*suggestions, *notes_on(table)]))


def _reasons(side: SplitSide) -> list[str]:
    reasons = in_words(side.problems, most=3, files=side.files)
    return [f"{'; '.join(reasons)}."] if reasons else []


def unusable_held_out(place: str, side: SplitSide) -> list[str]:
    """Tell that some held-out records cannot be used: no figure speaks of them."""
    if side.usable == side.records:
        return []
    counted = f"{side.records - side.usable} of {side.records} held-out records unusable, and so in no figure"
    return [f"{place}: {counted}; {' '.join(_reasons(side))}".rstrip("; ")]


def all_alike(scenario: Scenario, table: pd.DataFrame) -> list[str]:
    """Tell that all rows are of one content, or of one unit, and so on one side of a split by a keyed hash."""
    data, rule = scenario.simulation.data, rule_of(scenario, table)
    if isinstance(rule, DeclaredRule):
        return []
    together = data.unit_column or data.split_by
    names = rule.contents(table) if together is None else table[together].map(unit_name).tolist()
    if len(set(names) - {""}) != 1:
        return []
    what = "content" if together is None else scenario.privacy.unit if data.unit_column else data.split_by
    return [f"All {len(table)} rows have one {what}, and are trained on or held out together: add rows of others."]


def trained_on_too(contents: Sequence[str], trained_on: Collection[str]) -> int:
    """Count the rows whose content is also trained on; a row without content is like no other."""
    return sum(content in trained_on for content in contents if content)


def over_sites(counts: Mapping[str, tuple[int, int]], what: str) -> list[str]:
    """Tell of such rows in one sentence, with the sites that have most of them.

    Args:
        counts: such rows and all of that kind, by site.
        what: ends the sentence.
    """
    some = sorted(((name, rows) for name, (rows, _) in counts.items() if rows), key=lambda one: -one[1])
    if not some:
        return []
    if len(some) == 1:
        ((name, rows),) = some
        return [f"{name}: {rows} of {counts[name][1]} {what}."]
    places = [f"{rows} at {name}" for name, rows in some[:HINTED]]
    more = [f"the others at {len(some) - HINTED} more sites"] if len(some) > HINTED else []
    rows, total = sum(rows for _, rows in some), sum(total for _, total in counts.values())
    return [f"{rows} of {total} {what}: {', '.join([*places, *more])}."]


def near_equal(sites: Iterable[str]) -> list[str]:
    """Tell of sites whose names a person would take for one; nobody but the data's owner knows if they are."""
    of_form: dict[str, list[str]] = {}
    for name in sites:
        visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
        of_form.setdefault(unit_name(visible), []).append(name)
    return [
        f"{' and '.join(_told_apart(names))} are sites of their own: their names differ in case, spacing, invisible "
        "characters or the spelling of a letter or number alone."
        for names in of_form.values()
        if len(names) > 1
    ]


def _told_apart(names: Sequence[str]) -> list[str]:
    """Show names in quotation marks; in ASCII if some look alike, as one letter may be one character or two."""
    looks = {unicodedata.normalize("NFC", name) for name in names}
    return [repr(name) if len(looks) == len(names) else ascii(name) for name in names]


def left_out(scenario: Scenario, table: pd.DataFrame, parts: Iterable[pd.DataFrame]) -> list[str]:
    """Count the rows that belong to no site or no unit, and what else is unusual about the cells that name these."""
    data, counts = scenario.simulation.data, {"site": len(table) - sum(len(part) for part in parts)}
    both_sides = _units_on_both_sides(data, table)
    if data.unit_column is not None:
        counts[scenario.privacy.unit] = _nameless(table, data.unit_column)
    if data.split_by is not None:
        counts[data.split_by] = _nameless(table, data.split_by)
    notes = [f"{rows} rows name no {what} and were left out." for what, rows in counts.items() if rows]
    if both_sides:
        notes.append(
            f"{both_sides} {scenario.privacy.unit}s have rows on both sides of the split that the data declare."
        )
    return notes + _trimmed(data.partition, table)


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


def first_of(warnings: list[str], what: str, *, most: int = WARNED_OF) -> list[str]:
    """Keep the first few warnings of a kind; nobody reads one for each of thousands of sites."""
    left = len(warnings) - most
    return [*warnings[:most], f"{left} more sites {what}."] if left > 0 else warnings
