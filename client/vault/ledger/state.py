"""The ledger's rules, and the state that its rows add up to: pure decisions, no IO.

Rules
1. A dataset has one limit (epsilon, delta), one unit of privacy, one declared size, one held-out fraction and one
   version of the record identity for ever. Datasets that share records are one account: they spend together, under the
   strictest of their limits. An epsilon for records and one for patients do not add up, so datasets with different
   units are never one account.
2. A run is approved as a whole: its worst case must fit beside everything spent and earmarked (`Budget.check_fits`).
3. Every (run, round) is attempted once. Its cost is charged by the reservation, whatever happens afterwards.
4. A reservation must lie within what was approved for its run.
5. Closing a run gives back what it earmarked and did not reserve; withdrawing a dataset ends everything for it.
6. What records share is part of the row that enters them, so the number of rows says nothing about the records.
7. A row that enters records says how far the record index reached; later rows never say less, nor name another key.
8. A person's decision to continue after rows were lost gives nothing back; datasets that it names are withdrawn.
9. Rows of every age are read: those of the first version tie one pair at a time, and declare no unit. A dataset whose
   register row says no held-out fraction gets it from the next row that enters records.
10. Height orders the rows, their times inform. A row may say that a person accepted the date of an earlier one.
11. An approval names the Renyi orders that its account is judged at. While nothing is spent or earmarked, the next one
   may name others; then they stay, and only those of an account that is tied to it are added. Where older rows name
   none, what their first approval would have named is what the next one names.
12. Every decision about a run is a row of its own, and the latest counts. A no changes no account: what it gives back,
   the row that closes the run gives back. A run that was approved and closed is not approved again.
13. A run's secure sum has one roster, the first that this node took while the run was open. It says among how many
   nodes noise is shared; before it, no round of shared noise is reserved.
14. A sum of a round has one set of survivors, and only once what this node gave to it is durable.
15. An approval of shared noise names what its account may spend if all other nodes collude, and the Renyi order that
   this is judged at. The strictest that was ever named counts, at the first order.
16. A run's evaluations are approved with it, and each is attempted once. Within a run an account pays the larger of
    training and evaluation at each order, or both where a record may stand on both sides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from client.vault.ledger.budget import Budget
from client.vault.ledger.rows import (
    IDENTITY_VERSION,
    NOTHING_DECLARED,
    UNDECLARED,
    ApprovedRun,
    DatasetTerms,
    Decision,
    Evaluations,
    IndexDigest,
    Limit,
    check_continues,
    strictest,
)
from shared.checks import positive, probability
from shared.errors import PolicyRefusal
from shared.privacy.accounting import best_order
from shared.privacy.releases import Release, SharedGaussian, from_dict, times

Row = Mapping[str, Any]
MOST_LOST = 2
"""Lost rounds that stop an account until a person looked; one by itself may be a restart."""


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
    orders: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Renyi orders that a dataset's account is judged at, as its approvals named them."""
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    """What the operator said to each run, in order."""
    collusion_orders: dict[str, float] = field(default_factory=dict)
    """Renyi order of a dataset's limit for the case that all other nodes collude."""
    unnamed: dict[str, Release] = field(default_factory=dict)
    """The first approval of a dataset whose account no row had named an order for."""

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
            "reject": self._reject,
            "reserve": self._reserve,
            "fail": self._fail,
            "commit": self._commit,
            "roster": self._roster,
            "survivors": self._survivors,
            "evaluation": self._evaluation,
            "evaluation-failed": self._evaluation,
            "evaluated": self._evaluation,
            "resume": self._resume,
            "close": self._close,
            "withdraw": self._withdraw,
            "accept": self._accept,
            "date": self._date,
        }[row["kind"]](row)

    @property
    def key_sha256(self) -> str | None:
        """Digest of the node's key; None before it is known."""
        return None if self.index_digest is None else self.index_digest.key_sha256

    def account(self, dataset: str) -> set[str]:
        """Return the dataset and all that share records with it, also through others."""
        names, waiting = {dataset}, [dataset]
        while waiting:
            new = self.ties.get(waiting.pop(), set()) - names
            names |= new
            waiting += new
        return names

    def budget(
        self,
        dataset: str,
        *,
        declared: Mapping[str, Limit] = NOTHING_DECLARED,
        earmarked: bool = True,
        without: str = "",
    ) -> Budget:
        """Return what the dataset's account may spend, beside what it has spent.

        Args:
            dataset: registered, unless `declared` is given.
            declared: what node.toml says today of each of its datasets, which may be stricter than what was registered.
            earmarked: count what approved runs may still reserve as well; then what is asked for is a new approval.
            without: a run that is not counted.
        """
        account = self.account(dataset)
        limits = [self.limits[name] for name in account if name in self.limits]
        today = [declared[name] for name in account if name in declared]
        runs = [run for name, run in self.runs.items() if run.dataset in account and name != without]
        return Budget(
            dataset,
            tuple(sorted(account - {dataset})),
            reduce(Limit.stricter, [*limits, strictest(today)] if today else limits),
            tuple(spent for run in runs for spent in run.spent(earmarked=earmarked)),
            self._orders(account, new_approval=earmarked),
            tuple(sorted({self.collusion_orders[name] for name in account & set(self.collusion_orders)})),
        )

    def spent(self, dataset: str) -> float:
        """Return the epsilon of everything that the account has reserved."""
        return self.budget(dataset, earmarked=False).epsilon()

    def troubles(self, dataset: str) -> dict[str, list[int]]:
        """Return runs, with failed and lost rounds, that a person has to look at before the account goes on.

        One round or evaluation that failed, or two that were lost. Both are answers without noise, so an account gives
        few of them, whatever runs a server invents.
        """
        account = self.account(dataset)
        waiting = {name: run.waiting for name, run in self.runs.items() if run.dataset in account}
        failed, lost = (sum(len(rounds[kind]) for rounds in waiting.values()) for kind in (0, 1))
        if not failed and lost < MOST_LOST:
            return {}
        return {name: sorted(set[int]().union(*self.runs[name].unseen)) for name, some in waiting.items() if any(some)}

    def run(self, name: str) -> ApprovedRun:
        """Return an approved run.

        Raises:
            PolicyRefusal: there is none of that name.
        """
        if name not in self.runs:
            raise PolicyRefusal(f"Expected an approved run, got {name!r}.")
        return self.runs[name]

    def answer(self, name: str) -> Literal["yes", "no"] | None:
        """Return the latest decision about a run; None if no row holds one."""
        decisions = self.decisions.get(name)
        return decisions[-1].answer if decisions else None

    def identity_version(self, dataset: str) -> int:
        """Return the version of the record identity that a dataset has, or is about to be registered with."""
        if dataset not in self.limits:
            return IDENTITY_VERSION
        return self.terms.get(dataset, UNDECLARED).identity_version

    @property
    def earlier_datasets(self) -> set[str]:
        """Datasets of version 1 of the record identity."""
        return {name for name in self.limits if self.identity_version(name) == UNDECLARED.identity_version}

    def on_both_sides(self, dataset: str, declared: DatasetTerms = UNDECLARED) -> bool:
        """Return true if one unit may stand on both sides: `split_by` decides, or labels and spelling, or none says."""
        terms = self.terms.get(dataset, UNDECLARED if dataset in self.limits else declared)
        return terms.split_by is not None or terms.identity_version < IDENTITY_VERSION

    def is_over(self, name: str) -> bool:
        """Return true if a run was closed, or its dataset withdrawn with the records that it holds."""
        run = self.runs.get(name)
        return run is not None and (run.closed or bool(self.account(run.dataset) & self.withdrawn))

    def check_usable(self, dataset: str) -> None:
        """Refuse a dataset that may not be trained on.

        Raises:
            PolicyRefusal: it is not registered, or it was withdrawn with the records that it holds.
        """
        if dataset not in self.limits:
            raise PolicyRefusal(f"Expected a registered dataset, got {dataset!r}.")
        withdrawn = self.account(dataset) & self.withdrawn
        if withdrawn:
            raise PolicyRefusal(f"Expected a dataset in use, {sorted(withdrawn)[0]!r} with its records was withdrawn.")

    def _register(self, row: Row) -> None:
        dataset = row["dataset"]
        if dataset in self.limits:
            raise PolicyRefusal(f"Expected a dataset that is not registered yet, got {dataset!r}.")
        limit = Limit(row["epsilon"], row["delta"])
        positive(epsilon=limit.epsilon)
        probability(delta=limit.delta)
        if "unit" not in row:
            self.limits[dataset] = limit
            return
        terms = DatasetTerms(
            row["unit"],
            row["declared_size"],
            row.get("holdout"),
            row.get("identity_version", UNDECLARED.identity_version),
            row.get("split_by"),
        )
        self._enter(row, terms)
        self.limits[dataset], self.terms[dataset] = limit, terms

    def _tie(self, row: Row) -> None:
        self._records({"dataset": row["dataset"], "ties": [row["other"]], "index": None})

    def _records(self, row: Row) -> None:
        if row["dataset"] not in self.limits:
            raise PolicyRefusal(f"Expected a registered dataset, got {row['dataset']!r}.")
        terms = self.terms.get(row["dataset"], UNDECLARED)
        self._enter(row, terms)
        if row["dataset"] in self.terms and terms.holdout is None:
            self.terms[row["dataset"]] = replace(terms, holdout=row.get("holdout"))

    def _enter(self, row: Row, terms: DatasetTerms) -> None:
        """Tie a dataset to those that share its records, and note how far the record index reached."""
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
        check_continues(self.index_digest, index_digest)
        self.index_digest = index_digest
        for other in row["ties"]:
            self.ties.setdefault(dataset, set()).add(other)
            self.ties.setdefault(other, set()).add(dataset)

    def _orders(self, account: set[str], *, new_approval: bool) -> tuple[float, ...]:
        """Return the orders that an account is judged at; runs approved before there were any finish without."""
        if not self._is_used(account):
            return ()
        orders = {order for name in account for order in self.orders.get(name, ())}
        if new_approval:
            limits = ((self.limits[name], self.unnamed[name]) for name in account & set(self.unnamed))
            orders |= {best_order(first, epsilon=limit.epsilon, delta=limit.delta) for limit, first in limits}
        return tuple(sorted(orders))

    def _is_used(self, account: set[str]) -> bool:
        runs = (run for run in self.runs.values() if run.dataset in account)
        return any(run.is_used for run in runs)

    def _approve(self, row: Row) -> None:
        dataset, run = row["dataset"], row["run"]
        self.check_usable(dataset)
        if run in self.runs:
            raise PolicyRefusal(f"Expected a run that was not approved before, got {run!r}.")
        approved = ApprovedRun(dataset, row["study_sha256"], row["rounds"], from_dict(row["per_round"]))
        approved.evaluations, approved.both_sides = Evaluations.of(row), self.on_both_sides(dataset)
        self._name_orders(approved, row.get("orders"))
        self._name_collusion(approved, row)
        self.runs[run] = approved
        self._decide("yes", row)

    def _reject(self, row: Row) -> None:
        self._decide("no", row)

    def _decide(self, answer: Literal["yes", "no"], row: Row) -> None:
        decision = Decision(answer, row.get("time", ""), row.get("by", ""), row.get("note", ""))
        self.decisions.setdefault(row["run"], []).append(decision)

    def _name_orders(self, approved: ApprovedRun, orders: list[float] | None) -> None:
        dataset, account = approved.dataset, self.account(approved.dataset)
        named = {order for name in account for order in self.orders.get(name, ())}
        if orders is None:
            if not named and not account & set(self.unnamed):
                self.unnamed[dataset] = times(approved.per_round, approved.rounds)
            return
        if not orders or not all(1 < order < math.inf for order in orders):
            raise PolicyRefusal(f"Expected Renyi orders above 1, got {orders}.")
        if self._is_used(account) and not named <= set(orders):
            raise PolicyRefusal(f"Expected the Renyi orders {sorted(named)} of {dataset!r}, got {orders}.")
        for name in account:
            self.orders.pop(name, None)
            self.unnamed.pop(name, None)
        self.orders[dataset] = tuple(orders)

    def _name_collusion(self, approved: ApprovedRun, row: Row) -> None:
        """Take over what a run with shared noise may cost if all other nodes collude: the strictest ever said."""
        if not isinstance(approved.per_round, SharedGaussian):
            return
        limit, order = row["epsilon_if_all_collude"], row["order_if_all_collude"]
        if limit is not None:
            positive(epsilon_if_all_collude=limit)
            self.collusion_orders.setdefault(approved.dataset, order)
        known = self.limits[approved.dataset]
        named = Limit(known.epsilon, known.delta, math.inf if limit is None else limit)
        self.limits[approved.dataset] = known.stricter(named)

    def _reserve(self, row: Row) -> None:
        run, number = self.run(row["run"]), row["round"]
        self.check_usable(run.dataset)
        if isinstance(run.per_round, SharedGaussian) and not run.per_round.settled:
            raise PolicyRefusal(f"Expected a roster before the first round of {row['run']!r}, which shares its noise.")
        if run.closed or not 1 <= number <= run.rounds:
            raise PolicyRefusal(f"Expected a round of an open run, got round {number} of {row['run']!r}.")
        if number in run.attempts:
            raise PolicyRefusal(f"Expected a first attempt, round {number} of {row['run']!r} had one.")
        run.attempts[number] = None

    def _evaluation(self, row: Row) -> None:
        run = self.run(row["run"])
        if row["kind"] == "evaluation":
            self.check_usable(run.dataset)
        run.evaluation(row)

    def _fail(self, row: Row) -> None:
        run, number = self.run(row["run"]), row["round"]
        if number not in run.attempts or run.attempts[number] is not None or number in run.failed:
            raise PolicyRefusal(f"Expected an open reservation for round {number} of {row['run']!r}, got none.")
        run.failed.add(number)
        run.looked_at.discard(number)

    def _resume(self, row: Row) -> None:
        self.run(row["run"]).look_at(set(row["rounds"]), set(row.get("evaluations", ())))

    def _commit(self, row: Row) -> None:
        run, number = self.run(row["run"]), row["round"]
        if number not in run.attempts or run.attempts[number] is not None:
            raise PolicyRefusal(f"Expected an open reservation for round {number} of {row['run']!r}, got none.")
        run.attempts[number] = row["released_sha256"]

    def _roster(self, row: Row) -> None:
        run = self.run(row["run"])
        if run.roster is not None or self.is_over(row["run"]):
            raise PolicyRefusal(f"Expected an open run without a roster, got {row['run']!r}.")
        if isinstance(run.per_round, SharedGaussian):  # older rows of masked runs do not say their numbers
            run = self.runs[row["run"]] = run.with_nodes(row["nodes"], row["threshold"], row["colluders"])
        run.roster = row["roster_sha256"]

    def _survivors(self, row: Row) -> None:
        self.run(row["run"]).sign(row)

    def _close(self, row: Row) -> None:
        run = self.run(row["run"])
        if run.closed:
            raise PolicyRefusal(f"Expected an open run, {row['run']!r} is closed.")
        run.closed = True

    def _withdraw(self, row: Row) -> None:
        self.check_usable(row["dataset"])
        self.withdrawn.add(row["dataset"])

    def _accept(self, row: Row) -> None:
        self.withdrawn |= set(row["withdrawn"])
        self.accepted |= {(position["height"], position["head"]) for position in row["gone"]}

    @staticmethod
    def _date(row: Row) -> None:
        """Note that a person accepted a row's date: height orders the rows, their times only inform."""
        if row["row"] < 1:
            raise PolicyRefusal(f"Expected a row of the ledger, got row={row['row']}.")
