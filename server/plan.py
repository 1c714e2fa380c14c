"""What a study will cost and whether it will learn, before anybody spends budget on it: from public numbers alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.kept_out import rounds_kept_out
from shared.adapters import Layout
from shared.checks import at_least
from shared.errors import SettingsError
from shared.privacy.accounting import epsilon_prv
from shared.privacy.planning import PrivacyPlan, declared_size, plan
from shared.privacy.signal_to_noise import (
    STANDS_OUT,
    WHITENED_HEAD_RATE,
    AdapterStart,
    Batch,
    Part,
    Prospect,
    Steps,
    adapter_start,
    best_batches,
    head_rate,
    mean_batch,
    moments_edge,
    noise_length,
    prospect,
    ratio,
)
from shared.privacy.spending import epsilon_by_round, rounds_afforded
from shared.privacy.study_steps import all_steps, batch_of, parts_of, ratio_with, round_steps
from shared.study import WHITENED_KINDS, Study, parse, read_toml
from shared.tasks.declarations import FEATURE_NORM
from shared.wire import packed_bytes

TYPICAL_SIZE_HELPS = 1.02
"""How many times as high a ratio is at which a typical size is worth a line."""


@dataclass(frozen=True)
class NodePlan:
    """What one node can expect."""

    name: str
    declared_size: int
    expected_batch: float
    """Sampling rate x declared size."""
    divisor: float
    """L, of every step: the same, or sampling rate x federation.typical_size."""
    update_ratio: float
    """Longest signal over noise of its update in the first round that trains."""
    study_ratio: float
    """The same over all steps of the part that decides, if the node were alone."""
    noise_length: float
    """Of that update, in parameter units."""
    rounds_kept_out: int
    """Rounds whose update is certain to be longer than the server accepts."""


@dataclass(frozen=True)
class PartPlan:
    """What the mean over all nodes can expect of the head, or of the adapter."""

    name: str
    dimension: int
    learning_rate: float
    study_ratio: float
    """Longest signal over noise, over all steps."""


@dataclass(frozen=True)
class TypicalSize:
    """What `federation.typical_size` could be for these nodes."""

    mean: int
    """Of their declared sizes, rounded as these are."""
    gain: float
    """What the mean's ratio would be with it, by what it is as declared."""

    @property
    def helps(self) -> bool:
        """Whether sites differ so much in size that it is worth a line."""
        return self.gain > TYPICAL_SIZE_HELPS


@dataclass(frozen=True)
class Whitening:
    """What `training.whitening` could tell apart."""

    edge: float
    """Of features' mean square length, that a direction has to hold to stand out of the noise."""
    width: int
    """Directions."""
    on: bool
    """Whether the study does."""

    @property
    def possible(self) -> bool:
        """Whether noise is so low that it is worth a trial."""
        return self.edge * self.width < STANDS_OUT


@dataclass(frozen=True)
class StudyPlan:
    """The whole plan; noise, steps and cost are the same at every node."""

    study_sha256: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    rounds: int
    delta: float
    unit: str
    epsilon_by_round: list[float]
    """By RDP, which is what ledgers count."""
    epsilon_prv: float | None
    """Of all rounds: tighter, shown only."""
    epsilon_limit: float
    spent_steps: int
    rounds_afforded: int
    """More rounds that a ledger with this limit and these steps spent can pay for."""
    bytes_up_per_round: int
    """Payload of one node's update, in the study's encoding."""
    bytes_down_per_round: int
    """Of the adapter, which always travels as float32."""
    bytes_total: int
    """Of one node, up and down, over all rounds."""
    mean_update_ratio: float
    """Longest signal over noise of the mean of all nodes' updates in the first round that trains."""
    parts: list[PartPlan]
    """The one that decides first: the head, which starts at zero, or the adapter of a task without a head."""
    head_start: float | None
    """Learning rate of the head that this noise suggests; None for what is no classifier of one label."""
    adapter_start: AdapterStart | None
    """The same of the adapter, beside that head, and a share; None unless head and adapter are both trained."""
    typical_size: TypicalSize
    whitening: Whitening | None
    """None where there is no single linear head on pooled features."""
    gain_of_twice_the_rounds: float | None
    """How many times the ratio twice as many rounds would have, at the same epsilon and other learning rates; None if
    no practical noise would be enough for them."""
    nodes: list[NodePlan]
    left_out: list[str]
    """Nodes below federation.smallest_declared_size: they refuse, and spend nothing."""
    quorum: int
    asked_per_round: int
    """All nodes that can join, or federation.cohort of them; cost is that of a node which is asked in every round."""
    prospect: Prospect

    @property
    def too_few(self) -> bool:
        """Whether no round can count."""
        return len(self.nodes) < self.quorum

    @property
    def ratio(self) -> float:
        """What the prospect is judged by: over all steps, of the part that decides, for the mean of all nodes."""
        return self.parts[0].study_ratio

    def quietest(self, *, least: int = 1) -> tuple[list[NodePlan], float]:
        """The largest nodes, at least so many, whose mean is the least noisy, and its ratio by that of all."""
        nodes = sorted(self.nodes, key=lambda node: -node.declared_size)
        batches = [Batch(node.expected_batch, node.divisor) for node in nodes]
        best = best_batches(batches, asked=self.asked_per_round, least=least)
        best_mean, mean = (mean_batch(some, asked=self.asked_per_round) for some in (best, batches))
        return nodes[: len(best)], best_mean.units / mean.units

    @property
    def fits(self) -> bool:
        """Whether a node with this limit could approve the study."""
        return self.rounds_afforded >= self.rounds

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "ratio": self.ratio,
            "fits": self.fits,
            "too_few": self.too_few,
            "prospect": str(self.prospect),
        }


def study_plan(
    study: Study, layout: Layout, sizes: dict[str, int], *, epsilon_limit: float | None = None, spent_steps: int = 0
) -> StudyPlan:
    """Plan a study for nodes of these declared sizes.

    Args:
        study: as declared.
        layout: what it trains.
        sizes: declared size by name; rounded to two digits, as their operators would declare them.
        epsilon_limit: the most that a node's dataset may ever spend; default: what the study costs.
        spent_steps: of this study's own kind, that the ledger holds already.

    Raises:
        SettingsError: no node is large enough.
        BudgetError: no practical noise is enough for the study's epsilon.
    """
    at_least(0, spent_steps=spent_steps)
    smallest = study.federation.smallest_declared_size
    declared = {name: declared_size(size) for name, size in sizes.items()}
    joining = {name: size for name, size in declared.items() if size >= smallest}
    if not joining:
        raise SettingsError(
            f"Expected a site of at least federation.smallest_declared_size={smallest}, got {list(declared.values())}."
        )
    planned, parts = plan(study.privacy, steps=study.total_steps), parts_of(study, layout.tensors)
    limit = study.privacy.epsilon if epsilon_limit is None else epsilon_limit
    asked = min(study.federation.cohort or len(joining), len(joining))
    mean = mean_batch([batch_of(study, size) for size in joining.values()], asked=asked)
    by_part = [
        PartPlan(p.name, p.dimension, p.learning_rate, ratio([p], all_steps(study, planned, mean))) for p in parts
    ]
    plain_head = _head_start(study, parts, all_steps(study, planned, mean))
    head = plain_head and plain_head * (WHITENED_HEAD_RATE if study.training.whitening else 1)
    rounds, local_steps = study.federation.rounds, study.training.local_steps
    up, down = packed_bytes(layout.length, study.federation.wire), packed_bytes(layout.length, "float32")
    # of two digits, so even thousands of sites have few different sizes
    kept_out = {size: len(rounds_kept_out(study, layout, declared=size)) for size in set(joining.values())}
    return StudyPlan(
        study_sha256=study.sha256,
        noise_multiplier=planned.noise_multiplier,
        sampling_rate=planned.sampling_rate,
        steps=planned.steps,
        rounds=rounds,
        delta=planned.delta,
        unit=planned.unit,
        epsilon_by_round=epsilon_by_round(planned, rounds=rounds, local_steps=local_steps),
        epsilon_prv=epsilon_prv([planned.release(planned.steps)], planned.delta),
        epsilon_limit=limit,
        spent_steps=spent_steps,
        rounds_afforded=rounds_afforded(planned, local_steps=local_steps, limit=limit, spent_steps=spent_steps),
        bytes_up_per_round=up,
        bytes_down_per_round=down,
        bytes_total=(up + down) * rounds,
        mean_update_ratio=ratio(parts, round_steps(study, planned, mean, 1 + study.measuring_rounds)),
        parts=by_part,
        head_start=head,
        adapter_start=_start(parts, by_part, plain_head),
        typical_size=_typical_size(study, [*joining.values()], mean, asked),
        whitening=_whitening(study, layout, planned, mean),
        gain_of_twice_the_rounds=_gain_of_twice_the_rounds(study, parts[0], mean, by_part[0].study_ratio),
        nodes=[_node(study, planned, parts, name, size, kept_out[size]) for name, size in joining.items()],
        left_out=[name for name in declared if name not in joining],
        quorum=study.federation.quorum,
        asked_per_round=asked,
        prospect=prospect(by_part[0].study_ratio),
    )


def _head_start(study: Study, parts: Sequence[Part], steps: Steps) -> float | None:
    one_label = study.task.kind in WHITENED_KINDS and getattr(study.task, "problem", "single-label") == "single-label"
    return head_rate(steps, feature_length=FEATURE_NORM) if one_label and parts[0].name == "head" else None


def _start(parts: Sequence[Part], planned: Sequence[PartPlan], head: float | None) -> AdapterStart | None:
    if len(parts) < 2:
        return None
    return adapter_start(head or parts[0].learning_rate, planned[1].study_ratio, parts[1].share)


def _typical_size(study: Study, sizes: Sequence[int], mean: Batch, asked: int) -> TypicalSize:
    typical = declared_size(round(sum(sizes) / len(sizes)))
    changed = study.model_copy(update={"federation": study.federation.model_copy(update={"typical_size": typical})})
    with_it = mean_batch([batch_of(changed, size) for size in sizes], asked=asked)
    return TypicalSize(typical, gain=with_it.units / mean.units)


def _whitening(study: Study, layout: Layout, planned: PrivacyPlan, mean: Batch) -> Whitening | None:
    widths = [shape[1] for name, shape in layout.tensors if name.startswith("head.") and len(shape) == 2]
    if study.task.kind not in WHITENED_KINDS or not widths:
        return None
    steps = Steps([1.0] * study.training.local_steps, planned.noise_multiplier, planned.clip_norm, mean)
    return Whitening(moments_edge(steps, widths[0]), widths[0], study.training.whitening)


def _gain_of_twice_the_rounds(study: Study, part: Part, mean: Batch, now: float) -> float | None:
    as_declared = {"epsilon": study.privacy.epsilon, "sampling_rate": study.privacy.sampling_rate}
    found = ratio_with(study, part, mean, **as_declared, rounds=2 * study.federation.rounds)
    return found / now if found else None


def _node(
    study: Study, planned: PrivacyPlan, parts: Sequence[Part], name: str, declared: int, kept_out: int
) -> NodePlan:
    batch = batch_of(study, declared)
    first = round_steps(study, planned, batch, 1 + study.measuring_rounds)
    whole = all_steps(study, planned, batch)
    return NodePlan(
        name=name,
        declared_size=declared,
        expected_batch=batch.units,
        divisor=batch.divisor,
        update_ratio=ratio(parts, first),
        study_ratio=ratio(parts[:1], whole),
        noise_length=noise_length(parts, first),
        rounds_kept_out=kept_out,
    )


def read_sizes(text: str) -> dict[str, int]:
    """Declared sizes as typed, `3700,4200`, by a number for each node.

    Raises:
        SettingsError: not a list of whole numbers above zero.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in found):
        raise SettingsError(
            f"Expected whole numbers with commas between, got --sizes {text!r}.", hint="--sizes 3700,4200"
        )
    return {f"node {number}": int(part) for number, part in enumerate(found, start=1)}


def study_in(path: Path) -> Study:
    """The study in a file, which may be a simulation's scenario: what only a simulation has is left aside."""
    declared = read_toml(path)
    declared.pop("simulation", None)
    return parse(Study, declared, where=str(path))
