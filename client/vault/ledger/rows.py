"""Datasets and runs in the ledger's rows, as values, and the rows that enter a dataset and its records."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from shared.errors import PolicyRefusal, SettingsError
from shared.privacy.releases import (
    CountsRelease,
    LargestSide,
    Release,
    SharedCounts,
    SharedGaussian,
    Spending,
    from_dict,
    times,
    to_dict,
)
from shared.secure_sum.context import Purpose
from shared.study.sections import RECORD

EVALUATION: Purpose = "evaluation"


@dataclass(frozen=True)
class Limit:
    """The most a dataset may ever spend; figures are checked where they are read, in node.toml or in a row."""

    epsilon: float
    delta: float
    if_all_collude: float | None = None
    """The most epsilon if all other nodes of studies that share noise collude; infinite: any. None: not a single one of
    these studies is taken."""

    def stricter(self, other: "Limit") -> "Limit":
        """Return the smaller of each figure; what one of them does not say, the other does."""
        figures = [figure for figure in (self.if_all_collude, other.if_all_collude) if figure is not None]
        both = Limit(min(self.epsilon, other.epsilon), min(self.delta, other.delta), min(figures, default=None))
        return next((limit for limit in (self, other) if limit == both), both)


@dataclass(frozen=True)
class DatasetTerms:
    """Public facts that a dataset was registered with, and that its spending is measured in."""

    unit: str = RECORD
    """Whose presence is hidden."""
    declared_size: int = 0
    """Public number of units; 0 if none was declared."""
    holdout: float | None = None
    """Fraction of the units that is never trained on; None in rows that did not say it."""
    identity_version: int = 1
    """Version of the record identity, which also decides splits; 1 in rows that did not say it."""
    split_by: str | None = None
    """Column whose rows of one value share a split; rows of a dataset without one do not say it."""


def strictest(declared: Iterable[Limit]) -> Limit:
    """Return the strictest of what node.toml says of some datasets; what one does not allow at all, none does."""
    limits = list(declared)
    refused = any(limit.if_all_collude is None for limit in limits)
    limit = reduce(Limit.stricter, limits)
    return replace(limit, if_all_collude=None) if refused and limit.if_all_collude is not None else limit


UNDECLARED = DatasetTerms()
NOTHING_DECLARED: Mapping[str, Limit] = {}
"""Where node.toml is not asked: what the ledger knows counts."""
MOST_NAME, MOST_NOTE = 80, 500
IDENTITY_VERSION = 2
"""Version of the record identity that a dataset is registered with today."""


@dataclass(frozen=True)
class IndexDigest:
    """The end of the record index when a row was entered."""

    key_sha256: str
    batches: int
    digest: str
    """Of everything up to the last batch."""


def check_continues(known: IndexDigest | None, then: IndexDigest | None) -> None:
    """Refuse a record index that is not the one that was entered before, or does not reach as far.

    Raises:
        PolicyRefusal: it is another one.
    """
    if known is None or (then is not None and then.key_sha256 == known.key_sha256 and then.batches >= known.batches):
        return
    raise PolicyRefusal("Expected the record index and the key that this ledger knows, got others.")


@dataclass(frozen=True)
class Decision:
    """One answer of the operator to one study run, as a row of the ledger says it."""

    answer: Literal["yes", "no"]
    time: str
    by: str
    """Who decided, as they were named; empty if nobody was."""
    note: str

    @property
    def in_words(self) -> str:
        """The answer with its day, who gave it, and their note."""
        by = f" by {self.by}" if self.by else ""
        return f"{self.answer} {self.time[:10]}{by}" + (f" ({self.note})" if self.note else "")


@dataclass
class Evaluations:
    """The evaluations of one approved run: one release for each number of rounds that its study evaluates after."""

    each: CountsRelease
    numbers: tuple[int, ...]
    adapters: dict[int, str] = field(default_factory=dict)
    """Digest of the adapter that was evaluated, by number."""
    attempts: dict[int, str | None] = field(default_factory=dict)
    """Digest of what was released, by number; None while or if it never was."""
    failed: set[int] = field(default_factory=set)
    looked_at: set[int] = field(default_factory=set)
    """Failed and lost ones that a person has looked at since."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Evaluations | None":
        """Return the evaluations that the row of an approval names; None if it names none.

        Raises:
            PolicyRefusal: they are not what an evaluation releases.
        """
        if "evaluation" not in row:
            return None
        each, numbers = from_dict(row["evaluation"]["each"]), tuple(row["evaluation"]["numbers"])
        if not isinstance(each, CountsRelease) or each.count != 1 or not numbers or len(set(numbers)) != len(numbers):
            raise PolicyRefusal(f"Expected noisy counts after some numbers of rounds, got {row['evaluation']}.")
        return cls(each, numbers)

    @property
    def as_row(self) -> dict[str, Any]:
        """Fields of an approval's row that name its evaluations."""
        return {"evaluation": {"each": to_dict(self.each), "numbers": list(self.numbers)}}

    @property
    def lost(self) -> set[int]:
        """Numbers of evaluations without a release; one in progress looks like a lost one."""
        return {number for number, released in self.attempts.items() if released is None}

    @property
    def unseen(self) -> tuple[set[int], set[int]]:
        """Failed ones and lost ones that no person has looked at."""
        return _unseen(self.attempts, self.failed, self.looked_at)

    def reserve(self, number: int, adapter_sha256: str) -> None:
        """Charge one.

        Raises:
            PolicyRefusal: there is none of this number, it had its attempt, or nobody knows yet who shares its noise.
        """
        if isinstance(self.each, SharedCounts) and not self.each.settled:
            raise PolicyRefusal("Expected a roster before the first evaluation, whose noise is shared.")
        if number not in self.numbers or number in self.attempts:
            raise PolicyRefusal(f"Expected a first attempt at one of the evaluations {self.numbers}, got {number}.")
        self.attempts[number], self.adapters[number] = None, adapter_sha256

    def fail(self, number: int) -> None:
        """Note that one failed.

        Raises:
            PolicyRefusal: it is not in progress.
        """
        if number not in self.lost or number in self.failed:
            raise PolicyRefusal(f"Expected an open reservation for evaluation {number}, got none.")
        self.failed.add(number)
        self.looked_at.discard(number)

    def commit(self, number: int, released_sha256: str) -> None:
        """Note what one released.

        Raises:
            PolicyRefusal: it is not in progress.
        """
        if number not in self.lost:
            raise PolicyRefusal(f"Expected an open reservation for evaluation {number}, got none.")
        self.attempts[number] = released_sha256


@dataclass
class ApprovedRun:
    """One approved study run: per round one release, at most `rounds` of them, and its evaluations if it has any."""

    dataset: str
    study_sha256: str
    rounds: int
    per_round: Release
    attempts: dict[int, str | None] = field(default_factory=dict)
    """Digest of what was released by round; None while or if it never was."""
    failed: set[int] = field(default_factory=set)
    """Rounds that were answered `failed`."""
    looked_at: set[int] = field(default_factory=set)
    """Failed and lost rounds that a person has looked at since."""
    closed: bool = False
    roster: str | None = None
    """Digest of the roster of its secure sum; None before this node took one."""
    survivors: dict[tuple[int, str], str] = field(default_factory=dict)
    """Digest of the survivors that this node signed, by round, or number of an evaluation, and purpose."""
    evaluations: Evaluations | None = None
    both_sides: bool = False
    """True if a record may be trained on and count among the held-out ones: it then pays for both."""

    @property
    def unseen(self) -> tuple[set[int], set[int]]:
        """Failed rounds and lost ones that no person has looked at. A round in progress looks like a lost one."""
        return _unseen(self.attempts, self.failed, self.looked_at)

    @property
    def waiting(self) -> tuple[list[str], list[str]]:
        """Failed and lost rounds and evaluations that no person has looked at, in words."""
        evaluated = (set[int](), set[int]()) if self.evaluations is None else self.evaluations.unseen
        failed, lost = (
            [*map(str, sorted(rounds)), *(f"evaluation {number}" for number in sorted(numbers))]
            for rounds, numbers in zip(self.unseen, evaluated, strict=True)
        )
        return failed, lost

    @property
    def waiting_in_words(self) -> str:
        """Failed and lost rounds and evaluations that no person has looked at, in one line."""
        failed, lost = self.waiting
        return ", ".join([*failed, *lost])

    def with_nodes(self, nodes: int, threshold: int, colluders: int) -> "ApprovedRun":
        """Return the run with the numbers of a roster, where it shares noise: nothing was released before."""
        run = replace(self)
        if isinstance(run.per_round, SharedGaussian):
            run.per_round = run.per_round.with_nodes(nodes, threshold, colluders)
        if run.evaluations is not None and isinstance(run.evaluations.each, SharedCounts):
            run.evaluations = replace(
                run.evaluations, each=run.evaluations.each.with_nodes(nodes, threshold, colluders)
            )
        return run

    def sign(self, row: Mapping[str, Any]) -> None:
        """Take over which survivors of a sum this node has signed.

        Guarantee: of each round and each evaluation one set of survivors is signed, and only where this node gave its
        part of that sum.

        Raises:
            PolicyRefusal: there was a set, or this node gave no part.
        """
        number, purpose, evaluated = row["round"], row["purpose"], self.evaluations
        if purpose == EVALUATION:
            attempts, failed = ({}, set[int]()) if evaluated is None else (evaluated.attempts, evaluated.failed)
        else:
            attempts, failed = self.attempts, self.failed
        given = self.roster is not None and attempts.get(number) is not None and number not in failed
        if not given or (number, purpose) in self.survivors:
            raise PolicyRefusal(f"Expected a sum of {row['run']!r} without survivors yet, got {purpose} {number}.")
        self.survivors[number, purpose] = row["sha256"]

    @property
    def earmarked(self) -> int:
        """Rounds that may still be reserved."""
        return 0 if self.closed else self.rounds - len(self.attempts)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Take over what a row says of one of the run's evaluations.

        Raises:
            PolicyRefusal: the run has none, or the row breaks one of their rules.
        """
        kind, number = row["kind"], row["number"]
        if self.evaluations is None or (self.closed and kind == "evaluation"):
            raise PolicyRefusal(f"Expected an open run with evaluations, got {row['run']!r}.")
        if kind == "evaluation":
            self.evaluations.reserve(number, row["adapter_sha256"])
        elif kind == "evaluated":
            self.evaluations.commit(number, row["released_sha256"])
        else:
            self.evaluations.fail(number)

    def look_at(self, rounds: set[int], numbers: set[int]) -> None:
        """Note that a person has looked at rounds and evaluations that failed or were lost.

        Raises:
            PolicyRefusal: they did not fail, and were not lost, or there are none.
        """
        lost, evaluated = {n for n, released in self.attempts.items() if released is None}, self.evaluations
        known = set[int]() if evaluated is None else evaluated.failed | evaluated.lost
        if not rounds | numbers or not rounds <= self.failed | lost or not numbers <= known:
            raise PolicyRefusal(f"Expected failed or lost rounds, got {sorted(rounds)}, {sorted(numbers)}.")
        self.looked_at |= rounds
        if evaluated is not None:
            evaluated.looked_at |= numbers

    @property
    def may_go_on(self) -> bool:
        """True if rounds or evaluations may still be reserved."""
        return self.earmarked > 0 or self._evaluations_left > 0

    @property
    def is_used(self) -> bool:
        """True if it has reserved anything, or may still."""
        evaluated = self.evaluations is not None and bool(self.evaluations.attempts or self._evaluations_left)
        return bool(self.attempts or self.earmarked) or evaluated

    def spent(self, *, rounds: int = 0, evaluations: int = 0, earmarked: bool = False) -> tuple[Spending, ...]:
        """Return what the run has reserved so far, with so many rounds and evaluations more.

        Guarantee: a unit pays for its own side, the larger of training and evaluation at each order; where it may stand
        on both sides it pays for both.

        Args:
            rounds: beside those that were reserved.
            evaluations: beside those that were reserved.
            earmarked: also count what may still be reserved.
        """
        rounds += len(self.attempts) + (self.earmarked if earmarked else 0)
        trained = (times(self.per_round, rounds),) if rounds else ()
        if self.evaluations is None:
            return trained
        evaluations += len(self.evaluations.attempts) + (self._evaluations_left if earmarked else 0)
        evaluated = (times(self.evaluations.each, evaluations),) if evaluations else ()
        if not evaluated or not trained:
            return (*trained, *evaluated)
        return (LargestSide(((*trained, *evaluated),) if self.both_sides else (trained, evaluated)),)

    def released(self, name: str) -> Mapping[str, Mapping[int, str | None]]:
        """Return digests of what was released by the names under which the outbox keeps it, for a run of this name."""
        rounds = {name: self.attempts}
        return rounds if self.evaluations is None else rounds | {evaluations_of(name): self.evaluations.attempts}

    @property
    def _evaluations_left(self) -> int:
        if self.closed or self.evaluations is None:
            return 0
        return len(self.evaluations.numbers) - len(self.evaluations.attempts)


def evaluations_of(run: str) -> str:
    """Return the name under which the outbox keeps a run's evaluations; no run is called so."""
    return f"{run}\0evaluation"


def _unseen(attempts: Mapping[int, str | None], failed: set[int], looked_at: set[int]) -> tuple[set[int], set[int]]:
    failed = failed - looked_at
    return failed, {n for n, released in attempts.items() if released is None} - looked_at - failed


def decided(by: str = "", note: str = "", via: str = "") -> dict[str, str]:
    """Return what a row says of who decided, why, and from where; what is left out is no part of it.

    A command leaves out from where: whoever types it is at the node's machine, as its user.

    Raises:
        SettingsError: one is too long, or no line that can be printed.
    """
    fields = (("by", by, MOST_NAME), ("note", note, MOST_NOTE), ("via", via, MOST_NAME))
    for name, text, most in fields:
        if len(text) > most or not text.isprintable():
            raise SettingsError(f"Expected a printable line of at most {most} characters, got --{name} {text[:40]!r}.")
    return {name: text.strip() for name, text, _most in fields if text.strip()}


def registration_row(dataset: str, limit: Limit, terms: DatasetTerms) -> dict[str, Any]:
    """Return the first row of a dataset, without what `records_row` adds."""
    public = {name: fact for name, fact in asdict(terms).items() if (name, fact) != ("split_by", None)}
    return {"kind": "register", "dataset": dataset, "epsilon": limit.epsilon, "delta": limit.delta, **public}


def records_row(
    dataset: str, ties: Iterable[str], index_digest: IndexDigest | None, *, holdout: float | None = None
) -> dict[str, Any]:
    """Return a row that enters records of a registered dataset, and the datasets that share some of them.

    Args:
        dataset: registered.
        ties: names of the others.
        index_digest: where the record index stands.
        holdout: the held-out fraction, if the dataset's register row does not say it.
    """
    index = None if index_digest is None else asdict(index_digest)
    row = {"kind": "records", "dataset": dataset, "ties": sorted(ties), "index": index}
    return row if holdout is None else row | {"holdout": holdout}
