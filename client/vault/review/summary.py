"""A study's demands on one dataset, in figures and in words: pure, for an operator's eyes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.policy import largest_reply_bytes
from client.vault.ledger.approval import whole_study
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from shared.printable import one_line, printable
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.collusion import possible
from shared.privacy.in_words import best_guess, in_words
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.study_steps import batch_of
from shared.private_evaluation.cells import Cells
from shared.private_evaluation.noise import all_counts, sigma
from shared.study.declaration import Study
from shared.study.sections import STATED
from shared.study.sections import in_words as words

if TYPE_CHECKING:
    from client.vault.records.snapshot import Facts


BEHIND_A_MASK = "leave this house behind a mask, so that only their sum over all nodes is opened"


@dataclass(frozen=True)
class StudySummary:
    """One study's demands on one dataset."""

    study: str
    study_sha256: str
    dataset: str
    purpose: str
    stated: Mapping[str, str]
    """Requester, contact, legal basis and retention, as far as the study states them."""
    unstated: tuple[str, ...]
    """Which of these and of the purpose it does not state."""
    trains: str
    columns: tuple[str, ...]
    """Columns of the source that it reads, by their names there."""
    rounds: int
    steps: int
    bytes_per_round: int
    """Of an update; at most so many, where it leaves behind a mask."""
    masked: bool
    """Whether it leaves behind a mask, with parts that are dealt to the other nodes."""
    wire: str
    """How the values of an update travel."""
    noise_multiplier: float
    sampling_rate: float
    weight: float
    """Of this site in the mean, beside one of the study's typical size; 1 where all sites weigh the same."""
    measures: bool
    """Whether the first round sends noisy second moments of features, where the study measures first."""
    epsilon_alone: float
    """Cost of the whole study by itself."""
    epsilon_before: float
    """Spent and earmarked by the records' account without this study."""
    epsilon_after: float
    """Spent and earmarked with it."""
    epsilon_limit: float
    """The most the account may ever spend."""
    fits: bool
    """True if the budget allows it, at the Renyi order that the account is judged at."""
    shares_noise: tuple[str, ...]
    """What is promised by who colludes, a sentence for each number of nodes; empty if all noise is this node's own."""
    epsilon_per_study: float | None
    """The most one study may spend; None: as much as is left."""
    delta: float
    unit: str
    objections: tuple[str, ...]
    """Why the policy forbids it; empty if it does not."""
    records: "Facts"
    """About the records; for the operator's eyes only."""
    evaluates: tuple[str, ...] = ()
    """What its evaluations count, what they cost, and whom they cost it; empty if it has none."""

    @property
    def in_words(self) -> str:
        """The summary for somebody who has to say yes or no."""
        left, facts = self.epsilon_limit - self.epsilon_after, self.records
        purpose = f" Its purpose, as declared: {one_line(self.purpose)}." if self.purpose else ""
        purpose += "".join(f" {name.capitalize()}: {one_line(text)}." for name, text in self.stated.items())
        purpose += f" It does not state its {words(self.unstated)}." if self.unstated else ""
        columns = ", ".join(map(one_line, self.columns))
        labels = ", ".join(f"{one_line(label)} {count}" for label, count in facts.labels.items())
        problems = "".join(f"\n  {printable(line)}" for line in facts.problems)
        weighs = "" if self.weight == 1 else f" In the mean this site weighs {self.weight:.2g} times a typical one."
        sent = "noisy adapter"
        if self.measures:
            sent = "noisy second moments of the model's features (the first round) or noisy adapter (the others)"
        nothing_else = "beside the counts below nothing else" if self.evaluates else "nothing else"
        most = "" if self.epsilon_per_study is None else f" One study may spend {self.epsilon_per_study:g}."
        copies = f"\n  {facts.copies} copies of other records were left out" if facts.copies else ""
        or_groups = " or subgroups" if self.evaluates else ""
        if facts.most_alike > 1:
            copies += (
                f"\n  up to {facts.most_alike} records hold one content, with different answers{or_groups}: "
                f"for whoever it speaks of, epsilon counts up to {facts.most_alike} times"
            )
        return (
            f"The study {self.study!r} trains {one_line(self.trains)} on {self.dataset!r} in {self.rounds} rounds."
            f"{purpose} It reads {'the column' if len(self.columns) == 1 else 'the columns'} {columns}. "
            f"In each, {'at most ' if self.masked else ''}{self.bytes_per_round} bytes of {sent} ({self.wire}) leave "
            f"this house, {nothing_else} that "
            f"depends on a {self.unit}. With this study, epsilon {self.epsilon_after:.3f} of "
            f"{self.epsilon_limit:g} (delta {self.delta:g}) is spent or earmarked; {max(0.0, left):.3f} is left for "
            f"all studies to come.{most}{weighs}\n"
            f"{self._shared_noise}"
            f"{self._evaluation}"
            f"For this study by itself: {in_words(self.epsilon_alone, self.unit)} "
            f"With all that came before it, the guess is right {best_guess(self.epsilon_after)} of the time at best.\n"
            f"For your eyes only: {facts.train} records of {facts.units} {self.unit}s to train on"
            f"{f' ({labels})' if labels else ''}, {facts.unusable} of them unusable, "
            f"{facts.holdout} held out, {facts.dropped} left out.{copies}{problems}"
        )

    @property
    def _evaluation(self) -> str:
        if not self.evaluates:
            return ""
        noise_only = "" if self.records.holdout else "Nothing is held out here: what leaves is noise alone.\n"
        return " ".join(self.evaluates) + f"\n{noise_only}"

    @property
    def _shared_noise(self) -> str:
        if not self.shares_noise:
            return ""
        return "\n".join(("The nodes share one noise, and this node adds a part of it.", *self.shares_noise, ""))


def summarise(
    study: Study,
    dataset: Dataset,
    state: LedgerState,
    *,
    dimension: int,
    columns: tuple[str, ...],
    objections: list[str],
    facts: "Facts",
) -> StudySummary:
    """Compare a study with a dataset's budget.

    Args:
        study: as declared.
        dataset: as node.toml declares it.
        state: of a ledger in which the dataset's records are entered.
        dimension: floats in one update.
        columns: that the study reads.
        objections: of the policy.
        facts: about the records.
    """
    schedule, budget = schedule_of(study), dataset.budget(state)
    total_release = whole_study(state, study, dataset.name)
    return StudySummary(
        study=study.study.name,
        study_sha256=study.sha256,
        dataset=dataset.name,
        purpose=study.study.stated_purpose.rstrip("."),
        stated={words([name]): text for name in STATED[1:] if (text := getattr(study.study, name).rstrip("."))},
        unstated=study.study.unstated,
        trains=", ".join(
            filter(None, [f"a {study.adapter.method} adapter of {study.model.shown_source}", study.model.held])
        ),
        columns=columns,
        rounds=study.federation.rounds,
        steps=study.total_steps,
        bytes_per_round=largest_reply_bytes(study, dimension),
        masked=study.federation.secure_sum is not None,
        wire=study.sent_as,
        noise_multiplier=schedule.noise_multiplier,
        sampling_rate=schedule.sampling_rate,
        weight=batch_of(study, dataset.policy.declared_size).weight,
        measures=study.measuring_rounds > 0,
        epsilon_alone=epsilon_rdp([total_release], budget.limit.delta),
        epsilon_before=budget.epsilon(),
        epsilon_after=budget.epsilon(total_release),
        epsilon_limit=budget.limit.epsilon,
        fits=budget.fits(total_release),
        shares_noise=tuple(
            promise.in_words
            for promise in possible(
                study, delta=budget.limit.delta, counts=all_counts(study), both_sides=state.on_both_sides(dataset.name)
            )
        ),
        epsilon_per_study=dataset.policy.epsilon_per_study,
        delta=budget.limit.delta,
        unit=dataset.policy.unit,
        objections=tuple(objections),
        records=facts,
        evaluates=evaluation_in_words(study, both_sides=state.on_both_sides(dataset.name)),
    )


def evaluation_in_words(study: Study, *, both_sides: bool) -> tuple[str, ...]:
    """Return what a study's evaluations release and cost, a sentence each; nothing for a study without any."""
    evaluation, rounds = study.evaluation, study.evaluated_after
    if evaluation is None:
        return ()
    cells, unit, subgroup = Cells.of(study), study.privacy.unit, evaluation.subgroup
    grouped = (
        "" if subgroup is None else f", by {one_line(subgroup.column)} ({', '.join(map(one_line, subgroup.values))})"
    )
    what = {"right-wrong": "right and wrong answers", "confusion": "each true label by each predicted one"}
    counted = what.get(evaluation.cells, f"{evaluation.bins} bins of a score")
    times_over = "once" if len(rounds) == 1 else f"{len(rounds)} times"
    pays = (
        f"One {unit} may be both trained on and held out here: it pays for both."
        if both_sides
        else f"Each {unit} is trained on or held out, and pays for its own side: the larger of the two counts here. "
        "Somebody of whom some records are trained on and others held out pays for both."
    )
    leave, noise = {
        None: ("leave this house", f"each with noise of {sigma(study):.3g} {unit}s."),
        "masked": (BEHIND_A_MASK, f"each with noise of {sigma(study):.3g} {unit}s."),
        "shared": (BEHIND_A_MASK, f"each with this node's part of a noise of {sigma(study):.3g} {unit}s."),
    }[study.federation.secure_sum]
    releases = (
        f"It also evaluates {times_over}, after {'round' if len(rounds) == 1 else 'rounds'} "
        f"{', '.join(map(str, rounds))}: {cells.length} noisy counts over held-out records {leave} "
        f"({counted}{grouped}), {noise}"
    )
    costs = f"For a {unit} that is held out all of them together cost epsilon {evaluation.epsilon:g}."
    best = (
        ["The adapter of the best evaluation is handed out; that costs nothing more."]
        if evaluation.keep == "best"
        else []
    )
    ends = [] if evaluation.stop_after is None else ["If they stop improving, the run ends early, and less is paid."]
    return releases, costs, pays, *best, *ends
