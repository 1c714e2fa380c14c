"""Checks of one dataset's records: what would not stop a study, and spoil it. For the operator's eyes only."""

from collections import Counter

from client.operator.finding import Seen
from client.vault.records.dataset import Dataset
from client.vault.records.identity import unit_name
from client.vault.records.source import contents_of, read_whole_source
from shared.errors import DataError
from shared.records.tables import notes_on

MOST_OFF, FEWEST_HELD_OUT, FEW = 1.5, 30, 5


class RecordChecks:
    """A dataset's table, read once, and what each check sees in it.

    Args:
        dataset: of node.toml.

    Raises:
        DataError: the source cannot be read, or a column is missing.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._policy = dataset, dataset.policy
        self._table, self._label = read_whole_source(dataset)
        self._contents = contents_of(dataset, self._table).rows

    @property
    def _units(self) -> int:
        """Units of privacy: rows that are no copies of others, or values of the unit column."""
        column = self._policy.unit_column
        if column is not None:
            return len({name for cell in self._table[column] if (name := unit_name(cell))})
        return len(self._contents) - self._copies

    @property
    def _copies(self) -> int:
        labels = self._labels() if self._label else [""] * len(self._contents)
        return len(self._contents) - len(set(zip(self._contents, labels, strict=True)))

    def _labels(self) -> list[str]:
        from shared.tasks.label_names import LabelNames

        names = LabelNames(self._policy.labels, {}, ())
        return [names.read(cell).strip() for cell in self._table[self._label]]

    def rows(self) -> Seen:
        """Count the rows, by label if there are labels; with what the reader noted."""
        counts = f" ({_most(Counter(filter(None, self._labels())), most=8)})" if self._label else ""
        saw = f"{len(self._table)} rows{counts}, declared {self._policy.declared_size}. For your eyes only"
        return Seen(saw, notes=notes_on(self._table))

    def size(self) -> Seen:
        """Compare the declared size with the units that are there."""
        declared, there, unit = self._policy.declared_size, max(1, self._units), self._policy.unit
        saw = f"declared {declared}, there are {there} {unit}s"
        off = max(declared / there, there / declared)
        if off < MOST_OFF:
            return Seen(saw)
        # what is declared is public: a figure of this order will do, and a count of the records would be a release
        times, todo = f"{off:.2g} times", f"Before it is registered: a figure of the order of {order_of(there)}"
        if declared < there:
            return Seen(saw, f"your site adds {times} the noise that the others' {unit}s need", todo)
        return Seen(
            saw, f"your {unit}s count {times} less than they should: what is sent is divided by {declared}", todo
        )

    def labels(self) -> Seen:
        """Find rows without a label, and labels that node.toml has no name for.

        Raises:
            DataError: no row has a label.
        """
        cells, names = self._labels(), self._policy.labels
        blank = cells.count("")
        if blank == len(cells):
            raise DataError(f"Expected labels in column {self._label!r}, got only blank cells.", hint="See `columns`.")
        known = set(names.values())
        unknown = Counter(cell for cell in cells if cell and names and cell not in known)
        saw = [f"{blank} of {len(cells)} rows have none"] if blank else []
        saw += [f"`labels` has no entry for {_most(unknown, most=FEW)}"] if unknown else []
        if not saw:
            return Seen(f"all {len(cells)} rows have one")
        lost = blank + sum(unknown.values())
        consequence = f"{lost} rows teach nothing, and the noise stays as large as with them"
        todo = "Fill the cells in, or take the rows out before the dataset is registered."
        return Seen("; ".join(saw), consequence, todo)

    def copies(self) -> Seen:
        """Count rows that are there before, label included."""
        copies = self._copies
        if not copies or self._policy.unit_column is not None:
            return Seen(f"{copies} rows are exact copies of others")
        consequence = (
            f"copies are one record: {len(self._contents) - copies} records are trained on, not {len(self._contents)}"
        )
        return Seen(f"{copies} rows are exact copies of others", consequence, "Take them out, or declare fewer.")

    def held_out(self) -> Seen:
        """Say how many units are held out, and what a figure over so few is worth."""
        units, unit = round(self._policy.holdout * self._units), self._policy.unit
        if not self._policy.holdout:
            return Seen("holdout = 0", "nothing here tells if an adapter is any good for your records", "Set holdout.")
        saw = f"about {units} {unit}s are never trained on"
        if units >= FEWEST_HELD_OUT:
            return Seen(saw)
        moved = f"{100 / max(1, units):.0f} points"
        todo = "Before it is registered: a larger holdout; otherwise take the figures of `status` as a hint."
        return Seen(saw, f"one {unit} more or less moves this node's own accuracy by {moved}", todo)

    @property
    def has_labels(self) -> bool:
        """True if the table has a column of labels."""
        return bool(self._label)


def _most(counts: Counter[str], *, most: int) -> str:
    listed = ", ".join(f"{label[:40]} {count}" for label, count in counts.most_common(most))
    return listed + (f" and {len(counts) - most} more" if len(counts) > most else "")


def order_of(count: int) -> int:
    """Return the figure among 1, 2, 3, 5, 10, 20, … that a count is nearest to, less than `MOST_OFF` times away."""
    power: int = 10 ** (len(str(count)) - 1)
    return min((step * power for step in (1, 2, 3, 5, 10)), key=lambda figure: max(figure / count, count / figure))
