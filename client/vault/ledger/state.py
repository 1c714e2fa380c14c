"""What the ledger's rows mean: pure decisions, no IO.

Rules
1. A dataset has one limit (epsilon, delta), one unit of privacy and one declared size for ever. Datasets that share
   records are one account: they spend together, under the strictest of their limits. An epsilon for records and one for
   patients do not add up, so datasets with different units are never one account.
2. A run is approved as a whole: `check_fits` says whether its worst case fits beside everything spent and earmarked.
3. Every (run, round) is attempted once. Its cost is charged by the reservation, whatever happens afterwards.
4. A reservation must lie within what was approved for its run.
5. Closing a run gives back what it earmarked and did not reserve; withdrawing a dataset ends everything for it.
6. What records share is part of the row that enters them, so the number of rows says nothing about the records.
7. A row that enters records says how far the record index reached; later rows never say less, nor name another key.
8. A person's decision to go on after rows were lost gives nothing back; datasets that it names are withdrawn.
9. Rows of every age are read: those of the first version tie one pair at a time, and declare no unit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shared.checks import positive, probability
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import Release, from_dict, times
from shared.search import largest
from shared.study.sections import RECORD

Row = Mapping[str, Any]
MOST_AFFORDED = 2**53
"""More rounds than this are not told apart."""


@dataclass(frozen=True)
class Limit:
    """The most a dataset may ever spend."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon)
        probability(delta=self.delta)

    def stricter(self, other: "Limit") -> "Limit":
        """The smaller of each."""
        return Limit(min(self.epsilon, other.epsilon), min(self.delta, other.delta))


@dataclass(frozen=True)
class DatasetTerms:
    """Public facts that a dataset was registered with, and that what it spends is measured in."""

    unit: str = RECORD
    """Whose presence is hidden."""
    declared_size: int = 0
    """Public number of units; 0 if none was declared."""


UNDECLARED = DatasetTerms()


@dataclass(frozen=True)
class IndexDigest:
    """How far the record index reached when a row was entered."""

    key_sha256: str
    batches: int
    digest: str
    """Of everything up to the last batch."""


@dataclass
class ApprovedRun:
    """One approved study run: per round one release, at most `rounds` of them."""

    dataset: str
    study_sha256: str
    rounds: int
    per_round: Release
    attempts: dict[int, str | None] = field(default_factory=dict)
    """Digest of what was released by round; None while or if it never was."""
    closed: bool = False

    @property
    def earmarked(self) -> int:
        """Rounds that may still be reserved."""
        return 0 if self.closed else self.rounds - len(self.attempts)


@dataclass
class LedgerState:
    """Everything the rows add up to."""

    limits: dict[str, Limit] = field(default_factory=dict)
    terms: dict[str, DatasetTerms] = field(default_factory=dict)
    ties: dict[str, set[str]] = field(default_factory=dict)
    """Datasets that share records with a dataset, directly."""
    runs: dict[str, ApprovedRun] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    accepted: set[tuple[int, str]] = field(default_factory=set)
    """Height and head of rows that are gone, and that a person went on without."""
    index_digest: IndexDigest | None = None
    """The record index as it was last entered; None before the first time."""

    def apply(self, row: Row) -> None:
        """Enter a row, or refuse it and stay as before.

        Raises:
            PolicyRefusal: it breaks a rule above.
        """
        {
            "register": self._register,
            "records": self._records,
            "tie": self._tie,
            "approve": self._approve,
            "reserve": self._reserve,
            "commit": self._commit,
            "close": self._close,
            "withdraw": self._withdraw,
            "accept": self._accept,
        }[row["kind"]](row)

    def account(self, dataset: str) -> set[str]:
        """The dataset and all that share records with it, also through others."""
        found, waiting = {dataset}, [dataset]
        while waiting:
            new = self.ties.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    def limit(self, dataset: str) -> Limit:
        """The strictest limit of the dataset's account."""
        limits = [self.limits[name] for name in self.account(dataset)]
        return Limit(min(limit.epsilon for limit in limits), min(limit.delta for limit in limits))

    def history(self, dataset: str, *, earmarked: bool) -> list[Release]:
        """Everything the account has reserved; with `earmarked`, also what it may still reserve."""
        account = self.account(dataset)
        runs = [run for run in self.runs.values() if run.dataset in account]
        counts = [(run, len(run.attempts) + (run.earmarked if earmarked else 0)) for run in runs]
        return [times(run.per_round, count) for run, count in counts if count]

    def spent(self, dataset: str) -> float:
        """Epsilon of everything the account has reserved, at its delta."""
        return epsilon_rdp(self.history(dataset, earmarked=False), self.limit(dataset).delta)

    def promised(self, dataset: str) -> float:
        """Epsilon of everything the account has reserved or earmarked."""
        return epsilon_rdp(self.history(dataset, earmarked=True), self.limit(dataset).delta)

    def check_fits(self, dataset: str, *, rounds: int, per_round: Release) -> None:
        """Compare a run's worst case with the dataset's limit.

        Raises:
            BudgetError: with it, more than the limit would be promised.
            PolicyRefusal: the dataset is not registered, or withdrawn.
        """
        self._usable(dataset)
        limit, history = self.limit(dataset), self.history(dataset, earmarked=True)
        cost = epsilon_rdp([*history, times(per_round, rounds)], limit.delta)
        if cost > limit.epsilon:
            raise BudgetError(
                f"Expected a run that fits into epsilon={limit.epsilon:g} of {dataset!r}, it would promise {cost:.3f}.",
                hint=f"{self.promised(dataset):.3f} is spent or earmarked already.",
            )

    def check_promises(self, dataset: str) -> None:
        """Compare what the account has promised with its limit, after a tie has made it larger or stricter.

        Raises:
            BudgetError: it has promised more.
        """
        limit, promised = self.limit(dataset), self.promised(dataset)
        if promised > limit.epsilon:
            others = ", ".join(sorted(self.account(dataset) - {dataset}))
            raise BudgetError(
                f"Expected records whose account stays within epsilon={limit.epsilon:g}, "
                f"{dataset!r} shares some with {others}: together {promised:.3f} is spent or earmarked.",
                hint="End runs of those datasets with fedvault-node reject, or leave out what they share.",
            )

    def check_round(self, run: str) -> None:
        """Compare one more round with the account's limit: records may have tied other spending to it since approval.

        Raises:
            BudgetError: after it, more than the limit would be spent.
            PolicyRefusal: the run was not approved.
        """
        approved, cost = self._run(run), self.spent_after_round(run)
        limit = self.limit(approved.dataset)
        if cost > limit.epsilon:
            raise BudgetError(
                f"Expected a round that fits into epsilon={limit.epsilon:g} of {approved.dataset!r}, "
                f"it would spend {cost:.3f}.",
            )

    def spent_after_round(self, run: str, *, delta: float | None = None) -> float:
        """Epsilon of everything the run's account has reserved, with one more of its rounds.

        Args:
            run: approved.
            delta: at which it is told; None: the account's own.

        Raises:
            PolicyRefusal: the run was not approved.
        """
        approved = self._run(run)
        history = self.history(approved.dataset, earmarked=False)
        return epsilon_rdp([*history, approved.per_round], delta or self.limit(approved.dataset).delta)

    def affordable_rounds(self, dataset: str, per_round: Release, *, limit: Limit | None = None) -> int:
        """How many more rounds like this one fit beside what is promised, under its limit or a stricter one."""
        limit, history = limit or self.limit(dataset), self.history(dataset, earmarked=True)

        def fits(rounds: int) -> bool:
            return epsilon_rdp([*history, times(per_round, rounds)], limit.delta) <= limit.epsilon

        return largest(fits, most=MOST_AFFORDED)

    def _register(self, row: Row) -> None:
        dataset = row["dataset"]
        if dataset in self.limits:
            raise PolicyRefusal(f"Expected a dataset that is not registered yet, got {dataset!r}.")
        limit = Limit(row["epsilon"], row["delta"])
        if "unit" not in row:
            self.limits[dataset] = limit
            return
        terms = DatasetTerms(row["unit"], row["declared_size"])
        self._enter(row, terms)
        self.limits[dataset], self.terms[dataset] = limit, terms

    def _tie(self, row: Row) -> None:
        self._records({"dataset": row["dataset"], "ties": [row["other"]], "index": None})

    def _records(self, row: Row) -> None:
        if row["dataset"] not in self.limits:
            raise PolicyRefusal(f"Expected a registered dataset, got {row['dataset']!r}.")
        self._enter(row, self.terms.get(row["dataset"], UNDECLARED))

    def _enter(self, row: Row, terms: DatasetTerms) -> None:
        """What both rows say of the records: whom they are tied to, and where the index stands."""
        dataset, index_digest = row["dataset"], None if row["index"] is None else IndexDigest(**row["index"])
        for other in row["ties"]:
            if other not in self.limits:
                raise PolicyRefusal(f"Expected a registered dataset, got {other!r}.")
            unit = self.terms.get(other, UNDECLARED).unit
            if unit != terms.unit:
                raise PolicyRefusal(
                    f"Expected datasets that share records to hide the same unit, {dataset!r} hides one {terms.unit} "
                    f"and {other!r} one {unit}.",
                    hint="What they spend cannot be added up. Leave out the records that they share.",
                )
        self._check_index_digest(index_digest)
        self.index_digest = index_digest
        for other in row["ties"]:
            self.ties.setdefault(dataset, set()).add(other)
            self.ties.setdefault(other, set()).add(dataset)

    def _check_index_digest(self, index_digest: IndexDigest | None) -> None:
        known = self.index_digest
        if known is None or (
            index_digest is not None
            and index_digest.key_sha256 == known.key_sha256
            and index_digest.batches >= known.batches
        ):
            return
        raise PolicyRefusal("Expected the record index and the key that this ledger knows, got others.")

    def _approve(self, row: Row) -> None:
        dataset, run = row["dataset"], row["run"]
        self._usable(dataset)
        if run in self.runs:
            raise PolicyRefusal(f"Expected a run that was not approved before, got {run!r}.")
        approved = ApprovedRun(dataset, row["study_sha256"], row["rounds"], from_dict(row["per_round"]))
        self.runs[run] = approved

    def _reserve(self, row: Row) -> None:
        run, number = self._run(row["run"]), row["round"]
        self._usable(run.dataset)
        if run.closed or not 1 <= number <= run.rounds:
            raise PolicyRefusal(f"Expected a round of an open run, got round {number} of {row['run']!r}.")
        if number in run.attempts:
            raise PolicyRefusal(f"Expected a first attempt, round {number} of {row['run']!r} had one.")
        run.attempts[number] = None

    def _commit(self, row: Row) -> None:
        run, number = self._run(row["run"]), row["round"]
        if number not in run.attempts or run.attempts[number] is not None:
            raise PolicyRefusal(f"Expected an open reservation for round {number} of {row['run']!r}, got none.")
        run.attempts[number] = row["released_sha256"]

    def _close(self, row: Row) -> None:
        run = self._run(row["run"])
        if run.closed:
            raise PolicyRefusal(f"Expected an open run, {row['run']!r} is closed.")
        run.closed = True

    def _withdraw(self, row: Row) -> None:
        self._usable(row["dataset"])
        self.withdrawn.add(row["dataset"])

    def _accept(self, row: Row) -> None:
        self.withdrawn |= set(row["withdrawn"])
        self.accepted |= {(position["height"], position["head"]) for position in row["gone"]}

    def _run(self, run: str) -> ApprovedRun:
        if run not in self.runs:
            raise PolicyRefusal(f"Expected an approved run, got {run!r}.")
        return self.runs[run]

    def _usable(self, dataset: str) -> None:
        if dataset not in self.limits:
            raise PolicyRefusal(f"Expected a registered dataset, got {dataset!r}.")
        withdrawn = self.account(dataset) & self.withdrawn
        if withdrawn:
            raise PolicyRefusal(f"Expected a dataset in use, {sorted(withdrawn)[0]!r} with its records was withdrawn.")


def registration(dataset: str, limit: Limit, terms: DatasetTerms) -> dict[str, Any]:
    """The first row of a dataset, without what `records` says."""
    return {"kind": "register", "dataset": dataset, **asdict(limit), **asdict(terms)}


def records(dataset: str, ties: Iterable[str], index_digest: IndexDigest | None) -> dict[str, Any]:
    """A row that enters records of a registered dataset."""
    index = None if index_digest is None else asdict(index_digest)
    return {"kind": "records", "dataset": dataset, "ties": sorted(ties), "index": index}
