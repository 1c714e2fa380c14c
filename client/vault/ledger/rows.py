"""Datasets and runs in the ledger's rows, as values, and the rows that enter a dataset and its records."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from shared.errors import PolicyRefusal, SettingsError
from shared.privacy.releases import Release
from shared.study.sections import RECORD


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
class ApprovedRun:
    """One approved study run: per round one release, at most `rounds` of them."""

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
    """Digest of the survivors that this node signed, by round and purpose."""

    @property
    def unseen(self) -> tuple[set[int], set[int]]:
        """Failed rounds and lost ones that no person has looked at. A round in progress looks like a lost one."""
        failed = self.failed - self.looked_at
        return failed, {n for n, released in self.attempts.items() if released is None} - self.looked_at - failed

    @property
    def earmarked(self) -> int:
        """Rounds that may still be reserved."""
        return 0 if self.closed else self.rounds - len(self.attempts)


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
